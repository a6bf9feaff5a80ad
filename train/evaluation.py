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

"""Held-out frames: figures during training, calibration at its end."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import cv2
from lunar_perception.metrics import Evaluation
from lunar_perception.models import UnifiedConfig, UnifiedModel
from lunar_perception.taxonomy import SKY, UNLABELLED
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from train.batches import collate
from train.frames import Frames
from train.losses import valid_depth


@dataclass(frozen=True)
class FramePrediction:
    """
    One frame's truth and what a network says of it, at the cache's size (S, S).

    Fields:
        label: uint8 ids. depth: float32 metres, +Inf for sky.
        logits: (5, S, S). log_depth: (S, S) of metres of this frame's camera.
        log_scale: (S, S) of the Laplace scale of log-depth, or None.

    """

    label: np.ndarray
    depth: np.ndarray
    logits: Tensor
    log_depth: Tensor
    log_scale: Tensor | None


@dataclass(frozen=True)
class HeldOut:
    """
    The frames at `indices` of `frames`, as the predictor shows them to a network.

    Fields:
        size: side in pixels of the network's input.
        batch_size: frames at once.
        device: where the network is.
        precision: 'fp32' or 'bf16'.

    """

    frames: Frames
    indices: np.ndarray
    size: int
    batch_size: int
    device: torch.device
    precision: str = 'fp32'

    def thinned(self, count: int) -> 'HeldOut':
        """Return `count` of the frames, spread evenly."""
        if count >= len(self.indices):
            return self
        places = np.linspace(0, len(self.indices) - 1, count).round().astype(int)
        return replace(self, indices=self.indices[places])

    @torch.inference_mode()
    def predictions(self, model: Any) -> Iterator[FramePrediction]:
        """
        Yield what `model` says, frame by frame, in order.

        `model` answers as UnifiedModel does, with None for what it does not say, or as the
        networks of train/baselines.py do.
        """
        frames, model = self.frames, model.eval()
        for start in range(0, len(self.indices), self.batch_size):
            end = start + self.batch_size
            chosen = self.indices[start:end]
            batch = collate([self._sample(i) for i in chosen], [])
            with torch.autocast(
                self.device.type, torch.bfloat16, enabled=self.precision == 'bf16'
            ):
                output = model(batch.images.to(self.device))
            logits, log_depth, log_scale, inverse = (
                None if maps is None else _resized(maps, frames.size)
                for maps in (
                    output.label_logits,
                    # As the predictor does: between a near and a far pixel the logs are averaged.
                    None if output.depth is None else output.depth.log(),
                    output.depth_log_scale,
                    getattr(output, 'inverse_depth', None),
                )
            )
            for k, i in enumerate(chosen):
                truth = frames.depth[i].astype(np.float32)
                of_camera = None
                if log_depth is not None:
                    focal_ratio = float(frames.focal[i]) / model.config.canonical_focal
                    of_camera = log_depth[k, 0] + np.log(focal_ratio)
                elif inverse is not None:
                    of_camera = aligned_log_depth(inverse[k, 0], torch.from_numpy(truth))
                yield FramePrediction(
                    frames.label[i],
                    truth,
                    None if logits is None else logits[k],
                    of_camera,
                    None if log_scale is None else log_scale[k, 0],
                )

    def _sample(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shrinks = self.size < self.frames.size
        way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(self.frames.image[i], (self.size, self.size), interpolation=way)
        return image.astype(np.float32) / 255, self.frames.label[i], self.frames.depth[i]


def evaluate(model: Any, held_out: HeldOut) -> dict[str, Any]:
    """Return the keys of metrics.json for the network's calibrated answers; None = not said."""
    evaluation = Evaluation()
    for frame in held_out.predictions(model):
        evaluation.update(*answers(frame, model.config), frame.label, frame.depth)
    return evaluation.to_dict()


def answers(
    frame: FramePrediction, config: UnifiedConfig
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """
    Return the calibrated labels, confidence, depth and uncertainty of one frame, (S, S) each.

    What the network does not say is None. Depth is +Inf where the label is sky.
    """
    label = confidence = depth = sigma = None
    if frame.logits is not None:
        probability, ids = (frame.logits / config.temperature).softmax(0).max(0)
        label, confidence = ids.numpy().astype(np.uint8), probability.clamp(max=1).numpy()
    if frame.log_depth is not None:
        depth = frame.log_depth.exp().numpy()
        if frame.log_scale is not None:
            sigma = sqrt(2) * config.uncertainty_scale * frame.log_scale.exp().numpy() * depth
        if label is not None:
            depth = np.where(label == SKY, np.float32(np.inf), depth)
    return label, confidence, depth, sigma


def aligned_log_depth(inverse: Tensor, truth: Tensor, farthest: float = 1000.0) -> Tensor:
    """
    Return the log of a frame's depth from affine-invariant inverse depth, both (H, W).

    Scale and shift are fitted to the truth's inverse depth by least squares: what is scored of
    such a network is told the truth's two numbers. Depth is held within `farthest` metres.
    """
    valid = valid_depth(truth)
    said, wanted = inverse[valid].double(), 1 / truth[valid].double()
    if len(said) > 1:
        centred = said - said.mean()
        scale = (centred @ wanted) / (centred @ centred).clamp(min=1e-12)
        inverse = scale * (inverse.double() - said.mean()) + wanted.mean()
    return -inverse.clamp(min=1 / farthest).log().float()


def figures(metrics: dict[str, Any]) -> dict[str, float]:
    """
    Return the figures worth following through a run; `score` is to be high.

    It is the mIoU, or δ1 of a network that says no labels.
    """
    kept = {f'iou_{name}': value for name, value in metrics['iou'].items()}
    kept |= {name: metrics[name] for name in ('abs_rel', 'rmse', 'delta1', 'ece')}
    score = metrics['delta1'] if metrics['miou'] is None else metrics['miou']
    return {'score': score, **{k: v for k, v in kept.items() if v is not None}}


def calibrate(model: UnifiedModel, held_out: HeldOut, stride: int = 4) -> tuple[float, float]:
    """
    Return the temperature and the uncertainty scale that fit held-out frames best.

    Both maximise the likelihood over every stride-th pixel: softmax(logits / T) of the labels
    (Guo et al., ICML 2017), and a Laplace distribution of log-depth with scale k · b, for which
    k = mean(|log d̂ − log d| / b). k is 1 for a network that predicts no scale.
    """
    logits, labels, errors = [], [], [torch.empty(0)]
    for frame in held_out.predictions(model):
        label = torch.from_numpy(frame.label[::stride, ::stride].astype(np.int64))
        labelled = label != UNLABELLED
        logits.append(frame.logits[:, ::stride, ::stride][:, labelled].T)
        labels.append(label[labelled])
        if frame.log_scale is not None:
            truth = torch.from_numpy(frame.depth)
            error = (frame.log_depth - truth.log()).abs() * torch.exp(-frame.log_scale)
            errors.append(error[valid_depth(truth)][:: stride**2])
    error = torch.cat(errors)
    scale = float(error.mean()) if len(error) else 1.0
    # Out of inference mode: what follows takes gradients.
    return fit_temperature(torch.cat(logits).clone(), torch.cat(labels)), max(scale, 1e-3)


def fit_temperature(logits: Tensor, label: Tensor) -> float:
    """Return the T in [0.1, 10] that makes softmax(logits (N, C) / T) likeliest for label (N,)."""
    log_temperature = torch.zeros((), requires_grad=True)
    solver = torch.optim.LBFGS([log_temperature], max_iter=50, line_search_fn='strong_wolfe')

    def loss() -> Tensor:
        solver.zero_grad()
        nll = F.cross_entropy(logits * torch.exp(-log_temperature), label)
        nll.backward()
        return nll

    solver.step(loss)
    return float(log_temperature.detach().exp().clamp(0.1, 10))


def _resized(maps: Tensor, size: int) -> Tensor:
    maps = F.interpolate(maps.float(), size=(size, size), mode='bilinear', align_corners=False)
    return maps.cpu()
