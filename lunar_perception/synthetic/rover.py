# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""The rover: its path, its attitude on the ground, its cameras, and what throws its shadow."""

from dataclasses import dataclass

import numpy as np

from lunar_perception.camera import PinholeCamera
from lunar_perception.synthetic.config import CameraMount
from lunar_perception.synthetic.terrain import TerrainMesh

WHEELBASE, TRACK = 1.2, 1.0
"""Metres between axles and between wheels of an axle."""


@dataclass(frozen=True)
class Pose:
    """
    Where a frame is in the world (x forward at the start, y left, z up).

    Attributes:
        position: its origin, (3,) metres.
        rotation: its axes as columns, (3, 3).

    """

    position: np.ndarray
    rotation: np.ndarray

    def then(self, other: 'Pose') -> 'Pose':
        """Return `other`, given in this frame, in the world."""
        return Pose(self.position + self.rotation @ other.position, self.rotation @ other.rotation)


def draw_path(rng: np.random.Generator, length: float, step: float = 0.5) -> np.ndarray:
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


def along(path: np.ndarray, distance: float) -> tuple[np.ndarray, float]:
    """Return the point (2,) `distance` metres along the path, and the heading there, radians."""
    gaps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    travelled = np.concatenate([[0.0], np.cumsum(gaps)])
    place = np.array([np.interp(distance, travelled, path[:, k]) for k in range(2)])
    ahead = np.array([np.interp(distance + 0.6, travelled, path[:, k]) for k in range(2)])
    behind = np.array([np.interp(distance - 0.6, travelled, path[:, k]) for k in range(2)])
    dx, dy = ahead - behind
    return place, float(np.arctan2(dy, dx))


def standing(mesh: TerrainMesh, place: np.ndarray, heading: float) -> Pose:
    """Return the body's pose with its four wheels on the ground (x ahead, y left, z up)."""
    ahead = np.array([np.cos(heading), np.sin(heading)])
    left = np.array([-ahead[1], ahead[0]])
    wheels = [
        place + 0.5 * (a * WHEELBASE * ahead + b * TRACK * left) for a in (1, -1) for b in (1, -1)
    ]
    fl, fr, rl, rr = mesh.height_at(*np.array(wheels).T)
    climb, bank = (fl + fr - rl - rr) / (2 * WHEELBASE), (fl + rl - fr - rr) / (2 * TRACK)
    x = np.array([*ahead, climb])
    x /= np.linalg.norm(x)
    y = np.array([*left, bank])
    z = np.cross(x, y)
    z /= np.linalg.norm(z)
    return Pose(np.array([*place, (fl + fr + rl + rr) / 4]), np.stack([x, np.cross(z, x), z], -1))


def draw_mount(rng: np.random.Generator) -> CameraMount:
    """Draw a camera other than LuSNAR's."""
    return CameraMount(
        height=float(rng.uniform(0.8, 2.2)),
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


def draw_silhouette(rng: np.random.Generator, mount: CameraMount) -> np.ndarray:
    """
    Return boxes that throw the rover's shadow, triangles (T, 3, 3) float32 in its body frame.

    A deck, the camera mast, and some upright posts: LuSNAR's rover throws a shadow with fingers.
    """
    deck_top = float(rng.uniform(0.3, 0.6)) * mount.height
    boxes = [((-0.7, -0.6, 0.2), (mount.forward - 0.4, 0.6, deck_top))]
    boxes.append(
        (
            (mount.forward - 0.5, -0.12, deck_top),
            (mount.forward - 0.42, 0.12, mount.height + 0.1),
        )
    )
    for _ in range(rng.integers(0, 6)):
        x, y = rng.uniform(-0.7, mount.forward - 0.4), rng.uniform(-0.6, 0.6)
        half = rng.uniform(0.03, 0.14)
        top = rng.uniform(deck_top, mount.height + 0.8)
        boxes.append(((x - half, y - half, deck_top - 0.05), (x + half, y + half, top)))
    return np.concatenate([_box(np.array(low), np.array(high)) for low, high in boxes])


def _box(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    corners = np.array([np.where([i & 1, i & 2, i & 4], high, low) for i in range(8)])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = [t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]
    return corners[np.array(triangles)].astype(np.float32)
