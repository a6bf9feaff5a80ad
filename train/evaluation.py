# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""Held-out frames: figures during training, calibration at its end."""

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lunar_perception.models import UnifiedModel, UnifiedOutput
from lunar_perception.taxonomy import LUNAR_TERRAIN, UNLABELLED
from train.batches import Batch, collate
from train.frames import Frames
from train.losses import valid_depth


def held_out_batches(
    frames: Frames, indices: np.ndarray, size: int, canonical_focal: float, batch_size: int
) -> Iterator[Batch]:
    """
    Yield the frames at `indices` unchanged, in order.

    Images are resized to `size`; labels and canonical depth keep the cache's size.
    """
    for start in range(0, len(indices), batch_size):
        chosen = indices[start : start + batch_size]
        samples = []
        for i in chosen:
            image = cv2.resize(frames.image[i], (size, size), interpolation=cv2.INTER_AREA)
            depth = frames.depth[i].astype(np.float32) * (canonical_focal / frames.focal[i])
            samples.append((image.astype(np.float32) / 255, frames.label[i], depth))
        yield collate(samples, [frames.names[i] for i in chosen])


@torch.inference_mode()
def predict(model: UnifiedModel, batch: Batch, device: torch.device) -> UnifiedOutput:
    """Return the output for a batch at the size of its labels, on the CPU."""
    output = model.eval()(batch.images.to(device))
    height, width = batch.label.shape[-2:]

    def resize(x: Tensor) -> Tensor:
        return F.interpolate(x.float(), size=(height, width), mode='bilinear').cpu()

    scale = output.depth_log_scale
    return UnifiedOutput(
        resize(output.label_logits), resize(output.depth), None if scale is None else resize(scale)
    )


def evaluate(
    model: UnifiedModel, batches: Iterator[Batch], device: torch.device
) -> dict[str, float]:
    """
    Return figures over all pixels of the batches; `score`, the mIoU, is to be high.

    Depth is compared in metres of the canonical camera where truth is finite (ratios are the
    same in any camera's metres).
    """
    classes = len(LUNAR_TERRAIN)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    ratio_error = torch.zeros(4, dtype=torch.float64)  # count, abs_rel, squares, delta1
    for batch in batches:
        output = predict(model, batch, device)
        labelled = batch.label != UNLABELLED
        pairs = batch.label[labelled] * classes + output.label_logits.argmax(1)[labelled]
        confusion += torch.bincount(pairs, minlength=classes**2).view(classes, classes)
        valid = valid_depth(batch.depth)
        depth, truth = output.depth[valid].double(), batch.depth[valid].double()
        off = (depth - truth).abs()
        close = torch.maximum(depth / truth, truth / depth) < 1.25
        ratio_error += torch.stack(
            (valid.sum().double(), (off / truth).sum(), off.square().sum(), close.double().sum())
        )
    hit = confusion.diag().double()
    union = (confusion.sum(0) + confusion.sum(1)).double() - hit
    iou = hit / union
    count, abs_rel, squares, close_count = ratio_error.tolist()
    figures = {'miou': float(iou[union > 0].mean())}
    figures |= {
        f'iou_{name}': float(value)
        for name, value, seen in zip(LUNAR_TERRAIN.names, iou, union > 0, strict=True)
        if seen
    }
    if count:
        figures |= {
            'abs_rel': abs_rel / count,
            'rmse': (squares / count) ** 0.5,
            'delta1': close_count / count,
        }
    return {**figures, 'score': figures['miou']}


def calibrate(
    model: UnifiedModel, batches: Iterator[Batch], device: torch.device, stride: int = 4
) -> tuple[float, float]:
    """
    Return the temperature and the uncertainty scale that fit held-out frames best.

    Both maximise the likelihood over every stride-th pixel: softmax(logits / T) of the labels
    (Guo et al., ICML 2017), and a Laplace distribution of log-depth with scale k · b, for which
    k = mean(|log d̂ − log d| / b). k is 1 for a network that predicts no scale.
    """
    logits, labels, errors = [], [], []
    for batch in batches:
        output = predict(model, batch, device)
        grid = np.s_[..., ::stride, ::stride]
        label = batch.label[grid]
        labelled = label != UNLABELLED
        logits.append(output.label_logits[grid].movedim(1, -1)[labelled])
        labels.append(label[labelled])
        if output.depth_log_scale is not None:
            truth, depth = batch.depth[grid], output.depth[grid]
            valid = valid_depth(truth)
            error = (depth[valid].log() - truth[valid].log()).abs()
            errors.append(error * torch.exp(-output.depth_log_scale[grid][valid]))
    temperature = _fit_temperature(torch.cat(logits), torch.cat(labels))
    scale = float(torch.cat(errors).mean()) if errors and torch.cat(errors).numel() else 1.0
    return temperature, scale


def _fit_temperature(logits: Tensor, label: Tensor) -> float:
    log_temperature = torch.zeros((), requires_grad=True)
    solver = torch.optim.LBFGS([log_temperature], max_iter=50, line_search_fn='strong_wolfe')

    def loss() -> Tensor:
        solver.zero_grad()
        nll = F.cross_entropy(logits * torch.exp(-log_temperature), label)
        nll.backward()
        return nll

    solver.step(loss)
    return float(log_temperature.detach().exp())
