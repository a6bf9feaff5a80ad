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

"""
The unified networks that can be trained by name: those that ship, and their ablations.

Ablations have the size of `rover`, so that a table of them says what each change is worth and
not what more parameters are. Their heads live here: nothing of them ships.
"""

from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from pathlib import Path

from lunar_perception.models import UnifiedConfig, UnifiedModel
from lunar_perception.models.checkpoint import (
    assign_weights,
    find_checkpoint,
    read_config,
    read_weights,
)
from lunar_perception.models.heads import conv_norm, upsample
from lunar_perception.taxonomy import LUNAR_TERRAIN
import torch
from torch import nn, Tensor
from torch.nn import functional as F


def rover_sized_paper(trainable_blocks: int | None) -> UnifiedConfig:
    """Return the paper's network on rover's encoder: neck at stride 16, dilated depth head."""
    rover = UnifiedConfig.rover()
    return replace(
        UnifiedConfig.paper(),
        encoder=replace(rover.encoder, taps=(), neck_channels=128),
        trainable_blocks=trainable_blocks,
        input_size=rover.input_size,
    )


CONFIGS: dict[str, Callable[[], UnifiedConfig]] = {
    'rover': UnifiedConfig.rover,
    'base': UnifiedConfig.base,
    'paper': UnifiedConfig.paper,
    'plain': lambda: rover_sized_paper(0),
    'dilated': lambda: rover_sized_paper(0),
    'dilated_last_four': lambda: rover_sized_paper(4),
    'dilated_full': lambda: rover_sized_paper(None),
    'taps': lambda: replace(UnifiedConfig.rover(), detail_channels=(32,)),
    'transformer_head': UnifiedConfig.rover,
}
"""By the names of `train.config.NetworkName`."""


def build_network(name: str, config: UnifiedConfig | None = None) -> UnifiedModel:
    """Return the network of a name with random weights; `config` stands in for the name's own."""
    config = config or CONFIGS[name]()
    model = UnifiedModel(config)
    if name == 'plain':
        channels = model.encoder.channels[-1]
        model.depth_head = PlainDepthHead(channels, config.decoder_channels, config.max_depth)
    elif name == 'taps':
        model.detail = NoDetail(config.detail_channels[0])
    elif name == 'transformer_head':
        width = config.detail_channels[0]
        model.segmentation_head = ClassQueryHead(width, width, len(LUNAR_TERRAIN))
    return model


def load_network(name: str, folder: Path) -> UnifiedModel:
    """Return the network of a name with the weights that a run of it left in `folder`."""
    model = build_network(name, UnifiedConfig.from_dict(read_config(folder)))
    assign_weights(model, read_weights(folder), str(folder))
    return model.eval()


def load_encoder(model: UnifiedModel, source: str, *, download: bool = False) -> None:
    """
    Load the image encoder of a checkpoint: transformers' SAM or SAM 2, or a unified network.

    Raises OSError when there is none, ValueError when it does not fit.
    """
    folder = find_checkpoint(source, download=download)
    if 'decoder' not in read_config(folder):
        model.encoder.load_pretrained(source, download=download)
        return
    weights = {
        name.removeprefix('encoder.'): value
        for name, value in read_weights(folder).items()
        if name.startswith('encoder.')
    }
    if getattr(model.encoder, 'neck', None) is None:
        weights = {n: v for n, v in weights.items() if not n.startswith('neck.')}
    assign_weights(model.encoder, weights, str(folder))


class PlainDepthHead(nn.Module):
    """
    The paper's first depth head (section 4.2): 3×3 convolution, BatchNorm, ReLU, 1×1.

    `forward(features, size)` returns metres (B, 1, H, W), sigmoid × max_depth, and None for the
    uncertainty.
    """

    def __init__(self, in_channels: int, width: int, max_depth: float) -> None:
        super().__init__()
        self.max_depth = max_depth
        self.features = conv_norm(in_channels, width)
        self.predict = nn.Conv2d(width, 1, 1)

    def forward(self, features: Tensor, size: torch.Size) -> tuple[Tensor, None]:
        x = self.predict(self.features(features)).float()
        return self.max_depth * upsample(x, size).sigmoid(), None


class NoDetail(nn.Module):
    """Stands where the detail stem is, and sees nothing: one map of zeros at stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, images: Tensor) -> list[Tensor]:
        batch, _, height, width = images.shape
        return [images.new_zeros(batch, self.channels, height // 2, width // 2)]


class ClassQueryHead(nn.Module):
    """
    A light transformer for labels, the paper's future work (section 6.1).

    One query a class attends to the features, pooled to GRID², and to the other queries, twice;
    a pixel's logit is its feature's dot product with the query (as MaskFormer answers, with the
    queries tied to the classes). (B, C, h, w) to (B, classes, h, w).
    """

    GRID = 14

    def __init__(self, in_channels: int, width: int, classes: int, layers: int = 2) -> None:
        super().__init__()
        self.features = conv_norm(in_channels, width)
        self.queries = nn.Parameter(0.5 * torch.randn(classes, width))
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        x = self.features(features)
        tokens = F.adaptive_avg_pool2d(x, self.GRID).flatten(2).transpose(1, 2)
        queries = self.queries.expand(len(x), -1, -1)
        for layer in self.layers:
            queries = layer(queries, tokens)
        return torch.einsum('bqc,bchw->bqhw', self.norm(queries), x) / sqrt(x.shape[1])
