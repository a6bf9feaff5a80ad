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

"""Where a generated Moon is hazardous: the truth that costmaps are measured against."""

from dataclasses import dataclass

import cv2
from lunar_perception.synthetic.renderer import Renderer
from lunar_perception.taxonomy import LUNAR_TERRAIN
import numpy as np

CELL_M = 0.1
"""Side of a cell; its edges lie on whole multiples, as a costmap's do."""

REACH_M = 14.0
"""Metres around a stretch of ground's centre that are judged."""

MAX_HEIGHT_M, MAX_SLOPE_DEG = 0.2, 20.0

RAYS = 4
"""Vertical rays a cell and axis that find the tops of rocks."""


@dataclass(frozen=True)
class GroundTruth:
    """
    A stretch of ground in cells, (n, n) rows in y and columns in x.

    Fields:
        origin: (2,) metres in the world, the outer corner of cell (0, 0).
        hazard: bool: something stands on the cell that rises more than 0.2 m above the bare ground
            below it, or the least-squares plane through the bare ground's heights at the cell
            centres of the square around it is steeper than 20°.
        raised: bool: the former of the two.
        named: bool: the cell shows a surface labelled rock or crater, however low and flat. A
            labelled rock can be 0.18 m wide, and a crater's floor is level.

    """

    origin: np.ndarray
    hazard: np.ndarray
    raised: np.ndarray
    named: np.ndarray

    def cells(self, places: np.ndarray) -> np.ndarray:
        """Return which cells, (N, 2) x y, hold places (N, ≥ 2) in the world."""
        return np.floor((places[:, :2] - self.origin) / CELL_M + 1e-6).astype(int)


def cells_across(side: float) -> int:
    """Return the cells, an odd number, across a square of `side` metres."""
    return 2 * round((side / CELL_M - 1) / 2) + 1


def ground_truth(ground: Renderer, slope_window: float) -> GroundTruth:
    """
    Judge the generated ground itself, not any view of it.

    Heights of bare ground are the mesh's. Rocks are found by rays straight down. Slopes are taken
    over squares of `slope_window` metres: what tilts is a whole rover, and a short slope that
    rises less than 0.2 m tilts none.
    """
    first = np.floor((np.array(ground.centre) - REACH_M) / CELL_M)
    count = round(2 * REACH_M / CELL_M)
    origin = first * CELL_M
    fine = (np.arange(count * RAYS) + 0.5) * CELL_M / RAYS
    x, y = (axis.ravel() for axis in np.meshgrid(origin[0] + fine, origin[1] + fine))
    bare = ground.mesh.height_at(x, y)
    above = np.stack([x, y, bare + 30.0], -1)
    fall, label = ground.scan(above, np.broadcast_to([0.0, 0.0, -1.0], above.shape))
    blocks = (count, RAYS, count, RAYS)
    rise = (30.0 - fall).reshape(blocks).max(axis=(1, 3))
    named = np.isin(label, LUNAR_TERRAIN.ids_of(['rock', 'crater'])).reshape(blocks)
    centres = (np.arange(count) + 0.5) * CELL_M
    x, y = (axis.ravel() for axis in np.meshgrid(origin[0] + centres, origin[1] + centres))
    height = ground.mesh.height_at(x, y).reshape(count, count)
    slope = _slope_deg(height, cells_across(slope_window))
    raised = rise > MAX_HEIGHT_M
    hazard = raised | (slope > MAX_SLOPE_DEG)
    return GroundTruth(origin, hazard, raised, named.any(axis=(1, 3)))


def _slope_deg(height: np.ndarray, side: int) -> np.ndarray:
    """Return the slope of least-squares planes over side × side cells, degrees."""
    offset = (np.arange(side) - side // 2) * CELL_M
    kernel = np.tile(offset, (side, 1)) / (side * (offset**2).sum())
    dx, dy = (cv2.filter2D(height, cv2.CV_64F, k) for k in (kernel, kernel.T))
    slope: np.ndarray = np.degrees(np.arctan(np.hypot(dx, dy)))
    return slope
