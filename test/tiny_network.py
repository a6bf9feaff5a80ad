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

"""A network of random weights that loads in no time, and says several labels and depths."""

from pathlib import Path

from lunar_perception.models import UnifiedConfig, UnifiedModel
from lunar_perception.models.encoders import SamEncoderConfig
import torch


def save_tiny_network(folder: Path, decoder_channels: int = 8) -> Path:
    """Save a checkpoint in `folder`, and return it."""
    torch.manual_seed(3)
    blocks = (0, 1, 2, 3)
    encoder = SamEncoderConfig(
        hidden_size=16, depth=4, heads=2, global_blocks=blocks, taps=blocks, image_size=64
    )
    config = UnifiedConfig(
        encoder,
        decoder_channels=decoder_channels,
        detail_channels=(6, 6, 8, 8),
        input_size=64,
    )
    model = UnifiedModel(config).eval()
    with torch.no_grad():
        model.segmentation_head[-1].weight.mul_(30)
        model.depth_head.predict.weight.mul_(300)
    model.save_pretrained(folder)
    return folder
