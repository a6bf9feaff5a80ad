# Copyright 2026 lunar_perception contributors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""A terrain network of random weights that loads in no time, and says several classes."""

from pathlib import Path
from typing import Any

from lunar_perception.models import TerrainConfig, TerrainModel
import torch

SIZE = 64


def save_tiny_terrain(folder: Path, **changes: Any) -> Path:
    """Save a checkpoint in `folder`, and return it; `changes` are of its configuration."""
    torch.manual_seed(5)
    settings = {'backbone': 'test_resnet', 'head_channels': 8, 'input_size': SIZE, **changes}
    model = TerrainModel(TerrainConfig(**settings))
    with torch.no_grad():
        for _ in range(3):  # BatchNorm's statistics
            model(torch.randn(4, 3, SIZE, SIZE))
        if model.config.segmentation_head:
            model.head.refine.weight.mul_(20)
    model.eval().save_pretrained(folder)
    return folder
