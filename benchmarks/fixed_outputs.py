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

"""A network that always answers with the same arrays, and the messages that come of it."""

from typing import Any, NamedTuple

from lunar_perception.camera import LUSNAR_CAMERA, PinholeCamera
from lunar_perception.nodes.outputs import FrameOutputs, OUTPUTS
from lunar_perception.nodes.unified_parameters import UnifiedParameters
from lunar_perception.taxonomy import SKY
import numpy as np
from std_msgs.msg import Header
import torch

MAIN_TOPICS = ('label', 'confidence', 'depth', 'depth/uncertainty', 'points')
"""What a planner listens to, pictures for people and clouds for costmaps aside."""


class FixedPrediction(NamedTuple):
    """As `Prediction`: arrays (H, W)."""

    label: np.ndarray
    confidence: np.ndarray
    depth: np.ndarray
    uncertainty: np.ndarray


def fixed_prediction(height: int, width: int) -> FixedPrediction:
    """Return sky above ground whose depth falls from 50 m to 2 m, with every class in it."""
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    depth = np.broadcast_to(1 / (0.02 + 0.48 * rows), (height, width)).copy()
    label = np.broadcast_to((np.arange(width) * 4 // width).astype(np.uint8), (height, width))
    label = np.where(rows < 0.25, np.uint8(SKY), label)
    depth[label == SKY] = np.inf
    sigma = np.where(np.isinf(depth), np.float32(np.nan), 0.1 * depth).astype(np.float32)
    return FixedPrediction(label, np.full((height, width), 0.9, np.float32), depth, sigma)


class FixedPredictor:
    """Stands in for `UnifiedPredictor` in a node."""

    device = torch.device('cpu')
    precision = torch.float32

    def __init__(self) -> None:
        self._predictions: dict[tuple[int, ...], FixedPrediction] = {}

    def __call__(self, image: np.ndarray, camera: PinholeCamera | None) -> FixedPrediction:
        shape = image.shape[:2]
        if shape not in self._predictions:
            self._predictions[shape] = fixed_prediction(*shape)
        return self._predictions[shape]


def fixed_messages(image: np.ndarray) -> dict[str, Any]:
    """Return by topic the messages of the node about an image (H, W, 3), with an empty header."""
    height, width = image.shape[:2]
    camera = LUSNAR_CAMERA.resized(width, height)
    prediction: Any = fixed_prediction(height, width)
    outputs = FrameOutputs(Header(), image, prediction, camera, UnifiedParameters())
    return {topic: output.make(outputs) for topic, output in OUTPUTS.items()}
