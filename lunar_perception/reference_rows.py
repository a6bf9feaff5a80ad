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
Two predictions that look at no image: what a network must beat to have seen anything.

The position prior says, for each pixel, the label most frequent there in the training scenes;
the flat plane says the depth of level ground below a camera of known height and pitch.
"""

from collections.abc import Iterable
from math import radians
from pathlib import Path

import cv2
from lunar_perception.atomic import write_png
from lunar_perception.camera import PinholeCamera
from lunar_perception.taxonomy import LUNAR_TERRAIN, UNLABELLED
import numpy as np

PRIOR_SIZE = 128
SHIPPED_PRIOR = Path(__file__).resolve().parent / 'weights' / 'rover' / 'position_prior.png'


class PositionPrior:
    """
    The most frequent label at each place of the image.

    `label` is (S, S) uint8 ids, for images of any size and aspect stretched onto it. Raises
    ValueError when it is not.
    """

    def __init__(self, label: np.ndarray) -> None:
        if label.ndim != 2 or label.dtype != np.uint8 or label.max() >= len(LUNAR_TERRAIN):
            raise ValueError(f'a position prior is a grey image of ids 0–{len(LUNAR_TERRAIN) - 1}')
        self.label = label

    @classmethod
    def fit(cls, labels: Iterable[np.ndarray]) -> 'PositionPrior':
        """
        Count the labels, each (H, W) uint8 ids; UNLABELLED pixels do not vote.

        Where no one votes the prior says the class that is the most frequent overall. Ties go to
        the smaller id. Raises ValueError when there is nothing to count.
        """
        classes = len(LUNAR_TERRAIN)
        votes = np.zeros((classes + 1, PRIOR_SIZE, PRIOR_SIZE), np.int64)
        rows, columns = np.mgrid[:PRIOR_SIZE, :PRIOR_SIZE]
        for label in labels:
            small = _resize(label, PRIOR_SIZE, PRIOR_SIZE)
            votes[np.where(small == UNLABELLED, classes, small), rows, columns] += 1
        votes = votes[:-1]
        if not votes.any():
            raise ValueError('a position prior needs at least one labelled image')
        prior = votes.argmax(axis=0)
        prior[~votes.any(axis=0)] = votes.sum(axis=(1, 2)).argmax()
        return cls(prior.astype(np.uint8))

    @classmethod
    def shipped(cls) -> 'PositionPrior | None':
        """Return the prior of the scenes that the shipped weights were trained on, if there."""
        return cls.load(SHIPPED_PRIOR) if SHIPPED_PRIOR.is_file() else None

    def predict(self, height: int, width: int) -> np.ndarray:
        """Return the labels (height, width) uint8."""
        return _resize(self.label, height, width)

    def save(self, path: str | Path) -> None:
        """Write the prior as a grey PNG of ids."""
        write_png(path, self.label)

    @classmethod
    def load(cls, path: str | Path) -> 'PositionPrior':
        """Read what `save` wrote. Raises FileNotFoundError, and ValueError for another image."""
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
        label = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
        if label is None:
            raise ValueError(f'{path}: not an image')
        try:
            return cls(label)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error


def flat_plane_depth(
    camera: PinholeCamera, height_m: float, pitch_deg: float, roll_deg: float = 0.0
) -> np.ndarray:
    """
    Return the depth along Z, (H, W) float32 metres, of a level plane below the camera.

    `height_m`: the camera's height above the plane; `pitch_deg`: how far the optical axis looks
    down; `roll_deg`: how far the camera is turned about its optical axis, right side down.
    +Inf where a ray does not meet the plane. Raises ValueError for a height that is not positive.
    """
    if not height_m > 0:
        raise ValueError(f'a camera {height_m} m above the ground sees no ground')
    pitch, roll = radians(pitch_deg), radians(roll_deg)
    # The plane's downward normal, seen by the camera (x right, y down, z forward).
    down = [np.cos(pitch) * np.sin(roll), np.cos(pitch) * np.cos(roll), np.sin(pitch)]
    descent = camera.rays().astype(float) @ down  # metres down for each metre of depth
    depth = np.full(descent.shape, np.inf, np.float32)
    np.divide(height_m, descent, out=depth, where=descent > 1e-9, casting='same_kind')
    return depth


def _resize(label: np.ndarray, height: int, width: int) -> np.ndarray:
    """Take the nearest pixel, centre to centre."""
    rows = (2 * np.arange(height) + 1) * label.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * label.shape[1] // (2 * width)
    resized: np.ndarray = label[rows[:, None], columns]
    return resized
