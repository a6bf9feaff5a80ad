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

"""SAM 2's encoder, Hiera, from transformers: the alternative to SAM's (arXiv 2408.00714)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import lcm
from pathlib import Path
from typing import Any, Literal

from lunar_perception.models.checkpoint import (
    assign_weights,
    find_checkpoint,
    read_config,
    read_weights,
)
from lunar_perception.models.configuration import freeze_counts
from lunar_perception.models.encoders import check_size, encoder_weights
from torch import nn, Tensor
from torch.nn import functional as F

STAGES = 4


@dataclass(frozen=True)
class Sam2EncoderConfig:
    """
    SAM 2's Hiera; the defaults are those of facebook/sam2.1-hiera-tiny.

    Fields:
        channels, blocks, heads, windows: width, number of blocks, attention heads and side of an
            attention window in tokens of each of the four stages (strides 4, 8, 16, 32).
        global_blocks: indices of the blocks that attend globally.
        background: rows and columns of the coarse position embedding.
        kind: tells this encoder from the others in JSON.

    Raises ValueError for values that make no encoder.

    """

    channels: tuple[int, ...] = (96, 192, 384, 768)
    blocks: tuple[int, ...] = (1, 2, 7, 2)
    heads: tuple[int, ...] = (1, 2, 4, 8)
    windows: tuple[int, ...] = (8, 4, 14, 7)
    global_blocks: tuple[int, ...] = (5, 7, 9)
    background: tuple[int, ...] = (7, 7)
    kind: Literal['sam2'] = 'sam2'

    def __post_init__(self) -> None:
        stages = ('channels', 'blocks', 'heads', 'windows')
        freeze_counts(self, *stages, 'global_blocks', 'background')
        for name in stages:
            if len(getattr(self, name)) != STAGES or not all(getattr(self, name)):
                raise ValueError(
                    f'{name} {getattr(self, name)} need a number for each of 4 stages'
                )
        if any(wide == next_ for wide, next_ in pairwise(self.channels)):
            # transformers' Hiera halves the grid only where the width changes.
            raise ValueError(f'channels {self.channels} must change from stage to stage')
        if len(self.background) != 2 or not all(self.background):
            raise ValueError(f'background {self.background} needs rows and columns')
        if any(block >= sum(self.blocks) for block in self.global_blocks):
            raise ValueError(f'global_blocks {self.global_blocks} go beyond {sum(self.blocks)}')
        if any(width % heads for width, heads in zip(self.channels, self.heads, strict=True)):
            raise ValueError(f'heads {self.heads} do not divide channels {self.channels}')

    @classmethod
    def from_transformers(cls, values: Mapping[str, Any]) -> 'Sam2EncoderConfig':
        """Return the shape in transformers' config.json of a Sam2Model or Sam2VisionModel."""
        vision = values.get('vision_config', values)
        hiera = vision.get('backbone_config', vision)
        names = {
            'channels': 'embed_dim_per_stage',
            'blocks': 'blocks_per_stage',
            'heads': 'num_attention_heads_per_stage',
            'windows': 'window_size_per_stage',
            'global_blocks': 'global_attention_blocks',
            'background': 'window_positional_embedding_background_size',
        }
        return cls(**{ours: hiera[theirs] for ours, theirs in names.items() if theirs in hiera})


class Sam2Encoder(nn.Module):
    """
    Hiera's four stages as maps at strides 4, 8, 16, 32, without SAM 2's neck.

    Modules are those of transformers' `Sam2VisionModel.backbone`, under the same names.

    Fields:
        channels, strides: width and stride in pixels of each map that comes out.
        multiple: what an image's sides must be multiples of, in pixels.

    """

    def __init__(self, config: Sam2EncoderConfig) -> None:
        # Imported here: the other encoders do without transformers, which is slow to import.
        from transformers import Sam2HieraDetConfig
        from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModel

        super().__init__()
        self.config = config
        hiera = Sam2HieraDetModel(
            Sam2HieraDetConfig(
                hidden_size=config.channels[0],
                num_attention_heads=config.heads[0],
                embed_dim_per_stage=list(config.channels),
                blocks_per_stage=list(config.blocks),
                num_attention_heads_per_stage=list(config.heads),
                window_size_per_stage=list(config.windows),
                global_attention_blocks=list(config.global_blocks),
                window_positional_embedding_background_size=list(config.background),
            )
        )
        self.patch_embed = hiera.patch_embed
        self.pos_embed = hiera.pos_embed
        self.pos_embed_window = hiera.pos_embed_window
        self.blocks = hiera.blocks
        self.channels = config.channels
        self.strides = (4, 8, 16, 32)
        self.multiple = lcm(self.strides[-1], self.strides[0] * config.windows[0])

    @classmethod
    def from_pretrained(cls, source: str | Path, *, download: bool = False) -> 'Sam2Encoder':
        """
        Return the encoder of a Sam2Model or Sam2VisionModel checkpoint that transformers saved.

        `source` is a folder or a Hub id such as facebook/sam2.1-hiera-tiny. Raises OSError and
        ValueError as `load_pretrained`.
        """
        values = read_config(find_checkpoint(source, download=download))
        encoder = cls(Sam2EncoderConfig.from_transformers(values))
        encoder.load_pretrained(source, download=download)
        return encoder

    def load_pretrained(self, source: str | Path, *, download: bool = False) -> None:
        """
        Load the weights of a Sam2Model or Sam2VisionModel checkpoint that transformers saved.

        `source` is a folder or a Hub id, fetched only with `download`. Raises OSError when it is
        not found, ValueError when its weights are damaged, pickled or of another shape.
        """
        folder = find_checkpoint(source, download=download)
        assign_weights(self, encoder_weights(read_weights(folder), folder), str(folder))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """
        Return the stages' maps, each (B, C, H / stride, W / stride), of images (B, 3, H, W).

        Raises ValueError when H or W is not a multiple of `multiple`.
        """
        check_size(images, self.multiple)
        x = self.patch_embed(images)
        height, width = x.shape[1:3]
        window = self.config.windows[0]
        positions = F.interpolate(self.pos_embed, size=(height, width), mode='bicubic')
        tiles = self.pos_embed_window.tile(1, 1, height // window, width // window)
        x = x + (positions + tiles).permute(0, 2, 3, 1)
        ends = [last - 1 for last in accumulate(self.config.blocks)]
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in ends:
                maps.append(x.permute(0, 3, 1, 2))
        return tuple(maps)
