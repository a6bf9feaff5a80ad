# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""SAM-family encoders as feature pyramids: images in, maps (B, C, h, w) out, one a tap."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from lunar_perception.models.vit import Block, RelativePositions


@dataclass(frozen=True)
class SamEncoderConfig:
    """
    A SAM-shaped vision transformer; the defaults are SAM-ViT-B's.

    Attributes:
        hidden_size, depth, heads, mlp_ratio: the transformer's size.
        global_blocks: indices of the blocks that attend globally; the others in windows.
        window_size: side of an attention window in tokens.
        patch_size: side of a patch in pixels; an image's sides are multiples of it.
        image_size: side of the square image that the position tables are stored for.
        taps: indices of the blocks whose maps come out, in this order.
        neck_channels: width of SAM's neck, whose map comes last; 0 leaves the neck away.

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

    def __post_init__(self) -> None:
        object.__setattr__(self, 'global_blocks', tuple(self.global_blocks))
        object.__setattr__(self, 'taps', tuple(self.taps))
        for name in ('hidden_size', 'depth', 'heads', 'window_size', 'patch_size', 'image_size'):
            if getattr(self, name) < 1:
                raise ValueError(f'encoder {name} = {getattr(self, name)} must be positive')
        if self.hidden_size % self.heads:
            raise ValueError(f'{self.heads} heads do not divide hidden_size {self.hidden_size}')
        if self.image_size % self.patch_size:
            raise ValueError(
                f'image_size {self.image_size} is not a multiple of the patch, {self.patch_size}'
            )
        for name in ('global_blocks', 'taps'):
            if not set(getattr(self, name)) <= set(range(self.depth)):
                raise ValueError(
                    f'encoder {name} {getattr(self, name)} go beyond {self.depth} blocks'
                )
        if not self.taps and not self.neck_channels:
            raise ValueError('an encoder without taps and without a neck gives nothing')

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


class _Tables(NamedTuple):
    """Position tables for one grid: absolute (1, h, w, C), and every block's relative ones."""

    absolute: Tensor
    relative: list[RelativePositions]


class SamEncoder(nn.Module):
    """
    SAM's image encoder for any image whose sides are multiples of the patch.

    Away from the stored size the absolute positions are resized bicubically and the global
    blocks' relative ones linearly; windowed blocks keep theirs. Without gradients the tables are
    computed once a size and kept until parameters change through `train`, `load_state_dict` or a
    move to another device or dtype.

    Attributes:
        channels, strides: width and stride in pixels of each map that comes out.
        multiple: what an image's sides must be multiples of, in pixels.

    """

    def __init__(self, config: SamEncoderConfig) -> None:
        super().__init__()
        self.config = config
        grid = config.image_size // config.patch_size
        width = config.hidden_size
        self.patch_embed = nn.Module()
        self.patch_embed.projection = nn.Conv2d(3, width, config.patch_size, config.patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, width))
        self.blocks = nn.ModuleList(
            Block(
                width,
                config.heads,
                int(width * config.mlp_ratio),
                0 if i in config.global_blocks else config.window_size,
                grid,
            )
            for i in range(config.depth)
        )
        self.neck = Neck(width, config.neck_channels) if config.neck_channels else None
        maps = len(config.taps) + bool(config.neck_channels)
        self.channels = (width,) * len(config.taps) + (config.neck_channels,) * (
            maps - len(config.taps)
        )
        self.strides = (config.patch_size,) * maps
        self.multiple = config.patch_size
        self._cache: dict[tuple[Any, ...], _Tables] = {}
        self.register_load_state_dict_post_hook(lambda module, _: module._cache.clear())
        self.apply(_initialise)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def train(self, mode: bool = True) -> 'SamEncoder':
        """Switch between training and evaluation; either forgets the kept tables."""
        self._cache.clear()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> 'SamEncoder':
        self._cache.clear()
        return super()._apply(*args, **kwargs)

    def _tables(self, height: int, width: int) -> _Tables:
        """Return the position tables of a height × width token grid."""
        if self.training or (torch.is_grad_enabled() and self.pos_embed.requires_grad):
            return self._compute_tables(height, width)
        key = (height, width, self.pos_embed.device, self.pos_embed.dtype)
        if key not in self._cache:
            # Ordinary tensors, so that a later pass with gradients may use them too.
            with torch.inference_mode(False), torch.no_grad():
                self._cache[key] = self._compute_tables(height, width)
        return self._cache[key]

    def _compute_tables(self, height: int, width: int) -> _Tables:
        absolute = self.pos_embed
        if absolute.shape[1:3] != (height, width):
            absolute = F.interpolate(
                absolute.permute(0, 3, 1, 2), size=(height, width), mode='bicubic'
            ).permute(0, 2, 3, 1)
        return _Tables(absolute, [block.positions(height, width) for block in self.blocks])

    def forward(self, images: Tensor, extra: Tensor | None = None) -> tuple[Tensor, ...]:
        """
        Return the taps' maps, then the neck's: each (B, C, H / patch, W / patch).

        `images` is (B, 3, H, W); `extra` (B, hidden_size, H / patch, W / patch), where given, is
        added to the patch embeddings. Raises ValueError when H or W is not a multiple of the
        patch.
        """
        check_size(images, self.multiple)
        x = self.patch_embed.projection(images)
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


class Neck(nn.Module):
    """SAM's neck: (B, C, h, w) to (B, channels, h, w) by a 1×1 and a 3×3 convolution."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, channels, 1, bias=False)
        self.layer_norm1 = ChannelNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.layer_norm2 = ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer_norm2(self.conv2(self.layer_norm1(self.conv1(x))))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a (B, C, h, w) map."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def check_size(images: Tensor, multiple: int) -> None:
    """Raise ValueError unless images are (B, 3, H, W) with H and W multiples of `multiple`."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f'images of shape {tuple(images.shape)} are not (B, 3, H, W)')
    height, width = images.shape[2:]
    if height % multiple or width % multiple or not height or not width:
        raise ValueError(f'images {width}×{height} need sides that are multiples of {multiple}')


def _initialise(module: nn.Module) -> None:
    """Initialise linear and convolution layers for training from scratch."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
