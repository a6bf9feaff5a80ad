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

"""What a drive's camera is going to show, estimated without rendering it."""

from collections.abc import Callable
from dataclasses import dataclass

from lunar_perception.synthetic.config import CameraMount
from lunar_perception.synthetic.trajectory import Course
import numpy as np

EYES = 5
SIGHT = (0.2, 0.4, 0.6, 0.8)
"""Shares of the way to a crater where the ground may hide it."""

CRATERS_REACH = 120.0
ROCKS_REACH = 60.0
"""Metres; beyond, rocks hide behind one another and the ground."""

Relief = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Gives the ground's heights at points x, y (N,), metres."""


@dataclass(frozen=True)
class Outlook:
    """
    Where a camera stands along a way, and how widely it sees.

    The estimates are about solid angles in steradians, mean over the places: good for ranking
    landscapes. What hides behind other objects counts too.

    Fields:
        eyes: x, y (metres) and heading (radians), (N, 3).
        height: metres of the camera above the ground. half_width: half its view, radians.

    """

    eyes: np.ndarray
    height: float
    half_width: float

    @classmethod
    def of(cls, course: Course, mount: CameraMount) -> 'Outlook':
        """Return some places along a course."""
        eyes = course.plane.at(np.linspace(0, course.seconds()[-1], EYES))
        ahead = np.stack([np.cos(eyes[:, 2]), np.sin(eyes[:, 2])], -1)
        eyes = np.concatenate([eyes[:, :2] + mount.forward * ahead, eyes[:, 2:]], -1)
        return cls(eyes, mount.height, float(np.radians(mount.fov_deg / 2)))

    def of_craters(self, rows: np.ndarray, relief: Relief) -> float:
        """
        Return how large craters (M, 4), rows of x, y, radius and rim in metres, look.

        Whatever its depth, a bowl is seen between its near and its far crest, as far as the
        ground before it leaves it in sight.
        """
        rows = rows[self._towards(rows[:, 0], rows[:, 1])[0].min(0) < CRATERS_REACH]
        x, y, radius, rim = rows.T
        distance, off_axis = self._towards(x, y)
        eye = relief(self.eyes[:, 0], self.eyes[:, 1])[:, None] + self.height

        def slope_at(metres: np.ndarray, lift: np.ndarray) -> np.ndarray:
            """Return the steepness of the sight to the ground so far on the way, (N, M)."""
            share = metres / distance
            at_x = self.eyes[:, :1] + share * (x - self.eyes[:, :1])
            at_y = self.eyes[:, 1:2] + share * (y - self.eyes[:, 1:2])
            ground = relief(at_x.ravel(), at_y.ravel()).reshape(distance.shape)
            return (ground + lift - eye) / metres

        near = np.clip(distance - radius, 1, None)
        before = [slope_at(share * near, 0 * rim) for share in SIGHT]
        lowest = np.max([slope_at(near, rim), *before], 0)
        rise = np.clip(slope_at(distance + radius, rim) - lowest, 0, None)
        # How much of its width lies in the view.
        width = np.arctan2(radius, distance)
        inside = np.clip((self.half_width + width - off_axis) / (2 * width), 0, 1)
        return float((np.pi / 2 * width * rise * inside).sum(1).mean())

    def of_rocks(self, rows: np.ndarray) -> float:
        """Return how large rocks (N, 3…), rows of x, y and diameter in metres, look."""
        x, y, diameter = rows[:, :3].T
        distance, off_axis = self._towards(x, y)
        seen = (off_axis < self.half_width) & (distance > self.height) & (distance < ROCKS_REACH)
        return float((seen * (diameter / np.clip(distance, 1, None)) ** 2).sum(1).mean())

    def of_mountains(self, height_at: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
        """Return how large mountains look that rise by `height_at` (x, y) metres."""
        azimuth = self.eyes[:, 2:] + np.linspace(-self.half_width, self.half_width, 33)
        distance = np.geomspace(20, 2500, 48)[:, None, None]
        x = self.eyes[:, :1] + distance * np.cos(azimuth)
        y = self.eyes[:, 1:2] + distance * np.sin(azimuth)
        return float((height_at(x, y) / distance).max(0).mean())

    def _towards(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return distances in metres and angles off the axis of points x, y (M,), (N, M)."""
        dx, dy = x - self.eyes[:, :1], y - self.eyes[:, 1:2]
        azimuth = np.arctan2(dy, dx) - self.eyes[:, 2:]
        return np.hypot(dx, dy), np.abs((azimuth + np.pi) % (2 * np.pi) - np.pi)
