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

"""Channel and spatial attention: gates on the channels and on the places of a feature map."""

import torch
from torch import nn, Tensor


class ChannelAttention(nn.Module):
    """
    A gate in (0, 1) on each channel of maps (B, C, h, w), the same at every place.

    Global average pooling, two fully connected layers with a ReLU between them, sigmoid
    (papers/martian-terrain-mapping, 'Attention-Enhanced Feature Learning'). What the paper leaves
    open: the width between the layers is C / `reduction`, at least 8.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        width = max(8, channels // reduction)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, width),
            nn.ReLU(inplace=False),
            nn.Linear(width, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated maps, (B, C, h, w)."""
        return x * self.gate(x)[:, :, None, None]


class SpatialAttention(nn.Module):
    """
    A gate in (0, 1) on each place of maps (B, C, h, w), the same for every channel.

    A convolution and a sigmoid (papers/martian-terrain-mapping, as above). What the paper leaves
    open: the convolution is `kernel` wide and reads the mean and the maximum over the channels
    (CBAM, arXiv 1807.06521, section 3).
    """

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Conv2d(2, 1, kernel, padding=kernel // 2), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated maps, (B, C, h, w)."""
        summary = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)
        return x * self.gate(summary)
