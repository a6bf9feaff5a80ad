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

"""The procedural Moon: deterministic, geometrically consistent, and of many kinds."""

from hashlib import sha256
from pathlib import Path

import cv2
from lunar_perception.data.lusnar import LusnarDataset
from lunar_perception.data.lusnar_check import check
from lunar_perception.data.lusnar_format import rotation_matrix
from lunar_perception.synthetic import CameraMount, generate_scene, Moon, MoonConfig, MoonFrame
from lunar_perception.synthetic.craters import Crater
from lunar_perception.synthetic.noise import FractalNoise
from lunar_perception.synthetic.rover import camera_pose
from lunar_perception.synthetic.scene import lusnar_pose
from lunar_perception.synthetic.trajectory import Pose
from lunar_perception.taxonomy import LUNAR_TERRAIN, SKY
import numpy as np
import pytest

CRATER = LUNAR_TERRAIN.id_of('crater')


def config(seed: int = 3, **changes: object) -> MoonConfig:
    return MoonConfig(**{'seed': seed, 'size': 96, 'frame_interval': 1.0, **changes})


@pytest.fixture(scope='module')
def frame() -> MoonFrame:
    return next(iter(Moon(config()).frames(1)))


def digest(folder: Path) -> dict[str, str]:
    files = sorted(f for f in folder.rglob('*') if f.is_file())
    return {str(f.relative_to(folder)): sha256(f.read_bytes()).hexdigest() for f in files}


def test_sky_is_where_no_surface_is(frame: MoonFrame) -> None:
    assert np.array_equal(np.isinf(frame.depth), frame.label == SKY)
    assert (frame.depth > 0.1).all()
    assert set(np.unique(frame.label)) <= set(range(5))
    sky = frame.left[frame.label == SKY].astype(int)
    assert sky.std() < 6  # black level and grain, no light


def test_another_seed_is_another_scene(frame: MoonFrame) -> None:
    other = next(iter(Moon(config(seed=4)).frames(1)))
    assert (other.label != frame.label).mean() > 0.005
    assert np.abs(other.left.astype(int) - frame.left).mean() > 5


def test_left_image_warped_by_depth_is_the_right_one() -> None:
    """Where both cameras see a point, the left pixel and the right image there agree."""
    frame = next(iter(Moon(config(size=256)).frames(1)))
    baseline, camera = CameraMount().baseline, frame.camera
    disparity = np.where(np.isfinite(frame.depth), baseline * camera.fx / frame.depth, 0)
    v, u = np.indices(frame.depth.shape, np.float32)
    moved = (u - disparity).astype(np.float32)

    def in_right(image: np.ndarray) -> np.ndarray:
        return cv2.remap(image, moved, v, cv2.INTER_LINEAR)

    right_depth = np.minimum(frame.right_view.depth, 1e4)
    hidden = np.abs(in_right(right_depth) - frame.depth) > 0.01 * frame.depth
    seen = (disparity > 1) & (moved > 1) & ~hidden
    left, right = (np.asarray(i, np.float32).mean(-1) for i in (frame.left, frame.right))
    matched, unmoved = np.abs(left - in_right(right))[seen], np.abs(left - right)[seen]
    print(f'{seen.mean():.0%} of pixels, median error {np.median(matched):.2f} of 255')
    assert seen.mean() > 0.4
    assert np.median(matched) < 6
    assert np.median(matched) < 0.4 * np.median(unmoved)


def test_the_rover_stands_on_the_ground_that_its_camera_sees(frame: MoonFrame) -> None:
    """Back-projected ground near the rover lies about at the height of its wheels."""
    eye = frame.body.then(camera_pose(CameraMount()))
    points = frame.camera.back_project(frame.depth)
    world = points @ eye.rotation.T + eye.position
    near = np.isfinite(frame.depth) & (frame.depth < 4)
    assert near.sum() > 500
    assert np.abs(np.median(world[near][:, 2]) - frame.body.position[2]) < 0.5


def test_scene_is_the_same_bytes_whether_resumed_or_not(tmp_path: Path) -> None:
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    generate_scene(whole, config(), 3)

    class StopError(Exception):
        pass

    calls = 0

    def stop_after_two() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StopError

    with pytest.raises(StopError):
        generate_scene(resumed, config(), 3, progress=stop_after_two)
    assert not (resumed / 'gt.txt').exists()
    kept = (next((resumed / 'image0/color').iterdir())).stat().st_mtime_ns
    generate_scene(resumed, config(), 3, resume=True)
    assert next((resumed / 'image0/color').iterdir()).stat().st_mtime_ns == kept
    assert digest(resumed) == digest(whole)


def test_written_scene_reads_back(tmp_path: Path, frame: MoonFrame) -> None:
    generate_scene(tmp_path / 'Moon_1', config(), 1)
    generate_scene(tmp_path / 'Moon_2', config(mount=None), 1)
    usual, varied = LusnarDataset(tmp_path)
    assert np.array_equal(usual[0].image, frame.left)
    assert np.array_equal(usual[0].right_image, frame.right)
    assert np.array_equal(usual[0].label, frame.label)
    assert np.array_equal(usual[0].depth, frame.depth)
    assert np.abs(usual[0].lidar.points - frame.lidar.points).max() < 1e-4
    assert np.array_equal(usual[0].lidar.label, frame.lidar.label)
    assert check(tmp_path) == []
    assert usual.camera.fx == pytest.approx(610.17784 * 96 / 1024)
    mount = Moon(config(mount=None)).mount
    assert varied.mounting.pitch_deg == mount.pitch_deg
    assert varied.camera.fx == pytest.approx(48 / np.tan(np.radians(mount.fov_deg / 2)))


def test_pose_in_lusnar_axes_by_hand() -> None:
    """Turned 90° to the left about the upward axis: in z-down axes, −90° about z."""
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    position, quaternion = lusnar_pose(Pose(np.array([1.0, 2.0, 3.0]), turn))
    assert position.tolist() == [1.0, -2.0, -3.0]
    assert quaternion == pytest.approx([np.sqrt(0.5), 0, 0, -np.sqrt(0.5)])
    ahead = rotation_matrix(quaternion) @ [1, 0, 0]
    assert ahead == pytest.approx([0, -1, 0])  # y points right there, so left is −y


def test_crater_profile() -> None:
    crater = Crater(0, 0, 10.0, depth=2.0, rim=0.5, labelled=True, outline=1)
    floor, crest, far = crater.height(np.array([0.0, 1.0, 3.0]))
    assert floor == pytest.approx(-1.5, abs=0.1)
    assert 0.1 < crest <= 0.5
    assert abs(far) < 0.3 * crest


def test_noise_is_periodic_and_of_unit_size() -> None:
    noise = FractalNoise((1,), texel=0.5, shortest=2.0, longest=64.0)
    x, y = np.array([3.2, 17.9, -40.1]), np.array([5.0, 8.8, 2.3])
    grid = noise.on_lines(x, y)
    assert grid == pytest.approx(noise.on_lines(x + noise.period, y), abs=1e-4)
    scattered = noise.at(x, y)
    assert scattered == pytest.approx(np.diag(grid), abs=0.02)
    assert noise.texture.std() == pytest.approx(1)


def test_impossible_configurations_are_refused() -> None:
    with pytest.raises(ValueError, match='size 8 px'):
        MoonConfig(seed=1, size=8)
    with pytest.raises(ValueError, match='positive'):
        MoonConfig(seed=1, speed=0)
