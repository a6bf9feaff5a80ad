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

"""Optimiser groups, learning-rate schedule and averaged weights."""

from copy import deepcopy
from math import cos, pi
import re
from typing import Generic, TypeVar

import torch
from torch import nn
from train.config import OptimizerConfig
from train.distributed import local

Network = TypeVar('Network', bound=nn.Module)


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """
    Return the optimiser over the parameters of `model` that require gradients.

    Each group's `lr` is its peak, kept also as `peak`. AdamW spares vectors (norms, biases) and
    position tables from weight decay. With `layer_decay`, parameters of encoder block i of n
    get the learning rate times layer_decay^(n − i), those before the blocks that of i = −1.
    """
    depth = 1 + max((_block(name) or 0 for name, _ in model.named_parameters()), default=0)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spared = parameter.ndim < 2 or re.search(r'\b(pos_embed|rel_pos_[hw])$', name)
            plain = config.name == 'adamw' and bool(spared)
            block = _block(name)
            groups.setdefault((depth if block is None else block, plain), []).append(parameter)
    settings = [
        {
            'params': parameters,
            'lr': config.learning_rate * config.layer_decay ** (depth - block),
            'peak': config.learning_rate * config.layer_decay ** (depth - block),
            'weight_decay': 0.0 if plain else config.weight_decay,
        }
        for (block, plain), parameters in groups.items()
    ]
    if config.name == 'adam':
        return torch.optim.Adam(settings)
    return torch.optim.AdamW(settings)


def _block(name: str) -> int | None:
    """Place a parameter: i in block i of the encoder, −1 before the blocks, None outside."""
    if not name.startswith('encoder.'):
        return None
    found = re.search(r'\.(?:blocks|layers)\.(\d+)\.', name)
    return int(found[1]) if found else -1


def learning_rate_scale(config: OptimizerConfig, step: int, progress: float) -> float:
    """Return the factor of the peak learning rate at `step`, `progress` ∈ [0, 1] of the run."""
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    fall = 0.5 * (1 + cos(pi * min(progress, 1.0))) if config.cosine else 1.0
    return warm * fall


class AveragedModel(Generic[Network]):
    """
    Exponential moving average of a model's weights; buffers are copied.

    `model` is the averaged copy, in evaluation mode. The decay is eased in, so that the random
    start is soon forgotten.
    """

    def __init__(self, model: Network, decay: float) -> None:
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: Network, step: int) -> None:
        """Move towards the weights of `model` after `step` (from 0)."""
        rate = 1 - min(self.decay, (1 + step) / (10 + step)) if self.decay else 1.0
        mine = [local(parameter) for parameter in self.model.parameters()]
        theirs = [local(parameter) for parameter in model.parameters()]
        torch._foreach_lerp_(mine, theirs, rate)
        for own, new in zip(self.model.buffers(), model.buffers(), strict=True):
            own.copy_(new)
