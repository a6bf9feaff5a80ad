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

"""The rover: its way, its cameras, and what throws its shadow."""

from lunar_perception.camera import PinholeCamera
from lunar_perception.synthetic.config import CameraMount
from lunar_perception.synthetic.trajectory import BSpline, Course, KNOT_S, Pose
import numpy as np

FIRST_STAMP_NS = 1_700_000_000_000_000_000


def _draw_path(rng: np.random.Generator, length: float, step: float = 0.5) -> np.ndarray:
    """Return a smooth random path that starts at the origin, points (N, 2) `step` m apart."""
    count = max(int(np.ceil(length / step)) + 1, 2)
    heading = np.zeros(count)
    # A slowly wandering curvature: turns of some ten metres' radius at the tightest.
    curvature = 0.0
    for i in range(1, count):
        curvature = 0.96 * curvature + 0.012 * rng.standard_normal()
        heading[i] = heading[i - 1] + step * float(np.clip(curvature, -0.08, 0.08))
    steps = step * np.stack([np.cos(heading), np.sin(heading)], -1)
    return np.concatenate([[[0.0, 0.0]], np.cumsum(steps[:-1], 0)])


def draw_course(
    rng: np.random.Generator, speed: float, frame_interval: float, frames: int
) -> Course:
    """Draw a smooth way at constant speed with `frames` stamps `frame_interval` seconds apart."""
    path = _draw_path(rng, length=frames * speed * frame_interval + 20.0)
    travelled = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    knots = np.arange(-1, int(np.ceil((frames - 1) * frame_interval / KNOT_S)) + 3)
    distance = 1.0 + speed * KNOT_S * knots

    def place(metres: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(metres, travelled, path[:, k]) for k in range(2)], -1)

    dx, dy = (place(distance + 0.6) - place(distance - 0.6)).T
    plan = np.column_stack([place(distance), np.unwrap(np.arctan2(dy, dx))])
    offsets = [round(index * frame_interval * 1e9) for index in range(frames)]
    return Course(FIRST_STAMP_NS + np.array(offsets, np.int64), BSpline(KNOT_S, plan))


def draw_mount(rng: np.random.Generator) -> CameraMount:
    """Draw a camera other than LuSNAR's."""
    return CameraMount(
        height=float(rng.uniform(1.3, 1.75)),
        forward=float(rng.uniform(0.2, 1.2)),
        pitch_deg=float(rng.uniform(8, 32)),
        roll_deg=float(rng.uniform(-4, 4)),
        fov_deg=float(rng.uniform(55, 95)),
    )


def camera_pose(mount: CameraMount, right: bool = False) -> Pose:
    """Return a camera's optical frame (x right, y down, z ahead) in the body's frame."""
    pitch, roll = np.radians(mount.pitch_deg), np.radians(mount.roll_deg)
    ahead = np.array([np.cos(pitch), 0.0, -np.sin(pitch)])
    level_right, level_down = np.array([0.0, -1.0, 0.0]), np.cross(ahead, [0.0, -1.0, 0.0])
    x = np.cos(roll) * level_right + np.sin(roll) * level_down
    rotation = np.stack([x, np.cross(ahead, x), ahead], -1)
    side = -mount.baseline / 2 if right else mount.baseline / 2
    return Pose(np.array([mount.forward, side, mount.height]), rotation)


def camera_of(mount: CameraMount, size: int) -> PinholeCamera:
    """Return the camera's intrinsics for images of size × size pixels."""
    return PinholeCamera.from_fov_deg(size, size, mount.fov_deg)


def draw_silhouette(rng: np.random.Generator, mount: CameraMount, sun: np.ndarray) -> np.ndarray:
    """
    Return what throws the rover's shadow, triangles (T, 3, 3) float32 in its body frame.

    LuSNAR's rover is hardly there: a few tapered fingers reach into the image's lower edge,
    however low the sun. So their heights, and the deck's, follow from how far they are to reach.
    """
    steepness = sun[2] / np.hypot(sun[0], sun[1])
    reach = mount.height * float(rng.uniform(0.8, 1.6))
    front = mount.forward - 0.3
    deck = steepness * reach * float(rng.uniform(0.1, 0.35))
    solids = [_solid((-0.7, -0.5, 0.0), (front, 0.5, deck), 1.0)]
    for y in rng.uniform(-0.45, 0.45, rng.integers(3, 7)):
        x, half = front - rng.uniform(0, 0.2), rng.uniform(0.06, 0.13)
        top = steepness * reach * float(rng.uniform(0.7, 1.0))
        solids.append(_solid((x - half, y - half, 0.0), (x + half, y + half, top), 0.2))
    return np.concatenate(solids)


def _solid(
    low: tuple[float, float, float], high: tuple[float, float, float], taper: float
) -> np.ndarray:
    """Return a box's triangles (12, 3, 3) float32; `taper` is its top's width over its base's."""
    corners = np.array([np.where([i & 1, i & 2, i & 4], high, low) for i in range(8)])
    middle = (np.array(low) + np.array(high))[:2] / 2
    corners[4:, :2] = middle + taper * (corners[4:, :2] - middle)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = [t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]
    return corners[np.array(triangles)].astype(np.float32)
