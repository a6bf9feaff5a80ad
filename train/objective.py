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

"""The terms of a loss on labels and on depth, weighted; one of weight 0 is not computed."""

from lunar_perception.taxonomy import LUNAR_TERRAIN
import numpy as np
import torch
from torch import Tensor
from train import losses
from train.config import LossConfig

ROCK = LUNAR_TERRAIN.id_of('rock')


def class_weights(config: LossConfig, share: np.ndarray, device: torch.device) -> Tensor:
    """Return the cross-entropy's weights (5,), share^−p, which average to 1 over the pixels."""
    balance = np.maximum(share, 1e-4) ** -config.class_balance
    return torch.tensor(balance / (balance @ share), dtype=torch.float32, device=device)


def label_terms(
    config: LossConfig,
    logits: Tensor,
    label: Tensor,
    weights: Tensor,
    truth: Tensor | None = None,
) -> dict[str, Tensor]:
    """
    Return the terms on labels: logits (B, 5, h, w), upsampled, against label (B, H, W).

    Without `truth` (B, 1, H, W), the depth in metres, there is no `near_labels`.
    """
    logits = losses.upsample_to(logits, label.shape[-2:])
    terms = {}
    if config.cross_entropy:
        value = losses.cross_entropy(logits, label, weights)
        terms['cross_entropy'] = config.cross_entropy * value
    if config.lovasz:
        # Logits come from stride 2 at best: every second pixel says it all and sorts faster.
        value = losses.lovasz_softmax(logits[..., ::2, ::2], label[..., ::2, ::2])
        terms['lovasz'] = config.lovasz * value
    if config.near_labels and truth is not None:
        value = losses.near_cross_entropy(logits, label, truth, weights)
        terms['near_labels'] = config.near_labels * value
    return terms


def depth_terms(
    config: LossConfig,
    depth: Tensor,
    log_scale: Tensor | None,
    truth: Tensor,
    label: Tensor,
    max_depth: float,
) -> dict[str, Tensor]:
    """
    Return the terms on depth (B, 1, h, w) metres, upsampled, against truth (B, 1, H, W).

    Without `log_scale`, the log of the Laplace scale of log-depth, there is no `laplace`.
    `label` (B, H, W) tells where rocks are.
    """
    size = truth.shape[-2:]
    depth = losses.upsample_to(depth, size)
    rock = (label == ROCK)[:, None]
    terms = {}
    if config.l1:
        terms['l1'] = config.l1 * losses.l1_depth(depth / max_depth, _unit(truth, max_depth))
    if config.l2:
        terms['l2'] = config.l2 * losses.l2_depth(depth / max_depth, _unit(truth, max_depth))
    if config.silog:
        terms['silog'] = config.silog * losses.silog(depth, truth)
    if config.gradient:
        terms['gradient'] = config.gradient * losses.gradient_matching(depth, truth)
    if config.near_relief:
        terms['near_relief'] = config.near_relief * losses.near_relief(depth, truth)
    if config.rock_relief:
        terms['rock_relief'] = config.rock_relief * losses.near_relief(depth, truth, rock)
    if config.near_rocks:
        terms['near_rocks'] = config.near_rocks * losses.near_depth(depth, truth, rock)
    if config.near_ground:
        terms['near_ground'] = config.near_ground * losses.near_depth(depth, truth, ~rock)
    if config.laplace and log_scale is not None:
        log_scale = losses.upsample_to(log_scale, size)
        terms['laplace'] = config.laplace * losses.laplace_nll(depth, log_scale, truth)
    return terms


def _unit(truth: Tensor, max_depth: float) -> Tensor:
    """Return depth clipped to max_depth and divided by it; what is not finite stays so."""
    return torch.where(torch.isfinite(truth), (truth / max_depth).clamp(max=1), truth)
