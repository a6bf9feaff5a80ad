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

"""Which points are hazards: class, confidence, range, geometry, and not alone."""

import cv2
from generated_ground import CAMERA, depth_of, flat, PITCH_DEG, with_crater
from lunar_perception.hazards import (
    beside_rocks,
    beyond_rocks,
    COLUMN_RISE,
    DEPTH_PER_WIDTH,
    group_sizes,
    groups_of,
    hazard_mask,
    HazardRule,
    LEAST_DEPTH_M,
    LINK_M,
    rise,
    sharpened,
)
from lunar_perception.taxonomy import LUNAR_TERRAIN
from lunar_perception.traversability import assess, down_from_pitch, LETHAL, Limits
import numpy as np
import pytest

DOWN = np.array([0.0, 1.0, 0.0])
"""Along gravity, of a camera that looks level."""

REGOLITH, CRATER, ROCK = LUNAR_TERRAIN.ids_of(['regolith', 'crater', 'rock'])


def rule(**changes: object) -> HazardRule:
    return HazardRule(
        **{
            'sources': 'class',
            'classes': (ROCK, CRATER),
            'min_confidence': 0.0,
            'max_range': 20.0,
            'min_points': 3,
            'min_rise': 0.08,
            **changes,
        }
    )


def plane(height: int = 20, width: int = 30, spacing: float = 0.1) -> np.ndarray:
    """Return points (h, w, 3) of a wall 4 m ahead, `spacing` metres apart."""
    y, x = np.indices((height, width)) * spacing
    return np.stack([x - x.mean(), y - y.mean(), np.full_like(x, 4.0)], -1).astype(np.float32)


def patch(rows: slice, columns: slice, value: int = ROCK) -> np.ndarray:
    label = np.full((20, 30), REGOLITH, np.uint8)
    label[rows, columns] = value
    return label


def hazards_of(label: np.ndarray, confidence: float = 0.9, **changes: object) -> np.ndarray:
    sure = np.full(label.shape, confidence, np.float32)
    return hazard_mask(plane(), label, sure, None, rule(**changes))


@pytest.mark.parametrize('count', [1, 2])
def test_fewer_points_than_the_least_are_no_hazard(count: int) -> None:
    label = patch(slice(5, 6), slice(7, 7 + count))
    assert not hazards_of(label).any()
    assert hazards_of(label, min_points=count).sum() == count


def test_a_group_is_kept_whole_and_specks_are_not() -> None:
    label = patch(slice(5, 8), slice(7, 12))
    label[15, 20] = label[0, 0] = label[19, 29] = ROCK
    np.testing.assert_array_equal(hazards_of(label), patch(slice(5, 8), slice(7, 12)) == ROCK)


def test_points_that_touch_in_the_image_alone_are_no_group() -> None:
    """A wrong pixel beside a rock's silhouette lies far behind it, and is not of it."""
    points = plane()
    label = patch(slice(5, 8), slice(7, 12))
    label[6, 12] = ROCK
    points[6, 12] *= 3.0
    sure = np.ones(label.shape, np.float32)
    kept = hazard_mask(points, label, sure, None, rule())
    assert not kept[6, 12] and kept.sum() == 15


def test_group_sizes_are_those_of_the_links() -> None:
    """Against counting by walking from neighbour to neighbour."""
    rng = np.random.default_rng(3)
    points = plane()
    points[..., 2] += rng.choice([0.0, 0.3, 0.6], points.shape[:2]).astype(np.float32)
    points[4, 4] = np.nan
    mask = rng.random(points.shape[:2]) < 0.6
    sizes = group_sizes(groups_of(mask, points))
    for start in zip(*np.nonzero(mask), strict=True):
        group, to_visit = {start}, [start]
        while to_visit:
            i, j = to_visit.pop()
            for near in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if (
                    near not in group
                    and 0 <= near[0] < 20
                    and 0 <= near[1] < 30
                    and mask[near]
                    and np.linalg.norm(points[near] - points[i, j]) <= LINK_M
                ):
                    group.add(near)
                    to_visit.append(near)
        assert sizes[start] == len(group)
    assert (sizes[~mask] == 0).all()


def test_gates_of_class_confidence_and_range() -> None:
    label = patch(slice(5, 8), slice(7, 12))
    assert hazards_of(label, confidence=0.6, min_confidence=0.5).sum() == 15
    assert not hazards_of(label, confidence=0.4, min_confidence=0.5).any()
    assert not hazards_of(label, classes=(CRATER,)).any()
    assert not hazards_of(label, max_range=3.9).any()
    nothing = np.full((20, 30, 3), np.nan, np.float32)
    sure = np.ones(label.shape, np.float32)
    assert not hazard_mask(nothing, label, sure, None, rule(min_points=1)).any()


def test_a_group_is_as_sure_as_its_surest_point() -> None:
    label = patch(slice(5, 8), slice(7, 12))
    label[12:15, 20:25] = ROCK
    confidence = np.full(label.shape, 0.4, np.float32)
    confidence[6, 9] = 0.9  # within the first; the second is unsure throughout
    confidence[0, 0] = 1.0  # regolith says nothing of either
    kept = hazard_mask(plane(), label, confidence, None, rule(min_confidence=0.8))
    np.testing.assert_array_equal(kept, patch(slice(5, 8), slice(7, 12)) == ROCK)
    everything = hazard_mask(plane(), label, confidence, None, rule(min_confidence=0.0))
    np.testing.assert_array_equal(everything, label == ROCK)


def test_sources_are_class_geometry_or_either() -> None:
    label, cost = patch(slice(5, 8), slice(7, 12)), np.zeros((20, 30), np.uint8)
    cost[12:15, 20:25] = LETHAL
    cost[0:5, 20:25] = LETHAL - 1
    unsure = np.full(label.shape, 0.1, np.float32)

    def chosen(sources: str, **changes: object) -> np.ndarray:
        return hazard_mask(plane(), label, unsure, cost, rule(sources=sources, **changes))

    by_class, by_geometry = label == ROCK, cost == LETHAL
    np.testing.assert_array_equal(chosen('class'), by_class)
    np.testing.assert_array_equal(chosen('geometry'), by_geometry)
    np.testing.assert_array_equal(chosen('both'), by_class | by_geometry)
    # How sure the network is of a class says nothing of the ground's shape.
    np.testing.assert_array_equal(chosen('both', min_confidence=0.5), by_geometry)
    with pytest.raises(ValueError, match='cost'):
        hazard_mask(plane(), label, unsure, None, rule(sources='both'))


def test_a_crater_is_a_hazard_by_geometry_though_all_is_called_regolith() -> None:
    for surface, expected in ((with_crater(6.0, 2.0, 0.9, rim=0.2), True), (flat, False)):
        points = CAMERA.back_project(depth_of(surface))
        cost = assess(points, down_from_pitch(PITCH_DEG), Limits()).cost
        label = np.full(cost.shape, REGOLITH, np.uint8)
        sure = np.ones(cost.shape, np.float32)
        for sources in ('class', 'geometry'):
            marked = hazard_mask(points, label, sure, cost, rule(sources=sources))
            assert marked.any() == (expected and sources == 'geometry')


def smeared_rock(width: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points and rock of a rock at 5 m, `width` px, with a wall at 6 m, and true depth."""
    truth = np.full((200, 250), 6.0, np.float32)
    right = 80 + width
    truth[60:140, 80:right] = 5.0
    depth = cv2.GaussianBlur(truth, (0, 0), 1.0)
    points = CAMERA.resized(250, 200).back_project(depth)
    return points, depth < 5.9, truth  # labels run over the outline


@pytest.mark.parametrize('width', [12, 30])
def test_smeared_outlines_of_rocks_are_drawn_to_the_rock(width: int) -> None:
    points, rock, _ = smeared_rock(width)
    sharp = sharpened(points, groups_of(rock, points))
    across = np.ptp(points[rock][:, 0])
    assert (points[rock][:, 2] > 5.5).sum() > 100
    assert (width == 12) == (DEPTH_PER_WIDTH * across < LEAST_DEPTH_M)
    farthest = 5.0 + max(LEAST_DEPTH_M, DEPTH_PER_WIDTH * across)
    assert sharp[rock][:, 2].max() == pytest.approx(farthest, abs=1e-5)
    # Along their rays, never behind where they were, and nothing but rock.
    np.testing.assert_allclose(np.cross(sharp, points), 0, atol=1e-5)
    assert (sharp[..., 2] <= points[..., 2]).all()
    np.testing.assert_array_equal(sharp[~rock], points[~rock])


def test_what_is_no_outline_stays_where_it_is() -> None:
    points, rock, truth = smeared_rock()
    step = CAMERA.resized(250, 200).back_project(truth)
    step[truth > 5.9] = np.nan  # sky
    np.testing.assert_array_equal(sharpened(step, groups_of(truth < 5.9, step)), step)
    # Depth that grows gently over a rock, of which a part is unknown, and no rock at all.
    slope = points.copy()
    slope[..., 2] = np.linspace(5.0, 9.0, 250)
    slope[90:110, 100:120] = np.nan
    known = rock & np.isfinite(slope[..., 2])
    np.testing.assert_array_equal(sharpened(slope, groups_of(known, slope)), slope)
    np.testing.assert_array_equal(sharpened(points, np.zeros(rock.shape, int)), points)


@pytest.mark.parametrize(('width', 'depth'), [(0.65, 0.65), (1.5, 1.5), (0.1, LEAST_DEPTH_M)])
def test_a_rock_is_no_deeper_than_it_is_wide(width: float, depth: float) -> None:
    """Its points lie one behind the other up to 3.1 m; beside it is another, behind none."""
    x = np.linspace(-width / 2, width / 2, 21)
    z = np.linspace(3.1, 0.0, 31)[:, None] + 5.0
    points = np.stack(np.broadcast_arrays(x, -0.1 * (z - 5.0), z), -1)
    other = np.add(plane(31, 10), [3.0, 0.0, 0.0])
    both = np.concatenate([points, other], axis=1).astype(np.float32)
    rock = np.ones(both.shape[:2], bool)
    beyond = beyond_rocks(both, groups_of(rock, both), DOWN)
    assert not beyond[:, 21:].any()
    np.testing.assert_array_equal(beyond[:, 10], both[:, 10, 2] - 5.0 > depth)
    assert not beyond_rocks(both, np.zeros(rock.shape, int), DOWN).any()


def test_another_rock_s_face_behind_a_rock_is_no_smear() -> None:
    """A wall, ground that is called rock behind it, and at the end of that another wall."""
    x = np.linspace(-0.3, 0.3, 21)
    wall = np.linspace(0.8, 0.1, 8)
    z = np.concatenate([np.full(8, 7.0), np.linspace(6.9, 5.1, 19), np.full(8, 5.0)])
    up = np.concatenate([wall, np.linspace(0.05, 0.75, 19), wall])
    points = np.stack(np.broadcast_arrays(x, -up[:, None], z[:, None]), -1)
    groups = groups_of(np.ones(points.shape[:2], bool), points)
    assert groups.max() == 1
    beyond = beyond_rocks(points, groups, DOWN)
    assert beyond[8:20].all()  # behind by more than the 0.6 m that the group is wide
    assert not beyond[:7].any() and not beyond[22:].any()


@pytest.mark.parametrize(('height', 'kept'), [(0.05, False), (0.15, True)])
def test_low_ground_beside_a_rock_is_none_of_it_and_a_low_rock_is(
    height: float, kept: bool
) -> None:
    """A wall of 0.9 m, half as wide a part beside it that is lower, and that part elsewhere."""
    x = np.r_[0.1 * np.arange(9), 4.0 + 0.1 * np.arange(3)]
    heights = np.r_[np.full(6, 0.9), np.full(6, height)]
    points = np.full((10, 12, 3), 5.0)
    points[..., 0] = x
    points[..., 1] = -heights * np.linspace(1.0, 0.0, 10)[:, None]
    groups = groups_of(np.ones((10, 12), bool), points)
    assert groups.max() == 2 and height < COLUMN_RISE * 0.9
    beside = beside_rocks(points, groups, DOWN, 0.1)
    np.testing.assert_array_equal(
        beside.all(axis=0), [*[False] * 6, *[not kept] * 3, *[False] * 3]
    )
    np.testing.assert_array_equal(beside.any(axis=0), beside.all(axis=0))
    assert not beside_rocks(points, np.zeros_like(groups), DOWN, 0.1).any()


def test_a_group_rises_by_the_height_that_it_spans() -> None:
    """A ramp of 0.1 m, a wall of 0.5 m, and what is no rock, in a camera that is tilted."""
    tilt = np.deg2rad(25.0)
    down = np.array([0.0, np.cos(tilt), np.sin(tilt)])
    ahead = np.array([0.0, -np.sin(tilt), np.cos(tilt)])
    points = np.zeros((6, 9, 3))
    points[..., 0] = 0.1 * np.arange(9)
    rows = np.arange(6)[:, None, None]
    points[:, :4] += rows * (0.2 * ahead - 0.02 * down)
    points[:, 5:] += -rows * 0.1 * down
    mask = np.ones((6, 9), bool)
    mask[:, 4] = False
    mask[0, 8] = False  # the wall is seen whole beside it
    rises = rise(points, groups_of(mask, points), 9.81 * down)
    np.testing.assert_allclose(rises[:, :4], 0.1, atol=1e-9)
    np.testing.assert_allclose(rises[1:, 5:], 0.5, atol=1e-9)
    assert not rises[~mask].any()
    assert not rise(points, np.zeros(mask.shape, int), down).any()
