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
The layers of SAM's encoder: patches, blocks with decomposed relative positions, neck.

Parameters carry the names of transformers' `SamVisionEncoder`, so its weights load as they are.
Segment Anything, arXiv 2304.02643; relative positions, arXiv 2112.01526, section 4.1.
"""

from typing import NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F


class RelativePositions(NamedTuple):
    """What one block's relative-position tables say for one grid: (h, h, d) and (w, w, d)."""

    rows: Tensor
    columns: Tensor


def gather_relative(table: Tensor, size: int) -> Tensor:
    """
    Return the embedding of every offset between `size` positions on one axis.

    `table` (2n − 1, d) holds offsets −(n − 1) … n − 1; for another size than n it is resized
    linearly to 2·size − 1 entries. The result (size, size, d) is indexed [query, key].
    """
    offsets = 2 * size - 1
    if len(table) != offsets:
        table = F.interpolate(table.T[None], size=offsets, mode='linear')[0].T
    position = torch.arange(size, device=table.device)
    return table[position[:, None] - position[None, :] + size - 1]


class PatchEmbedding(nn.Module):
    """Images (B, 3, H, W) to tokens (B, width, H / patch, W / patch)."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.projection(images)


class RelativeAttention(nn.Module):
    """Multi-head self-attention over a (B, h, w, C) grid with relative positions."""

    def __init__(self, width: int, heads: int, grid: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid - 1, width // heads))

    def positions(self, height: int, width: int) -> RelativePositions:
        """Return this layer's relative positions on a height × width grid of tokens."""
        return RelativePositions(
            gather_relative(self.rel_pos_h, height), gather_relative(self.rel_pos_w, width)
        )

    def forward(self, x: Tensor, positions: RelativePositions) -> Tensor:
        batch, height, width, channels = x.shape
        qkv = self.qkv(x).view(batch, height * width, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        grid = query.unflatten(2, (height, width))
        rows = torch.einsum('bnhwc,hkc->bnhwk', grid, positions.rows)
        columns = torch.einsum('bnhwc,wkc->bnhwk', grid, positions.columns)
        bias = (rows[..., :, None] + columns[..., None, :]).flatten(4).flatten(2, 3)
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(x.transpose(1, 2).reshape(batch, height, width, channels))


class Mlp(nn.Module):
    """The block's two-layer perceptron with GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.gelu(self.lin1(x)))


class Block(nn.Module):
    """
    One transformer layer on a (B, h, w, C) grid of tokens.

    `window` is the side of its attention windows in tokens, or 0 for global attention;
    `native_grid` the side of the token grid that a global layer's tables are stored for.
    """

    def __init__(self, width: int, heads: int, hidden: int, window: int, native_grid: int) -> None:
        super().__init__()
        self.window = window
        self.layer_norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = RelativeAttention(width, heads, window or native_grid)
        self.layer_norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden)

    def positions(self, height: int, width: int) -> RelativePositions:
        """Return this layer's relative positions when the image has height × width tokens."""
        if self.window:
            return self.attn.positions(self.window, self.window)
        return self.attn.positions(height, width)

    def forward(self, x: Tensor, positions: RelativePositions) -> Tensor:
        attended = self.layer_norm1(x)
        if self.window:
            height, width = x.shape[1:3]
            windows = split_windows(attended, self.window)
            attended = join_windows(self.attn(windows, positions), height, width)
        else:
            attended = self.attn(attended, positions)
        x = x + attended
        return x + self.mlp(self.layer_norm2(x))


class Neck(nn.Module):
    """SAM's neck: (B, C, h, w) to (B, channels, h, w) by a 1×1 and a 3×3 convolution."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, channels, 1, bias=False)
        self.layer_norm1 = ChannelNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.layer_norm2 = ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm1(self.conv1(x))
        return self.layer_norm2(self.conv2(x))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a (B, C, h, w) map."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def split_windows(x: Tensor, window: int) -> Tensor:
    """
    Cut (B, h, w, C) into windows (B·n, window, window, C), padded with zeros below and right.

    The padding takes part in the attention as it did when SAM was trained.
    """
    batch, height, width, channels = x.shape
    pad_h, pad_w = -height % window, -width % window
    if pad_h or pad_w:
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
    rows, columns = x.shape[1] // window, x.shape[2] // window
    x = x.reshape(batch, rows, window, columns, window, channels).transpose(2, 3)
    return x.reshape(-1, window, window, channels)


def join_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Undo `split_windows` for a grid of height × width tokens."""
    window, channels = windows.shape[2:]
    rows, columns = -(-height // window), -(-width // window)
    x = windows.reshape(-1, rows, columns, window, window, channels).transpose(2, 3)
    return x.reshape(-1, rows * window, columns * window, channels)[:, :height, :width]
