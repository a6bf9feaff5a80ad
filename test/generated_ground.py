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

"""Ground of a given shape as a camera sees it: exact depth, by marching along each pixel's ray."""

from collections.abc import Callable
from itertools import pairwise

from lunar_perception.camera import PinholeCamera
from lunar_perception.traversability import down_from_pitch
import numpy as np

HEIGHT_M, PITCH_DEG = 1.5, 20.0
"""Height of the camera above the ground below it, and how far it looks below the horizon."""

CAMERA = PinholeCamera.from_fov_deg(200, 200, 80.0)

Surface = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Height in metres at points x (ahead of the camera), y (left of it), metres."""


def flat(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.zeros(np.broadcast(x, y).shape)


def with_rock(
    ahead: float, radius: float = 0.35, ground: Surface = flat, left: float = 0.0
) -> Surface:
    """Return ground with a half-buried ball on it."""

    def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        ball = radius**2 - (x - ahead) ** 2 - (y - left) ** 2
        return np.maximum(ground(x, y), np.sqrt(np.maximum(ball, 0)))

    return height


def with_crater(ahead: float, radius: float, depth: float, rim: float) -> Surface:
    """Return flat ground with a bowl crater whose crest stands `rim` metres above it."""

    def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        t = np.hypot(x - ahead, y) / radius
        return np.where(t < 1, rim - depth * (1 - t**2), rim * np.clip(2 - t, 0, 1) ** 2)

    return height


def axes(pitch_deg: float = PITCH_DEG) -> np.ndarray:
    """Return the camera's axes as columns (3, 3) in the world: x ahead, y left, z up."""
    down = down_from_pitch(pitch_deg)
    ahead = np.array([0.0, -down[2], down[1]])
    return np.stack([ahead, [-1.0, 0.0, 0.0], -down])


def world_of(points: np.ndarray, pitch_deg: float = PITCH_DEG) -> np.ndarray:
    """Return points (..., 3) of the optical frame in the world, whose origin is below it."""
    return points @ axes(pitch_deg).T + [0, 0, HEIGHT_M]


def depth_of(
    height: Surface, camera: PinholeCamera = CAMERA, pitch_deg: float = PITCH_DEG
) -> np.ndarray:
    """Return depth along Z, (H, W) float32 metres, +Inf beyond 60 m and for the sky."""
    rays = camera.rays().reshape(-1, 3) @ axes(pitch_deg).T
    low, high = np.zeros(len(rays)), np.full(len(rays), np.inf)
    # Steps grow with distance; the crossing is then found between two of them by bisection.
    flying = np.arange(len(rays))
    for last, stop in pairwise(0.3 * 1.015 ** np.arange(356)):
        place = rays[flying] * stop
        under = HEIGHT_M + place[:, 2] <= height(place[:, 0], place[:, 1])
        low[flying[under]], high[flying[under]] = last, stop
        flying = flying[~under]
    hit = np.isfinite(high)
    low, high, rays = low[hit], high[hit], rays[hit]
    for _ in range(16):
        middle = (low + high) / 2
        place = rays * middle[:, None]
        under = HEIGHT_M + place[:, 2] <= height(place[:, 0], place[:, 1])
        low, high = np.where(under, low, middle), np.where(under, middle, high)
    depth = np.full(len(hit), np.inf, np.float32)
    depth[hit] = high
    return depth.reshape(camera.height, camera.width)
