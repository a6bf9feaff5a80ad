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

"""Detail stem, pyramid decoder and prediction heads: feature maps in, maps out."""

from collections.abc import Sequence
from math import log

import torch
from torch import nn, Tensor
from torch.nn import functional as F

MIN_DEPTH = 0.3
"""Nearest depth in metres that the log-depth head answers."""


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps (B, C, h, w) bilinearly to `size` = (H, W)."""
    return F.interpolate(x, size=tuple(size), mode='bilinear', align_corners=False)


def conv_norm(
    in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Return a 3×3 convolution, BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=False
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=False),
    )


class Residual(nn.Module):
    """Two 3×3 convolutions with BatchNorm around a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_norm(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class DetailStem(nn.Module):
    """
    Convolutions on the image itself: (B, 3, H, W) to one map a level.

    Level i has `channels[i]` channels at stride 2^(i+1). It keeps the edges of small rocks, which
    patches of 16 pixels blur.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for i, (inputs, width) in enumerate(zip((3, *channels), channels, strict=False)):
            down = conv_norm(inputs, width, stride=2)
            # At stride 2 a residual would cost as much as all later levels together.
            self.levels.append(nn.Sequential(down, Residual(width)) if i else down)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        x = images
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return maps


class Reassemble(nn.Module):
    """LayerNorm, 1×1 projection and resampling of an encoder's map to another stride (DPT)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, target: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_channels, eps=1e-6)
        self.project = nn.Linear(in_channels, out_channels)
        self.resample: nn.Module = nn.Identity()
        if target < stride:
            factor = stride // target
            self.resample = nn.ConvTranspose2d(out_channels, out_channels, factor, factor)
        elif target > stride:
            self.resample = nn.Conv2d(out_channels, out_channels, 3, target // stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(self.norm(x.permute(0, 2, 3, 1)))
        return self.resample(x.permute(0, 3, 1, 2).contiguous())


class PyramidDecoder(nn.Module):
    """
    The encoder's maps and the stem's fused into one map (B, detail_channels[0], H / 2, W / 2).

    The encoder's maps, of `channels` and `strides`, are reassembled at strides 4, 8, 16, … in
    `width` channels (DPT, arXiv 2103.13413, section 3), joined by the stem's maps of the same
    stride, and fused from coarse to fine; the stem's map at stride 2 joins last.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        width: int,
        detail_channels: Sequence[int],
    ) -> None:
        super().__init__()
        self.reassemble = nn.ModuleList(
            Reassemble(inputs, width, stride, 4 << i)
            for i, (inputs, stride) in enumerate(zip(channels, strides, strict=True))
        )
        finest, *others = detail_channels
        self.lateral = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in others)
        self.refine = nn.ModuleList(Residual(width) for _ in channels)
        self.narrow = nn.Conv2d(width, finest, 1)
        self.join = conv_norm(2 * finest, finest)

    def forward(self, maps: Sequence[Tensor], details: Sequence[Tensor]) -> Tensor:
        levels = [reassemble(x) for reassemble, x in zip(self.reassemble, maps, strict=True)]
        finest, *others = details
        for i, (lateral, detail) in enumerate(zip(self.lateral, others, strict=True)):
            levels[i] = levels[i] + lateral(detail)
        *levels, x = levels
        *refine, first = self.refine
        x = first(x)
        for refine_level, level in zip(reversed(refine), reversed(levels), strict=True):
            x = refine_level(level + upsample(x, level.shape[-2:]))
        x = upsample(self.narrow(x), finest.shape[-2:])
        return self.join_detail(x, finest)

    def join_detail(self, x: Tensor, detail: Tensor) -> Tensor:
        """Return the fused map joined by the stem's of the same size."""
        return self.join(torch.cat((x, detail), dim=1))


class SegmentationHead(nn.Sequential):
    """The paper's head: 3×3 convolution, BatchNorm, ReLU, then 1×1 to the classes' logits."""

    def __init__(self, in_channels: int, width: int, classes: int) -> None:
        super().__init__(conv_norm(in_channels, width), nn.Conv2d(width, classes, 1))


class LogDepthHead(nn.Module):
    """
    Depth and its uncertainty from features (B, C, h, w).

    `forward(features, size)` returns metres (B, 1, H, W), smoothly held within [MIN_DEPTH,
    max_depth], and the log of the Laplace scale of log-depth, held within [−5, 1]. Both are
    interpolated as logs and computed in float32, whatever autocast says: bfloat16's steps would
    be 1.6 % of the depth.
    """

    def __init__(self, in_channels: int, width: int, max_depth: float) -> None:
        super().__init__()
        self.log_range = (log(MIN_DEPTH), log(max_depth))
        self.features = conv_norm(in_channels, width)
        self.predict = nn.Conv2d(width, 2, 1)
        # Start from a rover's typical view: 8 m away, uncertain by a third.
        nn.init.trunc_normal_(self.predict.weight, std=0.02)
        self.predict.bias = nn.Parameter(torch.tensor([log(8.0), log(0.3)]))

    def forward(self, features: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        x = self.features(features)
        with torch.autocast(x.device.type, enabled=False):
            log_depth, log_scale = self.predict(x.float()).chunk(2, dim=1)
            log_depth = self.soft_clamp(log_depth, *self.log_range)
            log_scale = self.soft_clamp(log_scale, -5.0, 1.0)
            maps = upsample(torch.cat((log_depth, log_scale), dim=1), size)
            return maps[:, :1].exp(), maps[:, 1:]

    def soft_clamp(self, x: Tensor, low: float, high: float) -> Tensor:
        """Hold x within [low, high], smoothly, so that a gradient is left outside."""
        x = high - self.softplus(high - x)
        return low + self.softplus(x - low)

    @staticmethod
    def softplus(x: Tensor) -> Tensor:
        """Return log(1 + exp(4 x)) / 4."""
        return F.softplus(x, beta=4)


class GatedAttention(nn.Module):
    """A gate on channels, from their global mean, then one on places, from the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 8, 1),
            nn.ReLU(inplace=False),
            nn.Conv2d(channels // 8, channels, 1),
        )
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel(x).sigmoid()
        summary = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)
        return x * self.place(summary).sigmoid()


class DilatedDepthHead(nn.Module):
    """
    The paper's depth head: dilated convolutions, an attention block and a skip.

    `forward(features (B, C, h, w), size)` returns metres (B, 1, H, W), sigmoid × max_depth, and
    None for the uncertainty that it has not.
    """

    def __init__(self, in_channels: int, width: int, max_depth: float) -> None:
        super().__init__()
        self.max_depth = max_depth
        self.project = conv_norm(in_channels, width)
        self.dilated = nn.Sequential(*(conv_norm(width, width, dilation=d) for d in (2, 4, 8)))
        self.attention = GatedAttention(width)
        self.predict = nn.Conv2d(width, 1, 1)

    def forward(self, features: Tensor, size: Sequence[int]) -> tuple[Tensor, None]:
        x = self.project(features)
        x = x + self.attention(self.dilated(x))
        with torch.autocast(x.device.type, enabled=False):
            return self.max_depth * upsample(self.predict(x.float()), size).sigmoid(), None
