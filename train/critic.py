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
An adversarial loss on depth, which the paper leaves to future work (section 6.1).

A small critic tells true log-depth from predicted, patch by patch, each beside its image. It is
trained in the same step as the network: the gradient is turned round on its way from the critic
to the depth (Ganin and Lempitsky, ICML 2015), so that one loss and one optimiser do for both.
"""

from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from train.distributed import mean_over_processes
from train.losses import valid_depth

STRENGTH = 0.1
"""How much weaker the turned gradient is than the critic's own."""


class DepthCritic(nn.Module):
    """Images (B, 3, H, W) and log-depth (B, 1, H, W) to a logit for every 8×8 patch."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 4
        for i in range(3):
            layers += [nn.Conv2d(channels, width << i, 4, 2, 1), nn.LeakyReLU(0.2)]
            channels = width << i
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, images: Tensor, log_depth: Tensor) -> Tensor:
        return self.layers(torch.cat((images, log_depth), dim=1))


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient goes back turned round and weaker."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return -STRENGTH * gradient


def adversarial(critic: DepthCritic, images: Tensor, depth: Tensor, truth: Tensor) -> Tensor:
    """
    Return the critic's binary cross-entropy on true against predicted log-depth.

    The critic minimises it; through the turned gradient the depth maximises it. Where there is
    no true depth both are shown the same value. Reduction: mean over patches. (B, 1, H, W) each.
    """
    valid = valid_depth(truth)
    known = torch.where(valid, truth, 1).log()
    said = torch.where(valid, _Reversed.apply(depth.clamp(min=1e-3).log()), 0)
    real, fake = critic(images, known), critic(images, said)
    loss = F.softplus(-real).mean() + F.softplus(fake).mean()
    return loss * mean_over_processes(valid.any().to(loss.dtype)).ceil()
