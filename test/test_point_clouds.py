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

"""Labelled clouds: layout, geometry, hazards and clearing rays."""

import struct

from generated_ground import CAMERA as GROUND_CAMERA
from generated_ground import depth_of, flat, PITCH_DEG, with_rock
from lunar_perception.camera import PinholeCamera
from lunar_perception.hazards import HazardRule, LEAST_DEPTH_M
from lunar_perception.nodes.point_clouds import (
    clearing_points,
    cloud_message,
    hazard_points,
    organised_points,
    POINT,
)
from lunar_perception.taxonomy import LUNAR_TERRAIN, SKY
from lunar_perception.traversability import down_from_pitch, LETHAL
import numpy as np
import pytest
from std_msgs.msg import Header

ROCK, CRATER = LUNAR_TERRAIN.ids_of(['rock', 'crater'])
CAMERA = PinholeCamera(width=31, height=18, fx=21.7, fy=33.3, cx=11.2, cy=4.9)
DOWN = down_from_pitch(0.0)


def frame(nearest: float = 0.5, farthest: float = 60.0) -> dict[str, np.ndarray]:
    """Return depth, image, label and confidence of one frame; a third is sky, some unknown."""
    rng = np.random.default_rng(1)
    shape = (CAMERA.height, CAMERA.width)
    depth = rng.uniform(nearest, farthest, shape).astype(np.float32)
    label = rng.integers(0, 4, shape).astype(np.uint8)
    label[:6], depth[:6] = SKY, np.inf
    depth[8, ::3] = np.nan
    return {
        'depth': depth,
        'image': rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
        'label': label,
        'confidence': rng.random(shape, np.float32),
    }


def points_of(values: dict[str, np.ndarray], stride: int) -> np.ndarray:
    return organised_points(camera=CAMERA, stride=stride, **values)


@pytest.mark.parametrize('stride', [1, 4, 5, 40])
def test_each_point_is_its_pixel_back_projected(stride: int) -> None:
    values = frame(farthest=250.0)
    points = points_of(values, stride)
    rows, columns = range(0, CAMERA.height, stride), range(0, CAMERA.width, stride)
    assert points.shape == (len(rows), len(columns))
    for i, v in enumerate(rows):
        for j, u in enumerate(columns):
            point, z = points[i, j], float(values['depth'][v, u])
            red, green, blue = values['image'][v, u]
            # What PCL reads at byte 16: blue, green, red, and a byte of nothing.
            assert point['rgb'].tobytes() == bytes([blue, green, red, 0])
            assert point['label'] == values['label'][v, u]
            assert point['confidence'] == values['confidence'][v, u]
            if np.isfinite(z):
                assert abs(point['x'] - (u - CAMERA.cx) / CAMERA.fx * z) < 1e-5
                assert abs(point['y'] - (v - CAMERA.cy) / CAMERA.fy * z) < 1e-5
                assert point['z'] == values['depth'][v, u]
            else:
                assert np.isnan([point['x'], point['y'], point['z']]).all()


def test_far_points_are_float32_nearest_to_the_truth() -> None:
    values = frame(300.0, 1000.0)
    points = points_of(values, 1)
    z = values['depth'].astype(np.float64)
    truth = (np.arange(CAMERA.width) - CAMERA.cx) / CAMERA.fx * np.where(z < np.inf, z, np.nan)
    np.testing.assert_array_equal(points['x'], truth.astype(np.float32))


def test_hazards_are_the_points_of_their_classes_within_range() -> None:
    values = frame()
    points = points_of(values, 2)
    rule = HazardRule('class', (ROCK, CRATER), 0.0, 20.0, 1, 0.0)
    hazards = hazard_points(points, None, rule, DOWN, predicted=False)
    expected = [
        point
        for point in points.ravel()
        if point['label'] in (ROCK, CRATER)
        and np.linalg.norm([point['x'], point['y'], point['z']]) <= 20.0
    ]
    assert 0 < len(expected) < points.size
    np.testing.assert_array_equal(hazards, np.array(expected))
    nothing = HazardRule('class', (), 0.0, 20.0, 1, 0.0)
    assert len(hazard_points(points, None, nothing, DOWN, predicted=False)) == 0


def test_hazards_alone_are_drawn_to_the_rocks_whose_smeared_outline_they_are() -> None:
    depth = np.full((60, 150), 8.0, np.float32)
    depth[20:40, 50:90] = 5.0
    depth[20:40, 90] = 6.5  # between the rock and the ground behind it
    label = np.where(depth < 8, ROCK, CRATER).astype(np.uint8)
    image, sure = np.zeros((60, 150, 3), np.uint8), np.ones(depth.shape, np.float32)
    points = organised_points(depth, CAMERA.resized(150, 60), image, label, sure, 1)
    rule, before = HazardRule('class', (ROCK,), 0.0, 20.0, 1, 0.0), points.copy()
    known, drawn = (
        hazard_points(points, None, rule, DOWN, predicted=predicted) for predicted in (False, True)
    )
    assert known['z'].max() == 6.5 and drawn['z'].max() == pytest.approx(5.0 + LEAST_DEPTH_M)
    assert len(drawn) == len(known) == (label == ROCK).sum()
    np.testing.assert_array_equal(points, before)


def test_a_network_s_rock_is_no_deeper_than_wide_and_a_true_one_as_it_is() -> None:
    depth = np.linspace(8.0, 4.0, 60, dtype=np.float32)[:, None].repeat(150, axis=1)
    label = np.full(depth.shape, CRATER, np.uint8)
    label[20:50, 50:60] = ROCK  # straight ahead, up to 0.6 m wide, 2 m deep
    image, sure = np.zeros((60, 150, 3), np.uint8), np.ones(depth.shape, np.float32)
    points = organised_points(depth, CAMERA.resized(150, 60), image, label, sure, 1)
    rule = HazardRule('class', (ROCK,), 0.0, 20.0, 1, 0.0)
    true, seen = (
        hazard_points(points, None, rule, DOWN, predicted=predicted) for predicted in (False, True)
    )
    assert len(true) == (label == ROCK).sum()
    assert seen['z'].min() == true['z'].min()
    assert np.ptp(seen['z']) < 0.8 < 1.9 < np.ptp(true['z'])


@pytest.mark.parametrize('sources', ['class', 'both'])
def test_a_network_s_rock_stands_up_and_a_true_one_may_be_low(sources: str) -> None:
    """Two patches are called rock: a block of 0.4 m, and a stretch of level ground beside it."""
    ground = depth_of(flat)
    block = depth_of(with_rock(5.0, radius=0.4, left=-1.0))
    label = np.where(block < ground, ROCK, CRATER).astype(np.uint8)
    label[95:105, 60:80] = ROCK
    patch = (label == ROCK) & (block == ground)
    image, sure = np.zeros((*label.shape, 3), np.uint8), np.ones(label.shape, np.float32)
    points = organised_points(block, GROUND_CAMERA, image, label, sure, 1)
    down = down_from_pitch(PITCH_DEG)
    cost = np.zeros(label.shape, np.uint8)
    rule = HazardRule(sources, (ROCK,), 0.0, 20.0, 1, 0.1)
    true = hazard_points(points, cost, rule, down, predicted=False)
    seen = hazard_points(points, cost, rule, down, predicted=True)
    assert len(true) == (label == ROCK).sum() > len(seen) > 0.5 * (block < ground).sum()
    assert seen['x'].min() > 0 > true['x'].min()
    # Whoever says that the ground there is too steep is heard all the same.
    cost[patch] = LETHAL
    steep = hazard_points(points, cost, rule, down, predicted=True)
    assert (len(steep) == len(seen) + patch.sum()) == (sources == 'both')


def test_a_shadow_that_is_called_rock_with_its_rock_is_no_hazard() -> None:
    ground = depth_of(flat)
    block = depth_of(with_rock(5.0, radius=0.4))
    rock = block < ground
    rows, columns = np.nonzero(rock)
    label = np.where(rock, ROCK, CRATER).astype(np.uint8)
    foot, right = slice(rows.max() - 6, rows.max() + 1), int(columns.max())
    label[foot, slice(right, right + 25)] = ROCK
    image, sure = np.zeros((*label.shape, 3), np.uint8), np.ones(label.shape, np.float32)
    points = organised_points(block, GROUND_CAMERA, image, label, sure, 1)
    rule = HazardRule('class', (ROCK,), 0.0, 20.0, 1, 0.1)
    down = down_from_pitch(PITCH_DEG)
    true, seen = (
        hazard_points(points, None, rule, down, predicted=predicted) for predicted in (False, True)
    )
    assert true['x'].max() > 0.8 and 0.3 < seen['x'].max() < 0.5
    assert len(seen) > 0.8 * rock.sum()


def test_clearing_ends_every_known_ray_at_a_finite_point() -> None:
    values = frame()
    points = points_of(values, 2)
    cleared = clearing_points(points, values['depth'], CAMERA, 2, 20.0)
    assert cleared.dtype == POINT
    xyz = np.stack([cleared[axis] for axis in 'xyz'], axis=-1).astype(np.float64)
    assert np.isfinite(xyz).all()
    assert len(cleared) == np.sum(~np.isnan(values['depth'][::2, ::2]))
    distance = np.linalg.norm(xyz, axis=-1)
    assert distance.max() <= 20.0 + 1e-5
    # One end for each ray, in its direction: pixels are recovered from the points.
    u = xyz[:, 0] / xyz[:, 2] * CAMERA.fx + CAMERA.cx
    v = xyz[:, 1] / xyz[:, 2] * CAMERA.fy + CAMERA.cy
    ends = {(round(a), round(b)): d for a, b, d in zip(u, v, distance, strict=True)}
    np.testing.assert_allclose(u, np.rint(u), atol=1e-4)
    assert len(ends) == len(cleared)
    for (a, b), reached in ends.items():
        z = float(values['depth'][b, a])
        ray = np.linalg.norm([(a - CAMERA.cx) / CAMERA.fx, (b - CAMERA.cy) / CAMERA.fy, 1.0])
        assert reached == pytest.approx(min(z * ray, 20.0), rel=1e-5)


def test_nothing_to_clear() -> None:
    values = frame()
    values['depth'][:] = np.nan
    points = points_of(values, 3)
    assert len(clearing_points(points, values['depth'], CAMERA, 3, 20.0)) == 0


def test_the_message_of_an_organised_cloud() -> None:
    points = points_of(frame(), 4)
    header = Header(frame_id='eye')
    message = cloud_message(points, header)
    assert message.header is header
    assert (message.height, message.width) == points.shape == (5, 8)
    assert (message.point_step, message.row_step) == (32, 32 * 8)
    assert (message.is_bigendian, message.is_dense) == (False, False)
    layout = [(f.name, f.offset, f.datatype, f.count) for f in message.fields]
    assert layout == [
        ('x', 0, 7, 1),
        ('y', 4, 7, 1),
        ('z', 8, 7, 1),
        ('rgb', 16, 7, 1),
        ('label', 20, 6, 1),
        ('confidence', 24, 7, 1),
    ]
    point = points[4, 2]
    x, y, z, _, label, confidence = struct.unpack_from(
        '<fff4xfIf', message.data, 4 * message.row_step + 2 * 32
    )
    assert (x, y, z, label) == (point['x'], point['y'], point['z'], point['label'])
    assert confidence == point['confidence']


@pytest.mark.parametrize('count', [0, 3])
def test_the_message_of_a_list_of_points(count: int) -> None:
    message = cloud_message(np.zeros(count, POINT), Header())
    assert (message.height, message.width, message.is_dense) == (1, count, True)
    assert message.row_step == len(message.data) == 32 * count
