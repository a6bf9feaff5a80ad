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

"""Where a predictor's time goes: before, in and after the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import cast

from lunar_perception.camera import PinholeCamera
from lunar_perception.inference.backends import NetworkRunner
from lunar_perception.inference.prediction import Prediction
from lunar_perception.inference.predictor import UnifiedPredictor
import numpy as np
import torch
from torch import Tensor


def predict_by_stages(
    predictor: UnifiedPredictor, image: np.ndarray, camera: PinholeCamera | None = None
) -> tuple[Prediction, dict[str, float]]:
    """
    Predict as the predictor does; return the prediction and the seconds of each stage.

    `preprocess` is checking and resizing, `network` the backend with normalising and the way to
    its device, `postprocess` label, confidence, depth and uncertainty at the image's size.
    """
    with _timed_network(predictor) as laps:
        start = perf_counter()
        prediction = predictor(image, camera)
        whole = perf_counter() - start
    start = perf_counter()
    _ = prediction.label, prediction.confidence, prediction.depth, prediction.uncertainty
    return prediction, {
        'preprocess': whole - sum(laps),
        'network': sum(laps),
        'postprocess': perf_counter() - start,
    }


@contextmanager
def _timed_network(predictor: UnifiedPredictor) -> Iterator[list[float]]:
    """Collect the seconds of each call of the network, until the device has finished it."""
    runner = predictor._runner
    timed = _TimedRunner(runner)
    predictor._runner = cast(NetworkRunner, timed)
    try:
        yield timed.laps
    finally:
        predictor._runner = runner


class _TimedRunner:
    """A runner that notes how long each call took, in seconds."""

    def __init__(self, runner: NetworkRunner) -> None:
        self._runner = runner
        self.laps: list[float] = []

    def __call__(self, image: np.ndarray) -> tuple[Tensor, ...]:
        start = perf_counter()
        output = self._runner(image)
        if self._runner.device.type == 'cuda':
            torch.cuda.synchronize(self._runner.device)
        self.laps.append(perf_counter() - start)
        return output

    @property
    def backend(self) -> str:
        return self._runner.backend
