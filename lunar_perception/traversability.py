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
What the ground's shape says of driving over it: slope, steps and cost, from points alone.

The points of one image are gathered into cells of a level grid (z against gravity), as in
elevation mapping, and planes are fitted to windows of the rover's size around each cell, as in
GESTALT (Goldberg, Maimone and Matthies, IEEE Aerospace 2002). So a slope is how a rover would
stand there, however many pixels see it, and neither one pixel's noise nor a bump that is lower
than a step tilts it.
"""

from dataclasses import dataclass

import cv2
import numpy as np

CELL_M = 0.1
"""Side of a cell, metres."""

STEP_WINDOW_M = 0.5
"""Side of the window whose lowest point a step is counted from."""

SUBSTITUTE_M = 1.1
"""Side of the window that stands in where too few points fall into a smaller one."""

REACH_M = 20.0
"""Horizontal distance from the camera beyond which nothing is judged, metres."""

LEAST_CELLS, LEAST_SPREAD_M = 8, 0.08
"""Cells that a plane needs, and their standard deviation across their narrow side, metres."""

SMOOTHING, LEAST_SIGMA_PX = 0.05, 0.5
"""Sigma of `smoothed`, in widths of the image for an uncertainty of 100 %, and what is none."""

UNKNOWN, LETHAL = 255, 100


@dataclass(frozen=True)
class Limits:
    """
    What the rover can do.

    Fields:
        max_slope_deg: the steepest slope it stands on, degrees.
        max_step: the highest step it climbs, metres.
        slope_window: side of the square of ground that a slope is taken over, metres: about its
            footprint's, length and width averaged.

    """

    max_slope_deg: float = 20.0
    max_step: float = 0.2
    slope_window: float = 1.1


@dataclass(frozen=True)
class Traversability:
    """
    The ground at the points of one image, each (h, w) as they are.

    Fields:
        slope_deg: float32 degrees between the ground around the point and level; NaN: unknown.
        step: float32 metres that the point's cell rises above the lowest one near it, or that the
            ground drops behind it; NaN: unknown.
        cost: uint8: 0 free; the larger of slope and step in percent of their limits, 99 at most
            below them; 100 lethal: a limit is reached; 255 unknown.

    """

    slope_deg: np.ndarray
    step: np.ndarray
    cost: np.ndarray


def down_from_pitch(pitch_deg: float) -> np.ndarray:
    """
    Return the unit vector (3,) down in the optical frame of a camera without roll.

    `pitch_deg` is how far it looks below the horizon.
    """
    pitch = np.radians(pitch_deg)
    return np.array([0.0, np.cos(pitch), np.sin(pitch)])


def smoothed(points: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
    """
    Return points smoothed along their rays as far as their depth's uncertainty asks for.

    Slopes are ratios of small differences, and a network's depth errs by as much: where it is
    uncertain by 20 %, the mean is taken over 1 % of the image's width (a Gaussian's sigma).
    `points` (h, w, 3) as `assess` takes them; `uncertainty` (h, w) one sigma in metres.
    """
    z = points[..., 2]
    near = z <= REACH_M  # False for NaN
    if not near.any():
        return points
    sigma = SMOOTHING * z.shape[1] * float(np.median(uncertainty[near] / z[near]))
    if not sigma >= LEAST_SIGMA_PX:
        return points
    known = np.isfinite(z)
    log = np.log(z, out=np.zeros_like(z), where=known)
    total, weight = (cv2.GaussianBlur(v, (0, 0), sigma) for v in (log, known.astype(z.dtype)))
    # Logs: linearly mixed, far points would outweigh near ones.
    mean = np.divide(total, weight, out=log.copy(), where=known)
    return points * np.exp(mean - log)[..., None]


def assess(points: np.ndarray, down: np.ndarray, limits: Limits) -> Traversability:
    """
    Judge the ground of an image's points.

    `points` (h, w, 3) float32 metres in the optical frame (x right, y down, z forward), in the
    image's order, NaN where there is none; `down` (3,) points along gravity in that frame. Raises
    ValueError for a `down` of no direction.
    """
    shape = points.shape[:2]
    slope = np.full(shape, np.nan, np.float32)
    step = np.full(shape, np.nan, np.float32)
    level = _level(_without_specks(points), down)
    known = np.hypot(level[..., 0], level[..., 1]) <= REACH_M  # False for NaN
    if known.any():
        x, y, z = level[known].T
        grid = _Grid(x, y, z)
        rise = grid.rise()
        step[known] = rise.ravel()[grid.cell]
        ground = rise <= limits.max_step
        slope[known] = grid.slope_deg(ground, limits.slope_window).ravel()[grid.cell]
        np.fmax(step, _drop(level, limits), out=step, where=known)
    return Traversability(slope, step, _cost(slope, step, limits))


def _without_specks(points: np.ndarray) -> np.ndarray:
    """Return the points with each depth the median of its 3 × 3; alone in the sky, NaN."""
    z = points[..., 2]
    far = np.float32(1e9)
    median = cv2.medianBlur(np.where(np.isfinite(z), z, far), 3)
    with np.errstate(divide='ignore', invalid='ignore'):
        scale = np.where(median < far, median / z, np.nan)
    return points * scale[..., None]


def _level(points: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Return points in a level frame at the camera: x ahead, y left, z up."""
    size = np.linalg.norm(down)
    if not (np.isfinite(size) and size > 0):
        raise ValueError(f'gravity {down} has no direction')
    up = -np.asarray(down, float) / size
    # The direction of the picture's z, or of its top when the camera looks straight down or up.
    ahead = next(
        flat / np.linalg.norm(flat)
        for axis in ([0.0, 0.0, 1.0], [0.0, -1.0, 0.0])
        if np.linalg.norm(flat := axis - up * np.dot(up, axis)) > 1e-3
    )
    axes = np.stack([ahead, np.cross(up, ahead), up], axis=-1)
    level: np.ndarray = points @ axes.astype(points.dtype)
    return level


class _Grid:
    """Points x, y, z (N,) in the cells of a level grid; `cell` (N,) is where each one lies."""

    def __init__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
        column = np.floor(x / CELL_M).astype(np.int64)
        row = np.floor(y / CELL_M).astype(np.int64)
        column -= column.min()
        row -= row.min()
        shape = (int(row.max()) + 1, int(column.max()) + 1)
        self.cell = row * shape[1] + column
        count = np.bincount(self.cell, minlength=shape[0] * shape[1])
        self._filled = (count > 0).reshape(shape)
        count = np.maximum(count, 1)
        self._x, self._y, self._z = (
            (np.bincount(self.cell, v, len(count)) / count).reshape(shape) for v in (x, y, z)
        )
        low = np.full(len(count), np.inf, np.float32)
        top = np.full(len(count), -np.inf, np.float32)
        np.minimum.at(low, self.cell, z)
        np.maximum.at(top, self.cell, z)
        self._low, self._top = low.reshape(shape), top.reshape(shape)

    def rise(self) -> np.ndarray:
        """Return how far each cell's top stands above the lowest point in the window around it."""
        window = np.ones((_cells(STEP_WINDOW_M),) * 2, np.uint8)
        nearby = cv2.erode(self._low, window, borderType=cv2.BORDER_CONSTANT, borderValue=np.inf)
        return np.where(self._filled, self._top - nearby, np.nan)

    def slope_deg(self, ground: np.ndarray, window: float) -> np.ndarray:
        """
        Return the slope of the plane through the cells that are ground around each one.

        `ground` is true where nothing stands on it: a rock's foot is not a slope. `window` is the
        side, in metres, of the square that counts.
        """
        weight = (self._filled & ground).astype(np.float64)
        slope = np.full(weight.shape, np.nan)
        for side in sorted({window, max(window, SUBSTITUTE_M)}):
            slope = np.where(np.isnan(slope), self._plane(weight, _cells(side)), slope)
        return slope

    def _plane(self, weight: np.ndarray, side: int) -> np.ndarray:
        """Return the slopes of least-squares planes over side × side cells, NaN for too few."""

        def window_sum(values: np.ndarray) -> np.ndarray:
            total: np.ndarray = cv2.boxFilter(
                values * weight,
                cv2.CV_64F,
                (side, side),
                normalize=False,
                borderType=cv2.BORDER_CONSTANT,
            )
            return total

        x, y, z = self._x, self._y, self._z
        n = window_sum(np.ones_like(weight))
        most = np.maximum(n, 1)
        mx, my, mz = (window_sum(v) / most for v in (x, y, z))
        xx, xy, yy, xz, yz = (
            window_sum(a * b) / most - ma * mb
            for a, b, ma, mb in (
                (x, x, mx, mx),
                (x, y, mx, my),
                (y, y, my, my),
                (x, z, mx, mz),
                (y, z, my, mz),
            )
        )
        determinant = xx * yy - xy * xy
        # The smaller eigenvalue of the cells' covariance: how wide they lie.
        narrow = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
        fits = (n >= LEAST_CELLS) & (narrow >= LEAST_SPREAD_M**2)
        determinant = np.where(fits, determinant, np.nan)
        a = (yy * xz - xy * yz) / determinant
        b = (xx * yz - xy * xz) / determinant
        return np.degrees(np.arctan(np.hypot(a, b)))


def _cells(side: float) -> int:
    """Return a window's side in cells, odd."""
    return 2 * round((side / CELL_M - 1) / 2) + 1


def _drop(level: np.ndarray, limits: Limits) -> np.ndarray:
    """
    Return how far the ground drops out of sight behind each point (h, w), metres; 0: not.

    The point above in the image is the next along nearly the same bearing. The ground between
    lies below the line of sight. Where that bends down sharply from the ground before it, by more
    than 3/4 of the slope limit, the ground falls away; behind a soft crest it is only hidden. On
    level ground a camera at 1.5 m thus sees a drop's edge up to 5.6 m away.
    """
    drop = np.zeros(level.shape[:2], np.float32)
    fall = level[1:-1, :, 2] - level[:-2, :, 2]
    row, column = np.nonzero(fall > limits.max_step)  # False for NaN
    behind, here, before = (level[row + k, column] for k in range(3))
    gap, run = (np.hypot(*(a - b)[:, :2].T) for a, b in ((behind, here), (here, before)))
    bend = np.arctan2(here[:, 2] - behind[:, 2], gap)
    bend += np.arctan2(here[:, 2] - before[:, 2], run)
    falls = bend > np.radians(0.75 * limits.max_slope_deg)
    drop[row[falls] + 1, column[falls]] = fall[row[falls], column[falls]]
    return drop


def _cost(slope: np.ndarray, step: np.ndarray, limits: Limits) -> np.ndarray:
    with np.errstate(invalid='ignore'):
        part = np.fmax(slope / limits.max_slope_deg, step / limits.max_step)
        cost = np.where(part > 1, LETHAL, np.minimum(100 * part, 99))
    # A step is known wherever there is a point; that it is low says little without a slope.
    known = np.isfinite(slope) | (cost == LETHAL)
    return np.where(known, np.nan_to_num(cost), UNKNOWN).astype(np.uint8)
