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

"""Slope, steps and cost of ground whose shape is known."""

import cv2
from generated_ground import (
    axes,
    CAMERA,
    depth_of,
    flat,
    PITCH_DEG,
    Surface,
    with_crater,
    with_rock,
    world_of,
)
from lunar_perception.traversability import (
    assess,
    CELL_M,
    down_from_pitch,
    LETHAL,
    Limits,
    smoothed,
    Traversability,
    UNKNOWN,
)
import numpy as np
import pytest

LIMITS = Limits(max_slope_deg=20.0, max_step=0.2)


def judged(
    surface: Surface, limits: Limits = LIMITS, pitch_deg: float = PITCH_DEG
) -> tuple[Traversability, np.ndarray]:
    """Return what is said of a surface, and where its points are in the world (h, w, 3)."""
    points = CAMERA.back_project(depth_of(surface, pitch_deg=pitch_deg))
    return assess(points, down_from_pitch(pitch_deg), limits), world_of(points, pitch_deg)


def ramp(slope_deg: float, across: bool) -> Surface:
    """Return ground that is flat, and a ramp of this slope from 2.5 m ahead, or 0.5 m aside."""
    rise = np.tan(np.radians(slope_deg))
    if across:
        return lambda x, y: rise * np.maximum(y - 0.5, 0) + 0 * x
    return lambda x, y: rise * np.maximum(x - 2.5, 0) + 0 * y


def test_flat_ground_is_free_as_far_as_it_is_known() -> None:
    result, world = judged(flat)
    known = result.cost != UNKNOWN
    assert (result.cost[known] == 0).all()
    assert np.nanmax(result.slope_deg) < 0.01
    assert np.nanmax(result.step) < 0.001
    near = world[..., 0] < 8
    assert known[near].all()
    assert not known[~np.isfinite(world[..., 0])].any()
    # Farther out the points of a window no longer span a plane, and nothing is said.
    assert (result.cost[world[..., 0] > 15] == UNKNOWN).all()


@pytest.mark.parametrize('across', [False, True])
@pytest.mark.parametrize('slope_deg', [12.0, 19.0, 21.0])
def test_a_slope_is_measured_and_lethal_above_the_limit(slope_deg: float, across: bool) -> None:
    result, world = judged(ramp(slope_deg, across))
    x, y = world[..., 0], world[..., 1]
    # Inside the ramp, off its foot by half of the window.
    inside = (y > 1.1) & (x < 8) if across else (x > 3.1) & (x < 8)
    inside &= result.cost != UNKNOWN  # a cell at the picture's very edge may have no neighbours
    assert inside.sum() > 500
    np.testing.assert_allclose(result.slope_deg[inside], slope_deg, atol=0.2)
    assert ((result.cost[inside] == LETHAL) == (slope_deg > 20)).all()
    plain = (y < -0.2) & (x < 8) if across else x < 1.9
    assert (result.cost[plain] == 0).all()


def test_a_bump_that_the_rover_straddles_is_no_slope() -> None:
    """Ripples 0.12 m high slope by 25° for a part of their 0.8 m, and tilt nothing longer."""

    def ripples(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 0.06 * np.sin(2 * np.pi * y / 0.8) + 0 * x

    for slope_window, steep in ((0.3, True), (1.1, False)):
        result, world = judged(ripples, Limits(slope_window=slope_window))
        near = world[..., 0] < 4
        assert np.nanmax(result.step[near]) < 0.2
        assert (result.cost[near] == LETHAL).any() == steep


def test_cost_grows_with_slope_up_to_the_limit() -> None:
    costs = []
    for slope_deg in (5.0, 10.0, 19.9):
        result, world = judged(ramp(slope_deg, across=True))
        inside = (world[..., 1] > 1.1) & (world[..., 0] < 4)
        costs.append(int(np.median(result.cost[inside])))
    np.testing.assert_allclose(costs, [25, 50, 99], atol=1)


@pytest.mark.parametrize('ahead', [2.0, 4.0, 7.5])
def test_a_rock_is_lethal_on_its_visible_front_and_nowhere_else(ahead: float) -> None:
    radius = 0.35
    result, world = judged(with_rock(ahead, radius))
    lethal = result.cost == LETHAL
    assert lethal.any()
    off = np.hypot(world[..., 0] - ahead, world[..., 1])[lethal] - radius
    assert off.max() <= CELL_M  # a cell holds some ground in front of it
    # All of its front that is high enough; the middle of its top is more than a window away.
    front = (world[..., 2] > LIMITS.max_step + 0.02) & (world[..., 0] < ahead - 0.1)
    assert front.any() and lethal[front].all()


def test_a_rock_below_the_limit_is_not_lethal() -> None:
    result, world = judged(with_rock(4.0, radius=0.12))
    assert not (result.cost == LETHAL).any()
    assert np.median(result.cost[world[..., 2] > 0.06]) > 30


def test_a_rock_on_a_slope_is_told_from_the_slope() -> None:
    slope = ramp(14.0, across=False)
    result, world = judged(with_rock(5.0, 0.35, lambda x, y: slope(x, y)))
    lethal = result.cost == LETHAL
    assert not lethal.any()  # the ball lies under the slope
    result, world = judged(lambda x, y: slope(x, y) + with_rock(5.0)(x, y))
    lethal = result.cost == LETHAL
    off = np.hypot(world[..., 0] - 5.0, world[..., 1])[lethal]
    assert lethal.any() and off.max() <= 0.35 + CELL_M


def test_a_crater_is_lethal_at_its_rim_and_walls_not_on_its_floor() -> None:
    """A bowl of radius 2 m and depth 0.9 m passes 20° from 0.81 m off its centre."""
    result, world = judged(with_crater(6.0, 2.0, 0.9, rim=0.2))
    lethal = result.cost == LETHAL
    off = np.hypot(world[..., 0] - 6.0, world[..., 1])
    near_side, far_side = world[..., 0] < 6, world[..., 0] > 6
    assert lethal[far_side & (off > 1.1) & (off < 1.8)].mean() > 0.95
    # Its near wall is out of sight: the rim that hides it is the hazard.
    ahead = np.abs(world[..., 1]) < 0.5
    assert lethal[ahead & near_side & (off > 1.8) & (off < 2.1)].any()
    assert not lethal[off < 0.4].any()
    assert not lethal[off > 2.5].any()


@pytest.mark.parametrize('edge', [3.0, 4.0])
def test_the_edge_of_a_cliff_is_lethal_though_its_wall_is_hidden(edge: float) -> None:
    result, world = judged(lambda x, y: np.where(x > edge, -1.0, 0.0) + 0 * y)
    columns = (result.cost == LETHAL).any(axis=0)
    assert columns.mean() > 0.95
    lethal = world[result.cost == LETHAL]
    assert (lethal[:, 0] <= edge).all()
    assert (lethal[:, 0] > edge - 0.05 * edge).all()


def test_a_soft_crest_hides_ground_without_being_a_drop() -> None:
    result, _ = judged(lambda x, y: -0.012 * np.maximum(x - 4, 0) ** 2 + 0 * y)
    assert not (result.cost == LETHAL).any()


def test_ledges_are_lethal_above_the_step_that_the_rover_climbs() -> None:
    def ledge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(x > 4.0, 0.3, 0.0) + 0 * y

    result, world = judged(ledge)
    lethal = world[result.cost == LETHAL]
    assert np.abs(lethal[:, 0] - 4.0).max() <= 0.35
    assert np.unique(np.floor(lethal[:, 1] / CELL_M)).size > 50
    climbing, _ = judged(ledge, Limits(max_slope_deg=80.0, max_step=0.35))
    assert not (climbing.cost == LETHAL).any()


def test_noise_of_a_network_does_not_make_hazards_of_flat_ground() -> None:
    """Depth off by a smooth 2 % and by a rough 0.5 % of itself is still flat ground near by."""
    depth = depth_of(flat)
    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 0.02, (8, 8)).astype(np.float32)
    smooth = cv2.resize(coarse, depth.shape, interpolation=cv2.INTER_CUBIC)
    noisy = depth * np.exp(smooth + rng.normal(0, 0.005, depth.shape)).astype(np.float32)
    result = assess(CAMERA.back_project(noisy), down_from_pitch(PITCH_DEG), LIMITS)
    near = depth < 6
    assert (result.cost[near] == LETHAL).mean() < 0.002


def test_a_single_wrong_depth_changes_nothing() -> None:
    depth = depth_of(flat)
    for wrong in (0.3, 2.5, 40.0, np.inf, np.nan):
        spoilt = depth.copy()
        spoilt[150, 100] = wrong
        result = assess(CAMERA.back_project(spoilt), down_from_pitch(PITCH_DEG), LIMITS)
        assert not (result.cost == LETHAL).any()


def test_sky_and_unknown_depth_are_unknown_ground() -> None:
    depth = depth_of(flat)
    depth[100:120, 50:90] = np.nan
    result = assess(CAMERA.back_project(depth), down_from_pitch(PITCH_DEG), LIMITS)
    for part in (np.s_[:40], np.s_[100:120, 50:90]):
        assert (result.cost[part] == UNKNOWN).all()
        assert np.isnan(result.slope_deg[part]).all() and np.isnan(result.step[part]).all()
    nothing = np.full((5, 7, 3), np.nan, np.float32)
    assert (assess(nothing, down_from_pitch(0.0), LIMITS).cost == UNKNOWN).all()


def test_gravity_decides_what_is_level() -> None:
    """The same points lie level, or on a slope by as much as gravity is turned."""
    points = CAMERA.back_project(depth_of(flat))
    near = points[..., 2] < 4
    for turned in (0.0, 8.0, -15.0):
        result = assess(points, down_from_pitch(PITCH_DEG + turned), LIMITS)
        np.testing.assert_allclose(result.slope_deg[near], abs(turned), atol=0.1)
    rolled = np.radians(10.0)
    level = axes().T @ [0, np.sin(rolled), -np.cos(rolled)]
    result = assess(points, level, LIMITS)
    np.testing.assert_allclose(result.slope_deg[near], 10.0, atol=0.1)
    for nowhere in (np.zeros(3), np.full(3, np.nan)):
        with pytest.raises(ValueError, match='no direction'):
            assess(points, nowhere, LIMITS)


@pytest.mark.parametrize('pitch_deg', [0.0, 60.0, 90.0])
def test_however_the_camera_looks(pitch_deg: float) -> None:
    result, world = judged(flat, pitch_deg=pitch_deg)
    near = np.hypot(world[..., 0], world[..., 1]) < 6
    assert near.sum() > 500
    assert (result.cost[near] == 0).all()


def test_uncertain_depth_is_smoothed_and_its_steps_with_it() -> None:
    """Noise that would be steps everywhere is none once it is smoothed; exact depth stays."""
    depth = depth_of(flat)
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(0, 1, depth.shape).astype(np.float32), (0, 0), 1.0)
    noise *= 0.03 / noise.std()
    points = CAMERA.back_project(depth * np.exp(noise))
    near = depth < 5

    def lethal(uncertainty: float) -> float:
        calm = smoothed(points, uncertainty * points[..., 2])
        np.testing.assert_array_equal(np.isfinite(calm), np.isfinite(points))
        result = assess(calm, down_from_pitch(PITCH_DEG), LIMITS)
        return float((result.cost[near] == LETHAL).mean())

    assert lethal(0.0) > 0.1
    assert lethal(0.06) < lethal(0.0) / 2
    assert lethal(0.3) == 0
    assert smoothed(points, 0.01 * points[..., 2]) is points


def test_smoothing_moves_points_along_their_rays_and_takes_nothing_from_the_sky() -> None:
    points = CAMERA.back_project(depth_of(flat))
    calm = smoothed(points, 0.2 * points[..., 2])
    known = np.isfinite(points[..., 2])
    calm, points = calm[known], points[known]
    ratio = calm[:, 2] / points[:, 2]
    np.testing.assert_allclose(calm, points * ratio[:, None], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ratio[points[:, 2] < 6], 1, atol=0.03)
    nothing = np.full((5, 7, 3), np.nan, np.float32)
    assert smoothed(nothing, nothing[..., 0]) is nothing
