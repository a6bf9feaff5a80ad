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
A reference costmap: what Nav2's obstacle layer does with clouds, cell by cell.

Written from the layer's definition in Nav2 1.3.13, to test parameter files and clouds where Nav2
is not installed: a rolling window on a fixed grid, an observation for each source, rays that clear
on Bresenham's lines, and only then points that mark. What it leaves out makes no difference to
which cells are lethal: inflation, other layers, observations that persist, waiting for transforms.
"""

from dataclasses import dataclass
from math import ceil, cos, sin
from pathlib import Path
from typing import Any

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
import yaml

FREE, LETHAL, UNKNOWN = 0, 254, 255

CONFIG = Path(__file__).resolve().parents[1] / 'config' / 'nav2'

NUMPY_TYPES = {PointField.FLOAT32: 'f4', PointField.UINT32: 'u4'}


def shipped_parameters(costmap: str, layer: str = 'obstacle') -> dict[str, Any]:
    """Return the parameters of local_costmap or global_costmap in config/nav2."""
    nodes = yaml.safe_load((CONFIG / f'{layer}.yaml').read_text())[costmap]
    parameters: dict[str, Any] = nodes[costmap]['ros__parameters']
    return parameters


@dataclass(frozen=True)
class Observation:
    """
    One cloud in the global frame, between its source's limits of height.

    Fields:
        points: (N, 3) float32 metres.
        origin: (3,) metres, where the sensor was.

    """

    points: np.ndarray
    origin: np.ndarray


class ReferenceCostmap:
    """
    A costmap with one obstacle layer.

    Fields:
        cost: (cells in y, cells in x) uint8: FREE, LETHAL or UNKNOWN.
        origin: (2,) metres, the outer corner of cell (0, 0).
        sources: parameters of the layer's sources, by name.
        observations: the newest of each source.

    """

    def __init__(self, parameters: dict[str, Any], layer: str = 'obstacle_layer') -> None:
        """Take the parameters of a costmap's node; `layer` is the obstacle layer's name."""
        assert parameters['rolling_window'], 'other costmaps stay where they are'
        self.resolution = float(parameters['resolution'])
        # Nav2 divides in double precision and cuts off.
        self.size = np.array([int(parameters[k] / self.resolution) for k in ('width', 'height')])
        self._default = UNKNOWN if parameters['track_unknown_space'] else FREE
        self.origin = np.zeros(2)
        self.cost = np.full(self.size[::-1], self._default, np.uint8)
        self._layer = parameters[layer]
        self.sources = {n: self._layer[n] for n in self._layer['observation_sources'].split()}
        assert not any(source['observation_persistence'] for source in self.sources.values())
        self.observations: dict[str, Observation] = {}
        corners = np.array(yaml.safe_load(parameters['footprint']))
        self._footprint = corners + np.sign(corners) * parameters['footprint_padding']

    def receive(self, topic: str, cloud: PointCloud2, camera_in_global: np.ndarray) -> None:
        """Keep a cloud for each source of that topic; `camera_in_global` is (4, 4)."""
        places = positions(cloud).astype(np.float64)
        points = places @ camera_in_global[:3, :3].T + camera_in_global[:3, 3]
        points = points.astype(np.float32)
        for name, source in self.sources.items():
            if source['topic'] == topic:
                z = points[:, 2]
                # NaN is between no limits.
                kept = (z <= source['max_obstacle_height']) & (z >= source['min_obstacle_height'])
                self.observations[name] = Observation(points[kept], camera_in_global[:3, 3])

    def update(self, x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> None:
        """Take the newest observations in, with the rover at x, y metres and yaw radians."""
        self._roll(np.array([x, y]) - (self.size - 0.5) * self.resolution / 2)
        for role in ('clearing', 'marking'):
            for name, source in self.sources.items():
                if source[role] and name in self.observations:
                    step = self._clear if role == 'clearing' else self._mark
                    step(self.observations[name], source)
        if self._layer['footprint_clearing_enabled']:
            turn = np.array([[cos(yaw), -sin(yaw)], [sin(yaw), cos(yaw)]])
            self._clear_polygon(self._footprint @ turn.T + (x, y))

    def lethal(self) -> np.ndarray:
        """Return the lethal cells' centres, (N, 2) metres."""
        return self.origin + (np.argwhere(self.cost == LETHAL)[:, ::-1] + 0.5) * self.resolution

    def cells(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return x, y (N, 2) of the cells that hold `places` (N, ≥ 2), and which are inside."""
        offsets = (np.asarray(places, np.float64)[:, :2] - self.origin) / self.resolution
        cells = np.floor(offsets).astype(int)
        return cells, ((cells >= 0) & (cells < self.size)).all(axis=1)

    def _roll(self, corner: np.ndarray) -> None:
        """Move the window by whole cells, its content staying where it is in the world."""
        shift = ((corner - self.origin) / self.resolution).astype(int)
        self.origin = self.origin + shift * self.resolution
        old, self.cost = self.cost, np.full_like(self.cost, self._default)
        low, high = np.maximum(shift, 0), np.minimum(shift + self.size, self.size)
        if (low < high).all():
            (x0, y0), (x1, y1) = low - shift, high - shift
            self.cost[y0:y1, x0:x1] = old[slice(low[1], high[1]), slice(low[0], high[0])]

    def _clear(self, observation: Observation, source: dict[str, Any]) -> None:
        start, inside = self.cells(observation.origin[None])
        if not inside[0]:
            return
        ends, inside = self.cells(self._cut(observation.points, observation.origin))
        # Rays that end in one cell take the same line.
        ends = np.unique(ends[inside], axis=0)
        longest, shortest = (
            ceil(max(source[key], 0.0) / self.resolution)
            for key in ('raytrace_max_range', 'raytrace_min_range')
        )
        lines = line_cells(start[0], ends, longest, shortest)
        self.cost[lines[:, 1], lines[:, 0]] = FREE

    def _cut(self, points: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Return the rays' ends (N, 2), those outside the window drawn back to its border."""
        ends = points[:, :2].astype(np.float64)
        along = ends - origin[:2]
        far = self.origin + self.size * self.resolution
        with np.errstate(divide='ignore', invalid='ignore'):
            for corner, beyond, margin in (
                (self.origin, np.less, 0.0),
                (far, np.greater, 0.001),
            ):
                for axis, other in ((0, 1), (1, 0)):
                    outside = beyond(ends[:, axis], corner[axis])
                    share = (corner[axis] - origin[axis]) / along[:, axis]
                    drawn = origin[other] + along[:, other] * share
                    ends[outside, other] = drawn[outside]
                    ends[outside, axis] = corner[axis] - margin
        return ends

    def _mark(self, observation: Observation, source: dict[str, Any]) -> None:
        points = observation.points
        start, inside = self.cells(observation.origin[None])
        if not inside[0]:
            return
        cells, inside = self.cells(points)
        least, most = source['obstacle_min_range'], source['obstacle_max_range']
        distance = np.hypot(*(points[:, :2] - observation.origin[:2]).T)
        steps = np.hypot(*(cells - start[0]).T).astype(int)
        marked = (
            inside
            & (points[:, 2] >= self._layer['min_obstacle_height'])
            & (points[:, 2] <= self._layer['max_obstacle_height'])
            & (distance >= least)
            & (distance <= most)
            & (steps >= ceil(least / self.resolution))
            & (steps <= ceil(most / self.resolution))
        )
        self.cost[cells[marked, 1], cells[marked, 0]] = LETHAL

    def _clear_polygon(self, corners: np.ndarray) -> None:
        """Free a convex polygon's cells, if it is in the window."""
        cells, inside = self.cells(corners)
        if not inside.all():
            return
        outline = np.concatenate(
            [line_cells(a, b[None]) for a, b in zip(cells, np.roll(cells, -1, 0), strict=True)]
        )
        for x in np.unique(outline[:, 0]):
            column = outline[outline[:, 0] == x, 1]
            first, last = column.min(), column.max()
            self.cost[slice(first, last + 1), x] = FREE


def line_cells(
    start: np.ndarray, ends: np.ndarray, longest: int = 2**31, shortest: int = 0
) -> np.ndarray:
    """
    Return the cells (M, 2) on Bresenham's lines from cell `start` (2,) to cells `ends` (N, 2).

    Lines shorter than `shortest` cells are left out, and the others begin there; they end after
    `longest` cells.
    """
    whole = ends - start
    length = np.hypot(*whole.T)
    ends, whole, length = (values[length >= shortest] for values in (ends, whole, length))
    share = np.divide(shortest, length, out=np.zeros_like(length), where=length > 0)
    cell = (start + whole * share[:, None]).astype(int)
    way = ends - cell
    steps, sign = np.abs(way), np.sign(way)
    # The longer axis takes a step each time, the other one when its error is full.
    rows, major = np.arange(len(ends)), np.where(steps[:, 0] >= steps[:, 1], 0, 1)
    along, aside = steps[rows, major], steps[rows, 1 - major]
    scale = np.minimum(1.0, np.divide(longest, length, out=np.ones_like(length), where=length > 0))
    last = (scale * along).astype(int)
    error = along // 2
    found = [cell.copy()]
    for step in range(1, int(last.max(initial=0)) + 1):
        going = step <= last
        cell[going, major[going]] += sign[going, major[going]]
        error[going] += aside[going]
        full = going & (error >= along)
        cell[full, 1 - major[full]] += sign[full, 1 - major[full]]
        error[full] -= along[full]
        found.append(cell[going])
    return np.concatenate(found)


def positions(cloud: PointCloud2) -> np.ndarray:
    """Return a cloud's x, y, z, (N, 3) float32, from wherever its fields say they are."""
    order = '>' if cloud.is_bigendian else '<'
    fields = [field for field in cloud.fields if field.name in 'xyz']
    assert [field.name for field in fields] == ['x', 'y', 'z']
    dtype = np.dtype(
        {
            'names': [field.name for field in fields],
            'formats': [order + NUMPY_TYPES[field.datatype] for field in fields],
            'offsets': [field.offset for field in fields],
            'itemsize': cloud.point_step,
        }
    )
    assert cloud.row_step == cloud.point_step * cloud.width
    assert len(cloud.data) == cloud.row_step * cloud.height
    points = np.frombuffer(bytes(cloud.data), dtype)
    return np.stack([points[axis] for axis in 'xyz'], axis=-1)
