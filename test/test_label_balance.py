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

"""The offsets of the logits that make held-out mIoU largest."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from train.evaluation import FramePrediction
from train.label_balance import balanced_offsets


def frames(handicap: Sequence[float]) -> list[FramePrediction]:
    """Make noisy logits that, less `handicap` (5,), name the right class as well as can be."""
    rng = np.random.default_rng(5)
    made = []
    for _ in range(3):
        label = rng.integers(0, 5, (60, 60)).astype(np.uint8)
        label[:2] = 255
        right = (label == np.arange(5)[:, None, None]).astype(np.float32)
        logits = 2 * right + rng.normal(0, 1, right.shape) + np.array(handicap)[:, None, None]
        empty = np.zeros((60, 60), np.float32)
        made.append(
            FramePrediction(label, empty, torch.from_numpy(logits), torch.from_numpy(empty), None)
        )
    return made


def test_a_handicap_is_undone() -> None:
    handicap = [0.0, 1.5, -1.0, 0.0, 0.5]
    offsets = balanced_offsets(frames(handicap))
    assert offsets.shape == (5,)
    assert offsets.mean().item() == pytest.approx(0, abs=1e-6)
    undone = torch.tensor(handicap) + offsets
    assert (undone - undone.mean()).abs().max().item() < 0.4


def test_logits_that_are_right_stay_as_they_are() -> None:
    label = np.arange(5, dtype=np.uint8).repeat(12)[None].repeat(60, 0)
    logits = torch.from_numpy(10.0 * (label == np.arange(5)[:, None, None]))
    depth = np.ones((60, 60), np.float32)
    frame = FramePrediction(label, depth, logits, torch.from_numpy(depth), None)
    assert balanced_offsets([frame]).abs().max().item() == 0
