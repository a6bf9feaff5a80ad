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

"""A generated scene with known answers: flat ground, perhaps an end of it, and one round rock."""

from dataclasses import dataclass

from lunar_perception.camera import PinholeCamera
from lunar_perception.taxonomy import LUNAR_TERRAIN, SKY
import numpy as np

REGOLITH, ROCK = LUNAR_TERRAIN.ids_of(['regolith', 'rock'])


@dataclass(frozen=True)
class Ball:
    """A round rock: its centre (x, y, z) and its radius, metres."""

    centre: tuple[float, float, float]
    radius: float


@dataclass(frozen=True)
class FlatScene:
    """
    Ground at z = 0 from everywhere to x = `edge` metres, and beyond it a fall without a floor.

    Attributes
    ----------
    rock: what stands in it, or nothing.

    """

    rock: Ball | None
    edge: float = np.inf

    def view(
        self, camera: PinholeCamera, camera_in_world: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Return depth (H, W) float32 metres along Z, +Inf for sky, and label (H, W) uint8.

        `camera_in_world` (4, 4) is the optical frame's pose.
        """
        eye = camera_in_world[:3, 3]
        rays = camera.rays() @ camera_in_world[:3, :3].T  # their length is in depth
        with np.errstate(divide='ignore', invalid='ignore'):
            ground = -eye[2] / rays[..., 2]
            ground[(rays[..., 2] >= 0) | (eye[0] + ground * rays[..., 0] > self.edge)] = np.inf
        depth, label = ground, np.where(np.isfinite(ground), REGOLITH, SKY).astype(np.uint8)
        if self.rock is not None:
            # |eye + t · ray − centre| = radius
            towards = np.array(self.rock.centre) - eye
            a, b = np.sum(rays**2, axis=-1), rays @ towards
            rest = b**2 - a * (towards @ towards - self.rock.radius**2)
            near = np.where(rest >= 0, (b - np.sqrt(np.maximum(rest, 0))) / a, np.inf)
            hit = near < depth
            depth, label = np.where(hit, near, depth), np.where(hit, ROCK, label)
        return depth.astype(np.float32), label.astype(np.uint8)


def pose_matrix(position: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """Return the (4, 4) matrix of a pose, its rotation given as wxyz."""
    w, x, y, z = quaternion
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = position
    return matrix
