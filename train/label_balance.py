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

"""How much to favour each class: the offsets of the logits that make held-out mIoU largest."""

from collections.abc import Iterable

from lunar_perception.metrics import Evaluation
from lunar_perception.taxonomy import LUNAR_TERRAIN
import numpy as np
import torch
from torch import Tensor
from train.evaluation import FramePrediction

STEPS = (0.4, 0.2, 0.1, 0.05)
"""How far an offset is moved at a time, coarse to fine."""

LARGEST = 2.0


def balanced_offsets(predictions: Iterable[FramePrediction], stride: int = 3) -> Tensor:
    """
    Return what to add to the logits, (5,) with mean 0, for the largest mIoU.

    Every stride-th pixel of a row and of a column is counted. Cross-entropy with
    class weights favours rare classes by as much as the weights say, which need not be what IoU
    wants. One offset at a time is moved as long as that helps.
    """
    parts, labels = [], []
    for frame in predictions:
        label = frame.label[::stride, ::stride]
        known = label < len(LUNAR_TERRAIN)
        parts.append(frame.logits.numpy()[:, ::stride, ::stride][:, known].astype(np.float32))
        labels.append(label[known])
    logits, truth = np.concatenate(parts, axis=1), np.concatenate(labels)

    def miou(offsets: np.ndarray) -> float:
        evaluation = Evaluation()
        said = (logits + offsets[:, None]).argmax(0).astype(np.uint8)
        evaluation.update(said[None], None, None, None, truth[None], None)
        return float(np.nanmean(evaluation.iou()))

    offsets = np.zeros(len(LUNAR_TERRAIN), np.float32)
    best = miou(offsets)
    for step in STEPS:
        moved = True
        while moved:
            moved = False
            for k in range(len(offsets)):
                for change in (step, -step):
                    trial = offsets.copy()
                    trial[k] = np.clip(trial[k] + change, -LARGEST, LARGEST)
                    score = miou(trial)
                    if score > best:
                        offsets, best, moved = trial, score, True
    return torch.from_numpy(offsets - offsets.mean())
