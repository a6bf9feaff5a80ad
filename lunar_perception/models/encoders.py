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

"""SAM-family encoders as feature pyramids: images in, maps (B, C, h, w) out, one a tap."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, cast, Literal, NamedTuple, Self

from lunar_perception.models.checkpoint import (
    assign_weights,
    find_checkpoint,
    read_config,
    read_weights,
)
from lunar_perception.models.configuration import (
    freeze_counts,
    require_counts,
    require_positive,
)
from lunar_perception.models.vit import Block, Neck, PatchEmbedding, RelativePositions
import torch
from torch import nn, Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class SamEncoderConfig:
    """
    A SAM-shaped vision transformer; the defaults are SAM-ViT-B's.

    Fields:
        hidden_size, depth, heads, mlp_ratio: the transformer's size.
        global_blocks: indices of the blocks that attend globally; the others in windows.
        window_size: side of an attention window in tokens.
        patch_size: side of a patch in pixels; an image's sides are multiples of it.
        image_size: side of the square image that the position tables are stored for.
        taps: indices of the blocks whose maps come out, in this order.
        neck_channels: width of SAM's neck, whose map comes last; 0 leaves the neck away.
        stretch_positions: whether an oblong image stretches relative positions along its longer
            side, as in transformers; else they stay as in the square of its area, where things
            are seen at the same scale.
        kind: tells this encoder from the others in JSON.

    Raises ValueError for values that make no encoder.

    """

    hidden_size: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    window_size: int = 14
    patch_size: int = 16
    image_size: int = 1024
    taps: tuple[int, ...] = (2, 5, 8, 11)
    neck_channels: int = 0
    stretch_positions: bool = True
    kind: Literal['sam'] = 'sam'

    def __post_init__(self) -> None:
        if not isinstance(self.stretch_positions, bool):
            raise ValueError(f'stretch_positions {self.stretch_positions!r} must be true or false')
        require_counts(
            self, 'hidden_size', 'depth', 'heads', 'window_size', 'patch_size', 'image_size'
        )
        require_counts(self, 'neck_channels', least=0)
        require_positive(self, 'mlp_ratio')
        freeze_counts(self, 'global_blocks', 'taps')
        if self.hidden_size % self.heads:
            raise ValueError(f'{self.heads} heads do not divide hidden_size {self.hidden_size}')
        if self.image_size % self.patch_size:
            raise ValueError(
                f'image_size {self.image_size} is no multiple of patch_size {self.patch_size}'
            )
        for name in ('global_blocks', 'taps'):
            if any(block >= self.depth for block in getattr(self, name)):
                raise ValueError(f'{name} {getattr(self, name)} go beyond depth {self.depth}')
        if not self.taps and not self.neck_channels:
            raise ValueError('an encoder with neither taps nor neck_channels gives no map')

    @classmethod
    def sam_vit_base(cls, **changes: Any) -> 'SamEncoderConfig':
        """Return the shape of facebook/sam-vit-base, taps after its global blocks."""
        return cls(**changes)

    @classmethod
    def sam_vit_large(cls, **changes: Any) -> 'SamEncoderConfig':
        """Return the shape of facebook/sam-vit-large, taps after its global blocks."""
        blocks = (5, 11, 17, 23)
        shape = {'hidden_size': 1024, 'depth': 24, 'heads': 16, 'global_blocks': blocks}
        return cls(**{**shape, 'taps': blocks, **changes})

    @classmethod
    def sam_vit_huge(cls, **changes: Any) -> 'SamEncoderConfig':
        """Return the shape of facebook/sam-vit-huge, taps after its global blocks."""
        blocks = (7, 15, 23, 31)
        shape = {'hidden_size': 1280, 'depth': 32, 'heads': 16, 'global_blocks': blocks}
        return cls(**{**shape, 'taps': blocks, **changes})

    @classmethod
    def from_transformers(cls, values: Mapping[str, Any], **changes: Any) -> 'SamEncoderConfig':
        """Return the shape in transformers' config.json of a SamModel or SamVisionModel."""
        vision = values.get('vision_config', values)
        width = vision.get('hidden_size', cls.hidden_size)
        blocks = tuple(vision.get('global_attn_indexes', cls.global_blocks))
        shape = {
            'hidden_size': width,
            'depth': vision.get('num_hidden_layers', cls.depth),
            'heads': vision.get('num_attention_heads', cls.heads),
            'mlp_ratio': (vision.get('mlp_dim') or cls.mlp_ratio * width) / width,
            'global_blocks': blocks,
            'window_size': vision.get('window_size', cls.window_size),
            'patch_size': vision.get('patch_size', cls.patch_size),
            'image_size': vision.get('image_size', cls.image_size),
            'taps': blocks,
        }
        return cls(**{**shape, **changes})


KEPT_SIZES = 8
"""How many sizes' position tables an encoder keeps: cameras are few, folders of pictures not."""


class _Tables(NamedTuple):
    """Position tables for one grid: absolute (1, h, w, C), and every block's relative ones."""

    absolute: Tensor
    relative: list[RelativePositions]


class SamEncoder(nn.Module):
    """
    SAM's image encoder for any image whose sides are multiples of the patch.

    Away from the stored size the absolute positions are resized bicubically and the global
    blocks' relative ones linearly; windowed blocks keep theirs. In evaluation the tables are
    computed once a size and kept until the parameters change.

    The relative positions' bias is folded into queries and keys on CUDA, where flash attention
    then does the rest; on the CPU it is added a few rows at a time, which is faster there.

    Parameters carry the names of transformers' `SamVisionEncoder`, its `layers` called `blocks`.

    Fields:
        channels, strides: width and stride in pixels of each map that comes out.
        multiple: what an image's sides must be multiples of, in pixels.
        folded: whether the bias is folded; None leaves it to the device.

    """

    folded: bool | None = None

    def __init__(self, config: SamEncoderConfig) -> None:
        super().__init__()
        self.config = config
        grid = config.image_size // config.patch_size
        width = config.hidden_size
        self.patch_embed = PatchEmbedding(width, config.patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, width))
        self.blocks = nn.ModuleList(
            Block(
                width,
                config.heads,
                round(width * config.mlp_ratio),
                0 if i in config.global_blocks else config.window_size,
                grid,
            )
            for i in range(config.depth)
        )
        self.neck = Neck(width, config.neck_channels) if config.neck_channels else None
        self.channels = (width,) * len(config.taps)
        if config.neck_channels:
            self.channels = (*self.channels, config.neck_channels)
        self.strides = (config.patch_size,) * len(self.channels)
        self.multiple = config.patch_size
        self._cache: dict[tuple[Any, ...], _Tables] = {}
        self._held: _Tables | None = None
        self.register_load_state_dict_post_hook(_forget_tables)
        self.apply(_initialise)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, download: bool = False, **changes: Any
    ) -> 'SamEncoder':
        """
        Return the encoder of a SamModel or SamVisionModel checkpoint that transformers saved.

        `source` is a folder or a Hub id such as facebook/sam-vit-base; `changes` are fields of
        SamEncoderConfig such as taps. Raises OSError and ValueError as `load_pretrained`.
        """
        values = read_config(find_checkpoint(source, download=download))
        encoder = cls(SamEncoderConfig.from_transformers(values, **changes))
        encoder.load_pretrained(source, download=download)
        return encoder

    def load_pretrained(self, source: str | Path, *, download: bool = False) -> None:
        """
        Load the weights of a SamModel or SamVisionModel checkpoint that transformers saved.

        `source` is a folder or a Hub id, fetched only with `download`. Raises OSError when it is
        not found, ValueError when its weights are damaged, pickled or of another shape.
        """
        folder = find_checkpoint(source, download=download)
        weights = encoder_weights(read_weights(folder), folder)
        weights = {
            name.replace('layers.', 'blocks.', 1): value
            for name, value in weights.items()
            if self.neck is not None or not name.startswith('neck.')
        }
        assign_weights(self, weights, str(folder))

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or to evaluation; either forgets the kept tables."""
        self._forget_tables()
        return super().train(mode)

    def hold_size(self, height: int, width: int) -> None:
        """
        Take images of height × width pixels only from now on, their tables as constants.

        For compilers and exporters: the pass is then free of what depends on a size or is looked
        up. Lasts until the parameters are loaded or moved, or `train` or `eval` is called.
        """
        self._held = None
        with torch.no_grad():
            patch = self.config.patch_size
            self._held = self._compute_tables(height // patch, width // patch)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._forget_tables()
        return super()._apply(*args, **kwargs)

    def _forget_tables(self) -> None:
        self._cache.clear()
        self._held = None

    def _tables(self, height: int, width: int) -> _Tables:
        """Return the position tables of a height × width token grid."""
        if self._held is not None:
            return self._held
        if self.training or (torch.is_grad_enabled() and self.pos_embed.requires_grad):
            return self._compute_tables(height, width)
        # The version counts changes in place, such as an averaged copy's during training.
        where = (self.pos_embed.device, self.pos_embed.dtype, self.pos_embed._version)
        key = (height, width, self.folded, *where)
        if key not in self._cache:
            if len(self._cache) >= KEPT_SIZES:
                self._cache.clear()
            # Ordinary tensors, so that a later pass with gradients may use them too.
            with torch.inference_mode(False), torch.no_grad():
                self._cache[key] = self._compute_tables(height, width)
        return self._cache[key]

    def _compute_tables(self, height: int, width: int) -> _Tables:
        absolute: Tensor = self.pos_embed
        if absolute.shape[1:3] != (height, width):
            absolute = F.interpolate(
                absolute.permute(0, 3, 1, 2), size=(height, width), mode='bicubic'
            ).permute(0, 2, 3, 1)
        folded = absolute.is_cuda if self.folded is None else self.folded
        blocks = cast(Iterable[Block], self.blocks)
        side = None if self.config.stretch_positions else round(sqrt(height * width))
        positions = [block.positions(height, width, side, folded=folded) for block in blocks]
        return _Tables(absolute, positions)

    def forward(self, images: Tensor, extra: Tensor | None = None) -> tuple[Tensor, ...]:
        """
        Return the taps' maps, then the neck's: each (B, C, H / patch, W / patch).

        `images` is (B, 3, H, W); `extra` (B, hidden_size, H / patch, W / patch), where given, is
        added to the patch embeddings. Raises ValueError when H or W is not a multiple of the
        patch.
        """
        check_size(images, self.multiple)
        x = self.patch_embed(images)
        if extra is not None:
            x = x + extra
        x = x.permute(0, 2, 3, 1)
        tables = self._tables(x.shape[1], x.shape[2])
        x = x + tables.absolute
        taps: dict[int, Tensor] = {}
        for i, (block, positions) in enumerate(zip(self.blocks, tables.relative, strict=True)):
            x = block(x, positions)
            if i in self.config.taps:
                taps[i] = x.permute(0, 3, 1, 2)
        maps = tuple(taps[i] for i in self.config.taps)
        return maps if self.neck is None else (*maps, self.neck(x.permute(0, 3, 1, 2)))


def encoder_weights(weights: Mapping[str, Tensor], where: Path) -> dict[str, Tensor]:
    """Return the weights of the image encoder inside a checkpoint, under the encoder's names."""
    first = 'patch_embed.projection.weight'
    prefixes = [name.removesuffix(first) for name in weights if name.endswith(first)]
    if not prefixes:
        raise ValueError(f'{where} holds no image encoder: no weight is called {first}')
    start = prefixes[0]
    return {
        name.removeprefix(start): value
        for name, value in weights.items()
        if name.startswith(start)
    }


def check_size(images: Tensor, multiple: int) -> None:
    """Raise ValueError unless images are (B, 3, H, W) with H and W multiples of `multiple`."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f'images of shape {tuple(images.shape)} are not (B, 3, H, W)')
    height, width = images.shape[2:]
    if height % multiple or width % multiple or not height or not width:
        raise ValueError(f'images {width}×{height} need sides that are multiples of {multiple}')


def _forget_tables(encoder: SamEncoder, _: object) -> None:
    encoder._forget_tables()


def _initialise(module: nn.Module) -> None:
    """Initialise linear and convolution layers for training from scratch."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
