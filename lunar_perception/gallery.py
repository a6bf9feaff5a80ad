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

"""The frames that a report shows: the first one, and those that went worst."""

from dataclasses import dataclass

import cv2
from lunar_perception.metrics import Evaluation
from lunar_perception.visualize import (
    color_depth,
    color_depth_errors,
    color_label_errors,
    overlay_labels,
)
import numpy as np

PICTURE_SIDE = 320


@dataclass(frozen=True)
class GalleryFrame:
    """A frame's name, scores (None where there is nothing to score) and titled pictures."""

    name: str
    miou: float | None
    abs_rel: float | None
    pictures: dict[str, np.ndarray]


class FrameGallery:
    """
    Keeps the first frame and the `worst` frames of lowest mIoU, as small pictures.

    Memory does not grow with the number of frames.
    """

    def __init__(self, worst: int = 3) -> None:
        self._size = worst
        self.first: GalleryFrame | None = None
        self.worst: list[GalleryFrame] = []

    def add(
        self,
        name: str,
        evaluation: Evaluation,
        image: np.ndarray,
        label: np.ndarray,
        depth: np.ndarray,
        truth_label: np.ndarray,
        truth_depth: np.ndarray,
    ) -> None:
        """
        Offer one frame, with the evaluation of this frame alone.

        `image`: (H, W, 3) uint8 RGB; the others (H, W): uint8 ids, and metres.
        """
        scores = evaluation.to_dict()
        miou = scores['miou']
        first = self.first is None
        bad = miou is not None and (len(self.worst) < self._size or miou < _miou(self.worst[-1]))
        if not first and not bad:
            return
        pictures = {
            'Image': image,
            'True labels': overlay_labels(image, truth_label),
            'Predicted labels': overlay_labels(image, label),
            'Wrong labels': color_label_errors(image, label, truth_label),
            'True depth': color_depth(truth_depth),
            'Predicted depth': color_depth(depth),
            'Depth error': color_depth_errors(depth, truth_depth),
        }
        small = {title: _shrink(picture) for title, picture in pictures.items()}
        frame = GalleryFrame(name, miou, scores['abs_rel'], small)
        if first:
            self.first = frame
        if bad:
            self.worst = sorted([*self.worst, frame], key=_miou)[: self._size]


def _miou(frame: GalleryFrame) -> float:
    return 1.0 if frame.miou is None else frame.miou


def _shrink(picture: np.ndarray) -> np.ndarray:
    """Scale a picture down to PICTURE_SIDE at its longer side."""
    scale = min(1.0, PICTURE_SIDE / max(picture.shape[:2]))
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    small: np.ndarray = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return small
