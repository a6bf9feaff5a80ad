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

"""The generated rover's LiDAR, inertial unit and ways: consistent with image, depth and poses."""

from pathlib import Path

from lunar_perception.data.lusnar import LusnarDataset, Scene
from lunar_perception.data.lusnar_format import (
    IMU_POSITION,
    LIDAR_POSITION,
    rotation_matrix,
)
from lunar_perception.synthetic import generate_scene, Moon, MoonConfig, read_trajectory
from lunar_perception.synthetic.rover import camera_pose
from lunar_perception.synthetic.trajectory import BSpline, Course, Drive, KNOT_S
from lunar_perception.taxonomy import LUNAR_TERRAIN
import numpy as np
import pytest

POSES = Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'lusnar_poses'
AXES = np.array([1.0, -1.0, -1.0])
GRAVITY = np.array([0.0, 0.0, 1.62])  # z down


@pytest.mark.parametrize('seed', [2, 11])
def test_lidar_agrees_with_depth_and_label(seed: int) -> None:
    """
    Hold each point against the depth of its pixel: max(2 cm, half a pixel's depth gradient).

    The LiDAR stands between the cameras, so it also sees what rocks and ridges hide from the
    left one; for such points, and only for them, a ray from the camera ends before the point.
    The others agree. The gradient is first taken from the four neighbouring
    pixels. That misses crests and stones narrower than a pixel, which no neighbour's centre
    meets: there, some 0.6 % of the points, it is measured inside the pixel, by rays to all of it.
    """
    moon = Moon(MoonConfig(seed=seed, size=512))
    frame = next(iter(moon.frames(1)))
    points, label = frame.lidar
    assert 8_000 < len(points) < 12_000
    assert set(np.unique(label)) <= set(LUNAR_TERRAIN.ids_of(['regolith', 'crater', 'rock']))

    eye = camera_pose(moon.mount)
    seen = (points * AXES + AXES * LIDAR_POSITION - eye.position) @ eye.rotation
    camera = frame.camera
    column = np.rint(camera.fx * seen[:, 0] / seen[:, 2] + camera.cx).astype(int)
    row = np.rint(camera.fy * seen[:, 1] / seen[:, 2] + camera.cy).astype(int)
    inside = (np.minimum(column, row) > 0) & (np.maximum(column, row) < camera.width - 1)
    assert inside.mean() > 0.9

    world = frame.body.then(eye)

    def depth_along(rays: np.ndarray) -> np.ndarray:
        """Return the depth that the left camera has along rays (N, 3) of unit z."""
        return frame.renderer.scan(world.position, rays @ world.rotation.T)[0]

    reach = depth_along(seen / seen[:, 2:])
    hidden = reach < 0.999 * seen[:, 2]
    visible = inside & ~hidden
    u, v, z = column[visible], row[visible], seen[visible, 2]
    # Along its own ray, the camera's depth is the point's own: both see the same surface.
    assert reach[visible] == pytest.approx(z, rel=1e-5)

    depth = frame.depth
    error = np.abs(depth[v, u] - z)
    steps = [
        np.abs(depth[v, u] - depth[v + dv, u + du])
        for du, dv in ((1, 0), (-1, 0), (0, 1), (0, -1))
    ]
    by_neighbours = 0.5 * (np.maximum(*steps[:2]) + np.maximum(*steps[2:]))
    narrow = np.flatnonzero(error > np.maximum(0.02, by_neighbours))
    grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 65)] * 2), -1).reshape(-1, 2)
    pixels = np.stack([u, v], -1)[narrow][:, None] + grid
    pixels = (pixels - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    rays = np.concatenate([pixels, np.ones_like(pixels[..., :1])], -1)
    fine = depth_along(rays.reshape(-1, 3)).reshape(len(narrow), -1)
    change = np.abs(fine - depth[v, u][narrow, None]).max(1)
    missed = error[narrow] > np.maximum(0.02, change)
    print(
        f'{len(z)} points: {len(narrow)} on what is narrower than a pixel, '
        f'{missed.sum()} disagree; {(inside & hidden).sum()} more are hidden'
    )
    assert hidden[inside].mean() < 0.1
    assert len(narrow) < 0.02 * len(z)
    # A stone's edge may pass between these rays too.
    assert missed.sum() < 3
    assert (frame.label[v, u] == label[visible]).mean() > 0.95


def test_lidar_file_of_a_drawn_camera_stands_at_lusnars_place(tmp_path: Path) -> None:
    generate_scene(tmp_path / 'Moon_1', MoonConfig(seed=2, size=32, mount=None), 2)
    scene = Scene(tmp_path / 'Moon_1')
    rows = np.loadtxt(tmp_path / 'Moon_1/LiDAR/timestamp.txt', delimiter=',')
    pose = scene[1].pose
    lifted = pose.position + rotation_matrix(pose.quaternion) @ LIDAR_POSITION
    assert rows[1, 1:4] == pytest.approx(lifted)


def test_inertial_samples_integrate_to_the_poses(tmp_path: Path) -> None:
    """From the first pose and velocity, over 12 s: within 1 cm and 0.02°."""
    moon = Moon(MoonConfig(seed=6, size=32, frame_interval=1.0))
    frames = list(moon.frames(13))
    stamps, omega, force = moon.inertial(13)
    assert (np.diff(stamps) == 10_000_000).all()
    assert stamps[0] == frames[0].stamp_ns
    assert stamps[-1] == frames[-1].stamp_ns

    lever = np.array(IMU_POSITION)
    turn = AXES[:, None] * frames[0].body.rotation * AXES
    velocity = AXES * frames[0].velocity + turn @ np.cross(omega[0], lever)
    place = AXES * frames[0].body.position + turn @ lever
    worst = worst_turn = 0.0
    for k in range(1, len(stamps)):
        middle = (omega[k - 1] + omega[k]) / 2 * 0.01
        later = turn @ rotation_of(middle)
        before = turn @ force[k - 1] + GRAVITY
        after = later @ force[k] + GRAVITY
        place = place + 0.01 * velocity + 0.01**2 * (2 * before + after) / 6
        velocity = velocity + 0.01 * (before + after) / 2
        turn = later
        if k % 100 == 0:
            body = frames[k // 100].body
            true_turn = AXES[:, None] * body.rotation * AXES
            worst = max(worst, np.linalg.norm(place - true_turn @ lever - AXES * body.position))
            cos = (np.trace(true_turn.T @ turn) - 1) / 2
            worst_turn = max(worst_turn, np.degrees(np.arccos(np.clip(cos, -1, 1))))
    print(f'off by {1000 * worst:.1f} mm and {worst_turn:.4f}° at most')
    assert worst < 0.01
    assert worst_turn < 0.02
    assert np.ptp([f.body.position[2] for f in frames]) > 0.02  # not on a plane


def test_written_inertial_samples_belong_to_their_frames(tmp_path: Path) -> None:
    generate_scene(tmp_path / 'Moon_1', MoonConfig(seed=2, size=32), 3)
    scene = LusnarDataset(tmp_path)[0]
    assert [len(frame.imu.stamp_ns) for frame in scene] == [1, 10, 11]
    assert np.linalg.norm(scene[2].imu.acceleration, axis=1) == pytest.approx(1.62, abs=0.8)
    assert (scene[2].imu.acceleration[:, 2] < 0).all()  # z down: the ground pushes up


def test_still_rover_feels_gravity_alone_and_a_turning_one_its_rate() -> None:
    """On a circle of 5 m at 2 m/s: 0.4 rad/s to the left, 0.8 m/s² towards the centre."""
    t = KNOT_S * np.arange(-1, 30)
    still = Course(np.array([0, 10**9]), BSpline(KNOT_S, np.zeros((31, 3))))
    omega, force = Drive(still, lambda x, y: 0 * x).inertial(np.array([0.5]), np.zeros(3))
    assert omega[0] == pytest.approx([0, 0, 0])
    assert force[0] == pytest.approx([0, 0, 1.62])
    circle = np.stack([5 * np.sin(0.4 * t), 5 - 5 * np.cos(0.4 * t), 0.4 * t], -1)
    drive = Drive(Course(np.array([0, 5 * 10**9]), BSpline(KNOT_S, circle)), lambda x, y: 0 * x)
    omega, force = drive.inertial(np.array([2.5]), np.zeros(3))
    assert omega[0] == pytest.approx([0, 0, 0.4])
    assert force[0] == pytest.approx([0, 0.8, 1.62], abs=0.01)


def test_rover_climbs_nose_up() -> None:
    t = KNOT_S * np.arange(-1, 30)
    ahead = np.stack([2 * t, 0 * t, 0 * t], -1)
    course = Course(np.array([0, 10**9]), BSpline(KNOT_S, ahead))
    drive = Drive(course, lambda x, y: 0.2 * x + 0.1 * y)
    assert drive.pose(0.5).rotation[:, 0] == pytest.approx([0.981, 0, 0.196], abs=1e-3)
    assert drive.pose(0.5).rotation[2, 1] == pytest.approx(0.1, abs=0.005)  # left side higher
    assert drive.velocity(0.5) == pytest.approx([2, 0, 0.4])


def write_trajectory(path: Path, count: int = 30) -> np.ndarray:
    """Drive along a left-hand bend in LuSNAR's axes, at uneven stamps."""
    stamps = 10**18 + np.cumsum(np.tile([100_000_007, 120_000_001], count // 2))
    t = (stamps - stamps[0]) / 1e9
    half = -0.1 * t / 2
    rows = np.stack(
        [
            20 * np.sin(0.1 * t),
            20 * np.cos(0.1 * t) - 20,
            0 * t + 0.3,
            np.cos(half),
            0 * t,
            0 * t,
            np.sin(half),
        ],
        -1,
    )
    lines = [
        f'{s},' + ','.join(map(repr, row.tolist())) for s, row in zip(stamps, rows, strict=True)
    ]
    path.write_text('timestamp,x,y,z,qw,qx,qy,qz\n' + '\n'.join(lines) + '\n')
    return np.column_stack([stamps, rows])


def test_a_trajectory_drives_a_scene(tmp_path: Path) -> None:
    rows = write_trajectory(tmp_path / 'way.csv')
    course = read_trajectory(tmp_path / 'way.csv')
    generate_scene(tmp_path / 'Moon_1', MoonConfig(seed=2, size=32, course=course), 12)
    scene = Scene(tmp_path / 'Moon_1')
    assert list(scene.stamps_ns) == course.stamps_ns[:12].tolist()
    for frame, row in zip(scene, rows, strict=False):
        assert frame.pose.position[:2] == pytest.approx(row[1:3], abs=0.02)
        true = rotation_matrix(row[4:8])[:2, 0]
        assert rotation_matrix(frame.pose.quaternion)[:2, 0] == pytest.approx(true, abs=0.05)


def test_unfit_trajectories_are_refused(tmp_path: Path) -> None:
    file = tmp_path / 'way.csv'
    write_trajectory(file, 4)
    with pytest.raises(ValueError, match='9 frames are asked for, but the trajectory has 4'):
        read_trajectory(file).first(9)
    file.write_text('timestamp,x\n1,2\n3,4\n')
    with pytest.raises(ValueError, match=r'timestamp,x,y,z,qw'):
        read_trajectory(file)
    file.write_text('1,0,0,0,1,0,0,0\n1,0,0,0,1,0,0,0\n')
    with pytest.raises(ValueError, match='stamps must grow'):
        read_trajectory(file)
    file.write_text('1,0,0,zero,1,0,0,0\n')
    with pytest.raises(ValueError, match='not a table of numbers'):
        read_trajectory(file)


@pytest.mark.skipif(not POSES.exists(), reason='the reference trajectories are not here')
def test_lusnars_own_trajectories_are_followed_within_centimetres() -> None:
    """And climb nose up by their own axes, whichever way z points (see `lusnar_pose`)."""
    for file in sorted(POSES.glob('Moon_*.csv')):
        rows = np.loadtxt(file, delimiter=',', skiprows=1)
        course = read_trajectory(file)
        plan = course.plane.at(course.seconds())
        off = np.hypot(plan[:, 0] - rows[:, 1], plan[:, 1] + rows[:, 2])
        assert np.median(off) < 0.02
        _, qw, qx, qy, qz = rows[:, 3:].T
        nose = 2 * (qx * qz - qw * qy)
        gone = rows[5:, 1:4] - rows[:-5, 1:4]
        moving = np.hypot(*gone[:, :2].T) > 0.3
        climb = gone[moving, 2] / np.hypot(*gone[moving, :2].T)
        assert np.corrcoef(climb, nose[2:-3][moving])[0, 1] > 0.9


def rotation_of(vector: np.ndarray) -> np.ndarray:
    """Return the rotation by a rotation vector (Rodrigues)."""
    half = np.linalg.norm(vector) / 2
    axis = vector / (2 * half) if half else vector
    return rotation_matrix(np.array([np.cos(half), *(np.sin(half) * axis)]))
