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

"""A generated scene, written to disk in LuSNAR's layout."""

from collections.abc import Callable
from pathlib import Path

from lunar_perception.data.lusnar_format import Mounting
from lunar_perception.data.lusnar_format import Pose as LusnarPose
from lunar_perception.data.lusnar_writer import LusnarSceneWriter
from lunar_perception.synthetic.config import MoonConfig
from lunar_perception.synthetic.moon import Moon
from lunar_perception.synthetic.trajectory import Pose
import numpy as np

LUSNAR_AXES = np.array([1.0, -1.0, -1.0])
"""Turns vectors between this package's axes (y left, z up) and LuSNAR's (y right, z down)."""


def generate_scene(
    directory: str | Path,
    config: MoonConfig,
    frames: int,
    *,
    resume: bool = False,
    progress: Callable[[], object] = lambda: None,
) -> None:
    """
    Write `frames` frames of one generated scene into `directory`.

    With `resume`, frames that are there are kept; the bytes are the same either way.
    `progress` is called after every frame.
    """
    moon = Moon(config)
    mounting = Mounting(moon.mount.height, moon.mount.pitch_deg, moon.mount.roll_deg)
    with LusnarSceneWriter(directory, moon.camera, mounting) as writer:
        for frame in moon.frames(frames):
            if not (resume and writer.has_frame(frame.stamp_ns)):
                writer.write_frame(
                    frame.stamp_ns,
                    left=frame.left,
                    right=frame.right,
                    depth=frame.depth,
                    label=frame.label,
                    lidar=frame.lidar,
                )
            velocity = (frame.velocity * LUSNAR_AXES).tolist()
            writer.add_pose(frame.stamp_ns, lusnar_pose(frame.body), velocity)
            progress()
        writer.add_imu(moon.inertial(frames))


def lusnar_pose(body: Pose) -> LusnarPose:
    """
    Return a body pose as LuSNAR writes it.

    Here world and body have x ahead, y left, z up; LuSNAR's are taken to have x ahead, y right,
    z down. Its nine trajectories climb nose up (rise and the body's x axis correlate with 0.95
    to 0.996), and start near the identity, so that world and body point z the same way; both
    ways fit the poses alone. The published camera positions, 1.5 m up at z = −1.5, say down.
    """
    rotation = LUSNAR_AXES[:, None] * body.rotation * LUSNAR_AXES
    return LusnarPose(body.position * LUSNAR_AXES, _quaternion(rotation))


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """Return the quaternion wxyz, w ≥ 0, of a rotation matrix (Bar-Itzhack 2000)."""
    r = rotation
    k = np.array(
        [
            [r[0, 0] + r[1, 1] + r[2, 2], 0, 0, 0],
            [r[2, 1] - r[1, 2], r[0, 0] - r[1, 1] - r[2, 2], 0, 0],
            [r[0, 2] - r[2, 0], r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], 0],
            [
                r[1, 0] - r[0, 1],
                r[2, 0] + r[0, 2],
                r[2, 1] + r[1, 2],
                r[2, 2] - r[0, 0] - r[1, 1],
            ],
        ]
    )
    quaternion = np.linalg.eigh(k)[1][:, -1]
    return quaternion if quaternion[0] >= 0 else -quaternion
