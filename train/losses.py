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
Losses on labels and on depth, the paper's and ours.

Shapes: logits (B, C, H, W) float, label (B, H, W) int64 with 255 = unlabelled, depth and truth
(B, 1, H, W) float, all of one size (see `upsample_to`). Depth truth that is not finite or not
positive (sky is +Inf, unknown NaN) takes no part. Where nothing is left to learn from, a loss is
0 with zero gradients. 'The batch' is that of all processes that train together: the mean of
their losses is the loss of one process with all their frames.
"""

from math import log

from lunar_perception.taxonomy import UNLABELLED
import torch
from torch import Tensor
from torch.nn import functional as F
from train.distributed import gathered, mean_over_processes


def upsample_to(prediction: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Resize (B, C, h, w) bilinearly to the truth's `size` = (H, W), as section 4.3 does."""
    if prediction.shape[-2:] == size:
        return prediction
    return F.interpolate(prediction, size=size, mode='bilinear', align_corners=False)


def valid_depth(truth: Tensor) -> Tensor:
    """Return where depth truth can be learnt from: finite and positive; bool, as `truth`."""
    return torch.isfinite(truth) & (truth > 0)


def cross_entropy(logits: Tensor, label: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """
    Cross-entropy, −Σ_c w_c y_c log ŷ_c (section 4.3; the paper has w = 1).

    Reduction: mean over labelled pixels of the batch, with weights divided by their sum.
    Mask: label ≠ 255. `class_weights` is (C,).
    """
    total = F.cross_entropy(
        logits, label, weight=class_weights, ignore_index=UNLABELLED, reduction='sum'
    )
    seen = label[label != UNLABELLED]
    weight = class_weights[seen].sum() if class_weights is not None else seen.new_tensor(len(seen))
    return total / mean_over_processes(weight.to(total.dtype)).clamp(min=1e-6)


def near_cross_entropy(
    logits: Tensor,
    label: Tensor,
    truth: Tensor,
    class_weights: Tensor | None = None,
    reach: float = 10.0,
) -> Tensor:
    """
    Cross-entropy close ahead, where a wrong label stops a rover or does not.

    Σ z² w_y (−log ŷ_y) / Σ z² w_y: as in `near_depth`, a pixel counts for the area that it sees,
    so that the outline of a rock five metres off weighs what that of one at the wheels does.
    Reduction: weighted mean over the near labelled pixels of the batch.
    Mask: label ≠ 255, depth in `valid_depth` and nearer than `reach` metres.
    """
    near = valid_depth(truth)[:, 0] & (truth[:, 0] < reach) & (label != UNLABELLED)
    loss = F.cross_entropy(logits, label, ignore_index=UNLABELLED, reduction='none')
    weight = torch.where(near, truth[:, 0], 0).square()
    if class_weights is not None:
        weight = weight * class_weights[torch.where(near, label, 0)]
    return (loss * weight).sum() / _count(weight)


def lovasz_softmax(logits: Tensor, label: Tensor) -> Tensor:
    """
    Lovász-softmax (Berman et al., CVPR 2018, eq. 11): a convex surrogate of 1 − mIoU.

    For class c the errors m_c = |y_c − ŷ_c| over all pixels, sorted from large to small, are
    weighted by the growth of the Jaccard loss 1 − |∩| / |∪| as pixels enter one by one.
    Reduction: mean over the classes present in the batch. Mask: label ≠ 255.
    """
    # The one loss that is no mean over pixels: it sorts those of all processes together.
    label, probability = gathered(label), gathered(logits.softmax(1))
    labelled = label != UNLABELLED
    truth = label[labelled]
    probability = probability.movedim(1, -1)[labelled]
    losses = []
    for class_id in torch.unique(truth):
        foreground = (truth == class_id).to(probability.dtype)
        errors, order = (foreground - probability[:, class_id]).abs().sort(descending=True)
        foreground = foreground[order]
        total = foreground.sum()
        intersection = total - foreground.cumsum(0)
        union = total + (1 - foreground).cumsum(0)
        jaccard = 1 - intersection / union
        growth = torch.cat((jaccard[:1], jaccard[1:] - jaccard[:-1]))
        losses.append(errors @ growth)
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def l1_depth(depth: Tensor, truth: Tensor) -> Tensor:
    """
    L1 depth, 1/N Σ |d_i − d̂_i| (section 4.3), in the unit of both arguments.

    Reduction: mean over valid pixels of the batch. Mask: `valid_depth`.
    """
    valid = valid_depth(truth)
    error = torch.where(valid, depth - torch.where(valid, truth, 0), 0)
    return error.abs().sum() / _count(valid)


def l2_depth(depth: Tensor, truth: Tensor) -> Tensor:
    """
    L2 depth, 1/N Σ (d_i − d̂_i)², which the paper leaves to future work (section 6.1).

    Reduction: mean over valid pixels of the batch. Mask: `valid_depth`.
    """
    valid = valid_depth(truth)
    error = torch.where(valid, depth - torch.where(valid, truth, 0), 0)
    return error.square().sum() / _count(valid)


def silog(depth: Tensor, truth: Tensor, variance_focus: float = 0.5) -> Tensor:
    """
    Scale-invariant log error (Eigen et al., NeurIPS 2014, eq. 4), its square root.

    √(1/N Σ g² − λ (1/N Σ g)²), g = log d̂ − log d, λ = `variance_focus`.
    Reduction: per image over valid pixels, then mean over images that have any.
    Mask: `valid_depth`.
    """
    residual, weight = _log_residual(depth, truth)
    count = weight.sum((1, 2, 3))
    mean = residual.sum((1, 2, 3)) / count.clamp(min=1)
    mean_square = residual.square().sum((1, 2, 3)) / count.clamp(min=1)
    # The floor keeps the root's slope finite at a perfect prediction.
    error = (mean_square - variance_focus * mean.square()).clamp(min=1e-8).sqrt()
    seen = count > 0
    return (error * seen).sum() / _count(seen)


def gradient_matching(depth: Tensor, truth: Tensor, scales: int = 4) -> Tensor:
    """
    Multi-scale gradient matching on log-depth (Li and Snavely, CVPR 2018, eq. 4).

    Σ_k 1/N_k Σ (|∂x g_k| + |∂y g_k|) / scales, where g_k is log d̂ − log d at every 2^k-th pixel.
    Reduction: mean over neighbouring pairs in the batch, each scale alike.
    Mask: pairs of which both pixels are in `valid_depth`.
    """
    return _match_gradients(*_log_residual(depth, truth), scales)


def near_relief(
    depth: Tensor, truth: Tensor, chosen: Tensor | None = None, reach: float = 8.0
) -> Tensor:
    """
    Match the shape of near ground: differences of log-depth over a rover's stance.

    An error g = log d̂ − log d moves a point along its ray, and so up by about g times the height
    of the camera over it, at any range: slopes are right where g changes slowly. Half a metre of
    ground nearer than `reach` metres is 4 to 10 % of the image's width across, and 1 to 5 %
    ahead. Σ_s 1/N_s Σ (|g(u + s, v) − g(u, v)| + |g(u, v + s) − g(u, v)|) / 4 with s = 1, 2, 4
    and 8 % of the width. A rock stands on the ground at its foot, however far that is: `chosen`
    (B, 1, H, W) bool takes the pairs that have a rock in them.
    Reduction: mean over pairs of every second pixel in the batch, each s and direction alike.
    Mask: pairs of which both pixels are in `valid_depth` and nearer than `reach`, and one is
    `chosen`.
    """
    near = torch.where(truth < reach, truth, torch.nan)
    g, weight = (part[..., ::2, ::2] for part in _log_residual(depth, near))
    wanted = torch.ones_like(weight) if chosen is None else chosen[..., ::2, ::2].to(weight.dtype)
    total = g.sum() * 0
    for percent in (1, 2, 4, 8):
        s = max(round(percent / 100 * g.shape[-1]), 1)
        for direction in (-1, -2):
            count = g.shape[direction] - s
            residuals, valid, either = (
                (part.narrow(direction, 0, count), part.narrow(direction, s, count))
                for part in (g, weight, wanted)
            )
            pairs = valid[0] * valid[1] * torch.maximum(*either)
            total = total + ((residuals[1] - residuals[0]).abs() * pairs).sum() / _count(pairs)
    return total / 4


def near_depth(depth: Tensor, truth: Tensor, chosen: Tensor, reach: float = 10.0) -> Tensor:
    """
    Absolute error of log-depth close ahead, where a rover drives next.

    Σ z² |log d̂ − log d| / Σ z²: a pixel counts for the area that it sees, so that a boulder right
    before the camera does not outweigh all rocks behind it. `chosen` is (B, 1, H, W) bool: rocks
    are a few pixels of many, and the ground around them would drown them.
    Reduction: weighted mean over the chosen pixels of the batch.
    Mask: `chosen`, in `valid_depth` and nearer than `reach` metres.
    """
    near = torch.where(chosen & (truth < reach), truth, torch.nan)
    residual, weight = _log_residual(depth, near)
    area = torch.where(weight > 0, truth, 0).square()
    return (residual.abs() * area).sum() / _count(area)


def laplace_nll(depth: Tensor, log_scale: Tensor, truth: Tensor) -> Tensor:
    """
    Negative log-likelihood of log-depth under a Laplace distribution of scale b.

    |log d̂ − log d| / b + log 2b, `log_scale` = log b (Kendall and Gal, NeurIPS 2017, eq. 5,
    with the Laplace likelihood).
    Reduction: mean over valid pixels of the batch. Mask: `valid_depth`.
    """
    residual, weight = _log_residual(depth, truth)
    nll = residual.abs() * torch.exp(-log_scale) + log_scale + log(2)
    return (nll * weight).sum() / _count(weight)


def affine_invariant(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """
    Scale-and-shift-invariant loss (Ranftl et al., TPAMI 2022, eq. 5 to 8; Depth Anything's too).

    1/M Σ |p̂_i − t̂_i|, where x̂ = (x − median x) / mean |x − median x|, per image over `mask`.
    `prediction`, `target` (B, 1, H, W) inverse depth, `mask` bool.
    Reduction: mean over the masked pixels of the batch.
    """
    residual = _affine_residual(prediction, target, mask)
    return residual.abs().sum() / _count(mask)


def affine_gradient_matching(
    prediction: Tensor, target: Tensor, mask: Tensor, scales: int = 4
) -> Tensor:
    """
    Multi-scale gradient matching of aligned inverse depths (Ranftl et al., TPAMI 2022, eq. 11).

    As `gradient_matching`, with p̂ − t̂ of `affine_invariant` for the residual.
    """
    residual = _affine_residual(prediction, target, mask)
    return _match_gradients(residual, mask.to(residual.dtype), scales)


def _affine_residual(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return p̂ − t̂, 0 outside `mask`."""
    difference = _median_aligned(prediction, mask) - _median_aligned(target, mask)
    return torch.where(mask, difference, 0)


def _median_aligned(values: Tensor, mask: Tensor) -> Tensor:
    """Return values (B, 1, H, W) with median 0 and mean absolute value 1 over `mask`."""
    seen = mask.flatten(1).any(1)
    hidden = torch.where(seen, torch.nan, 0.0).to(values.dtype).view(-1, 1, 1, 1)
    masked = torch.where(mask, values, hidden)
    median = masked.flatten(1).nanmedian(1).values.view(-1, 1, 1, 1)
    centred = torch.where(mask, values - median, 0)
    count = mask.sum((1, 2, 3), keepdim=True).clamp(min=1)
    scale = centred.abs().sum((1, 2, 3), keepdim=True) / count
    return centred / scale.clamp(min=1e-6)


def _match_gradients(residual: Tensor, weight: Tensor, scales: int) -> Tensor:
    """Return Σ_k of the mean |difference| of neighbours among every 2^k-th pixel, / scales."""
    total = residual.sum() * 0
    for k in range(scales):
        g, w = residual[..., :: 2**k, :: 2**k], weight[..., :: 2**k, :: 2**k]
        pair_x, pair_y = w[..., 1:] * w[..., :-1], w[..., 1:, :] * w[..., :-1, :]
        error = ((g[..., 1:] - g[..., :-1]).abs() * pair_x).sum()
        error = error + ((g[..., 1:, :] - g[..., :-1, :]).abs() * pair_y).sum()
        total = total + error / mean_over_processes(pair_x.sum() + pair_y.sum()).clamp(min=1)
    return total / scales


def _count(weight: Tensor) -> Tensor:
    """Return how many entries count, averaged over processes and at least 1."""
    return mean_over_processes(weight.sum().float()).clamp(min=1)


def _log_residual(depth: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return log d̂ − log d (0 where not valid) and the mask, both (B, 1, H, W) float."""
    valid = valid_depth(truth)
    known = torch.where(valid, truth, 1)
    weight = valid.to(depth.dtype)
    # Predictions are positive by construction; the floor guards fp16-sized underflow.
    return (depth.clamp(min=1e-6).log() - known.log()) * weight, weight
