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

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F

BIAS_VALUES = 2**23
"""Most attention biases held at once (32 MiB): beyond, queries are taken a few rows at a time."""

FLASH_CHANNELS = 256
"""Widest head that CUDA's flash attention takes; it wants a multiple of 8."""


class RelativePositions(NamedTuple):
    """
    What one block's relative-position tables say for one h × w grid.

    Fields:
        rows, columns: embeddings of the offsets, (h, h, d) and (w, w, d), [query, key].
        places: (h · w, p), 1 at each token's row and at h + its column, p ≥ h + w; where given,
            the bias is folded into queries and keys.

    """

    rows: Tensor
    columns: Tensor
    places: Tensor | None = None


def gather_relative(table: Tensor, size: int, side: int | None = None) -> Tensor:
    """
    Return the embedding of every offset between `size` positions on one axis.

    `table` (2n − 1, d) holds offsets −(n − 1) … n − 1; for another `side` than n (None: `size`)
    it is resized linearly to 2·side − 1 entries. Offsets beyond these have the last one's
    embedding. The result (size, size, d) is indexed [query, key].
    """
    side = side or size
    entries = 2 * side - 1
    if len(table) != entries:
        table = F.interpolate(table.T[None], size=entries, mode='linear')[0].T
    position = torch.arange(size, device=table.device)
    offset = position[:, None] - position[None, :]
    return table[offset.clamp(1 - side, side - 1) + side - 1]


def one_hot_places(height: int, width: int, like: Tensor) -> Tensor:
    """Return `RelativePositions.places` of a grid, its columns padded to a multiple of 8."""
    rows = torch.eye(height, dtype=like.dtype, device=like.device)
    columns = torch.eye(width, dtype=like.dtype, device=like.device)
    places = torch.cat((rows.repeat_interleave(width, 0), columns.repeat(height, 1)), dim=1)
    return F.pad(places, (0, -(height + width) % 8))


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

    def positions(
        self, height: int, width: int, side: int | None = None, *, folded: bool = False
    ) -> RelativePositions:
        """
        Return this layer's relative positions on a height × width grid of tokens.

        They are those of a grid of `side` × `side`; None: each axis has its own.
        """
        rows, columns = (
            gather_relative(self.rel_pos_h, height, side),
            gather_relative(self.rel_pos_w, width, side),
        )
        places = one_hot_places(height, width, rows) if folded else None
        if places is not None and rows.shape[2] + places.shape[1] > FLASH_CHANNELS:
            places = None
        return RelativePositions(rows, columns, places)

    def forward(self, x: Tensor, positions: RelativePositions) -> Tensor:
        batch, height, width, channels = x.shape
        qkv = self.qkv(x).view(batch, height * width, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = self.attend(query, key, value, positions)
        return self.proj(x.transpose(1, 2).reshape(batch, height, width, channels))

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, positions: RelativePositions
    ) -> Tensor:
        """Return the heads' attention (B, n, h · w, d) for queries, keys and values like it."""
        grid = query.unflatten(2, (len(positions.rows), len(positions.columns)))
        rows = torch.einsum('bnhwc,hkc->bnhwk', grid, positions.rows)
        columns = torch.einsum('bnhwc,wkc->bnhwk', grid, positions.columns)
        if positions.places is None:
            return in_parts(biased_attention, query, key, value, rows, columns)
        return folded_attention(query, key, value, rows, columns, positions.places)


def biased_attention(
    query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """
    Return attention (B, n, h · w, d) with bias rows + columns.

    `rows` (B, n, h, w, h) and `columns` (B, n, h, w, w) are each query's bias for a key's row and
    column.
    """
    bias = (rows[..., None] + columns[..., None, :]).flatten(2, 3).flatten(3, 4)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def in_parts(
    attention: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Tensor,
    columns: Tensor,
) -> Tensor:
    """Return a `biased_attention`, at most `BIAS_VALUES` of the bias's values held at once."""
    batch, heads, height, width = rows.shape[:4]
    # The sum takes its terms' layout, and one that is not contiguous would be copied whole.
    rows, columns = rows.contiguous(), columns.contiguous()
    step = max(BIAS_VALUES // (batch * heads * width * height * width), 1)
    if step >= height:
        return attention(query, key, value, rows, columns)
    parts = zip(
        query.split(step * width, 2), rows.split(step, 2), columns.split(step, 2), strict=True
    )
    return torch.cat([attention(q, key, value, r, c) for q, r, c in parts], dim=2)


def folded_attention(
    query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor, places: Tensor
) -> Tensor:
    """
    Return the same as `biased_attention`, without a tensor as large as the bias.

    [q / √d, rows, columns] · [k, places] = q · k / √d + bias, so plain attention of wider heads,
    with values padded alike, is all that is needed: what CUDA's flash attention computes.
    """
    channels, extra = query.shape[-1], places.shape[1]
    bias = torch.cat((rows, columns), dim=-1).flatten(2, 3)
    bias = F.pad(bias, (0, extra - bias.shape[-1]))
    query = torch.cat((query * channels**-0.5, bias), dim=-1)
    places = places.to(key.dtype).expand(*key.shape[:2], -1, -1)
    key = torch.cat((key, places), dim=-1)
    value = F.pad(value, (0, extra))
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)[..., :channels]


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

    def positions(
        self, height: int, width: int, side: int | None = None, *, folded: bool = False
    ) -> RelativePositions:
        """
        Return this layer's relative positions when the image has height × width tokens.

        `side` as in `RelativeAttention.positions`. `folded` asks for places too, unless heads
        would become too wide for flash attention.
        """
        if self.window:
            height = width = side = self.window
        return self.attn.positions(height, width, side, folded=folded)

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


def windows_over(length: int, window: int) -> int:
    """Return how many windows cover a length; of positive terms, as ONNX rounds towards zero."""
    return (length + window - 1) // window


def split_windows(x: Tensor, window: int) -> Tensor:
    """
    Cut (B, h, w, C) into windows (B·n, window, window, C), padded with zeros below and right.

    The padding takes part in the attention as it did when SAM was trained.
    """
    batch, height, width, channels = x.shape
    rows, columns = windows_over(height, window), windows_over(width, window)
    pad_h, pad_w = rows * window - height, columns * window - width
    if pad_h or pad_w:
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
    x = x.reshape(batch, rows, window, columns, window, channels).transpose(2, 3)
    return x.reshape(-1, window, window, channels)


def join_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Undo `split_windows` for a grid of height × width tokens."""
    window, channels = windows.shape[2:]
    rows, columns = windows_over(height, window), windows_over(width, window)
    x = windows.reshape(-1, rows, columns, window, window, channels).transpose(2, 3)
    x = x.reshape(-1, rows * window, columns * window, channels)
    # Cutting off nothing would be exported as two copies.
    return x if x.shape[1:3] == (height, width) else x[:, :height, :width]
