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

"""The reference costmap itself, against the obstacle layer's definition worked out by hand."""

from typing import Any

from lunar_perception.nodes.point_clouds import cloud_message, POINT
import numpy as np
import pytest
from reference_costmap import (
    FREE,
    LETHAL,
    line_cells,
    ReferenceCostmap,
    shipped_parameters,
    UNKNOWN,
)
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header


def small(**changes: Any) -> ReferenceCostmap:
    """Return a costmap of 1 m cells, -4 to 6 m; `changes` go to both sources."""
    parameters = shipped_parameters('local_costmap')
    parameters |= {'width': 10, 'height': 10, 'resolution': 1.0}
    layer = parameters['obstacle_layer']
    layer['footprint_clearing_enabled'] = False
    for source in ('hazards', 'clearing'):
        layer[source] |= {'raytrace_min_range': 0.0, **changes}
    return ReferenceCostmap(parameters)


def cloud_of(*places: tuple[float, float, float]) -> PointCloud2:
    points = np.zeros(len(places), POINT)
    for axis, values in zip('xyz', np.array(places, float).reshape(-1, 3).T, strict=True):
        points[axis] = values
    return cloud_message(points, Header())


def test_lines_are_bresenham_s() -> None:
    def cells(*end: int, **limits: int) -> list[tuple[int, int]]:
        lines = line_cells(np.array([2, 2]), np.array([end]), **limits)
        return [tuple(cell) for cell in lines.tolist()]

    assert cells(5, 2) == [(2, 2), (3, 2), (4, 2), (5, 2)]
    assert cells(2, 2) == [(2, 2)]
    assert cells(6, 4) == [(2, 2), (3, 3), (4, 3), (5, 4), (6, 4)]
    assert cells(0, -2) == [(2, 2), (1, 1), (1, 0), (0, -1), (0, -2)]
    assert cells(1, 6) == [(2, 2), (2, 3), (1, 4), (1, 5), (1, 6)]
    assert cells(8, 2, longest=3) == [(2, 2), (3, 2), (4, 2), (5, 2)]
    assert cells(8, 2, shortest=4) == [(6, 2), (7, 2), (8, 2)]
    assert cells(5, 2, shortest=4) == []


def test_it_clears_first_and_marks_after() -> None:
    costmap = small()
    for topic in ('hazards', 'clearing'):
        costmap.receive(f'/perception/points/{topic}', cloud_of((3.2, 0.1, 0.0)), np.eye(4))
    costmap.update()
    assert costmap.lethal().tolist() == [[3.5, 0.5]]
    row = costmap.cost[4].tolist()
    assert row == [UNKNOWN] * 4 + [FREE] * 3 + [LETHAL, UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(
    ('changes', 'place', 'marked'),
    [
        ({}, (3.0, 0.0, 0.0), True),
        ({'obstacle_max_range': 2.9}, (3.0, 0.0, 0.0), False),
        ({'obstacle_min_range': 3.1}, (3.0, 0.0, 0.0), False),
        ({'max_obstacle_height': 0.4}, (3.0, 0.0, 0.5), False),
        ({'min_obstacle_height': 0.6}, (3.0, 0.0, 0.5), False),
        ({'max_obstacle_height': 0.5}, (3.0, 0.0, 0.5), True),
        ({}, (7.0, 0.0, 0.0), False),  # outside the window
    ],
)
def test_what_is_marked(
    changes: dict[str, float], place: tuple[float, float, float], marked: bool
) -> None:
    costmap = small(**changes)
    costmap.receive('/perception/points/hazards', cloud_of(place), np.eye(4))
    costmap.update()
    assert bool(len(costmap.lethal())) == marked


def test_a_ray_clears_within_the_window_and_its_range() -> None:
    for changes, first, last in (
        ({}, 0.5, 5.5),
        ({'raytrace_max_range': 2.0}, 0.5, 2.5),
        ({'raytrace_min_range': 1.5}, 2.5, 5.5),
    ):
        costmap = small(**changes)
        costmap.receive('/perception/points/clearing', cloud_of((40.0, 0.0, 0.0)), np.eye(4))
        costmap.update()
        free = np.argwhere(costmap.cost == FREE)
        assert set(free[:, 0]) == {4}
        ahead = costmap.origin[0] + free[:, 1] + 0.5
        assert (ahead.min(), ahead.max()) == (first, last)


def test_the_window_rolls_and_the_world_stays() -> None:
    costmap = small()
    costmap.receive('/perception/points/hazards', cloud_of((3.2, 1.1, 0.0)), np.eye(4))
    costmap.update()
    costmap.observations.clear()
    costmap.update(2.3, 1.7)
    assert costmap.lethal().tolist() == [[3.5, 1.5]]
    np.testing.assert_allclose(costmap.origin, [-3.0, -4.0])
    costmap.update(9.0, 0.0)
    assert len(costmap.lethal()) == 0


def test_the_footprint_is_free() -> None:
    parameters = shipped_parameters('local_costmap')
    costmap = ReferenceCostmap(parameters)
    costmap.receive('/perception/points/hazards', cloud_of((0.5, 0.3, 0), (0.9, 0, 0)), np.eye(4))
    costmap.update()
    assert len(costmap.lethal()) == 1
    assert (costmap.cost == FREE).sum() == pytest.approx(1.5 * 1.1 / 0.05**2, rel=0.1)
