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

"""The layers' forms for ONNX Runtime give the values of the layers themselves."""

from copy import deepcopy

from lunar_perception.inference.backends.onnx_forms import FORMS, spread_tiles, use_onnx_forms
from lunar_perception.models import UnifiedModel, vit
import pytest
from tiny_network import save_tiny_network
import torch
from torch import nn


@pytest.mark.parametrize('bias_values', [vit.BIAS_VALUES, 1])
def test_a_network_of_forms_says_what_the_network_says(
    tmp_path, monkeypatch, bias_values: int
) -> None:
    """Also where attention is computed a few rows at a time."""
    monkeypatch.setattr(vit, 'BIAS_VALUES', bias_values)
    model = UnifiedModel.from_pretrained(save_tiny_network(tmp_path / 'tiny'))
    formed = deepcopy(model)
    use_onnx_forms(formed)
    types = {type(module) for module in formed.modules()}
    assert types >= set(FORMS.values()) and not types & set(FORMS)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        for output, truth in zip(formed(images), model(images), strict=True):
            torch.testing.assert_close(output, truth, rtol=1e-4, atol=1e-4)


def test_tiles_are_spread_as_a_transposed_convolution_does() -> None:
    convolution = nn.ConvTranspose2d(3, 5, 4, 4)
    maps = torch.randn(2, 3, 6, 7)
    tiles = spread_tiles(maps.permute(0, 2, 3, 1), convolution)
    torch.testing.assert_close(tiles, convolution(maps))
