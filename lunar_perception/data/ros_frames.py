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

"""
LuSNAR's frames as ROS has them: REP 103 (axes) and REP 105 (names).

LuSNAR's body is x forward, y right, z down: its cameras stand at z = −1.5 m, and their published
rotation looks 20° to the ground only when z is down. The world of gt.txt is that too: every
trajectory starts with the identity rotation. REP 103 has x forward, y left, z up; half a turn
about x leads from one to the other, in the world and in the body alike, and only changes signs.
"""

from math import cos, radians, sin

from lunar_perception.data.lusnar_format import BASELINE_M, LEFT_CAMERA_POSITION, Mounting, Pose
import numpy as np

ODOM, BASE_LINK = 'odom', 'base_link'
MAP = 'map'
LEFT_OPTICAL, RIGHT_OPTICAL = 'camera_left_optical', 'camera_right_optical'
LIDAR, IMU = 'lidar', 'imu'

_HALF_TURN = np.array([1.0, -1.0, -1.0])
_FORWARD_TO_OPTICAL = np.array([0.5, -0.5, 0.5, -0.5])
"""Rotation wxyz of an optical frame (x right, y down, z forward) that looks along x."""


def rep103_vector(vector: np.ndarray) -> np.ndarray:
    """Return vectors (…, 3) of a z-down frame in the z-up frame; points and rates alike."""
    return np.asarray(vector) * _HALF_TURN.astype(np.asarray(vector).dtype)


def rep103_pose(pose: Pose) -> Pose:
    """Return LuSNAR's body in its world as base_link in odom; the same call leads back."""
    signs = np.array([1.0, 1.0, -1.0, -1.0])  # conjugation with half a turn about x
    return Pose(rep103_vector(pose.position), np.asarray(pose.quaternion) * signs)


def camera_pose(mounting: Mounting, *, right: bool = False) -> Pose:
    """
    Return a camera's optical frame in base_link.

    The mounting tells height, pitch (down) and roll (right side down); how far forward, and the
    baseline, are LuSNAR's.
    """
    pitch, roll = radians(mounting.pitch_deg) / 2, radians(mounting.roll_deg) / 2
    rotation = _product(np.array([cos(pitch), 0.0, sin(pitch), 0.0]), _FORWARD_TO_OPTICAL)
    rotation = _product(rotation, np.array([cos(roll), 0.0, 0.0, sin(roll)]))
    side = -BASELINE_M / 2 if right else BASELINE_M / 2
    return Pose(np.array([LEFT_CAMERA_POSITION[0], side, mounting.height]), rotation)


def mounting_of(camera: Pose) -> Mounting:
    """Return the mounting of a camera from its optical frame in base_link."""
    w, x, y, z = camera.quaternion / np.linalg.norm(camera.quaternion)
    # The z components in base_link of the optical x and z axes.
    right, ahead = 2 * (x * z - w * y), 1 - 2 * (x * x + y * y)
    pitch = np.arcsin(np.clip(-ahead, -1, 1))
    roll = np.arcsin(np.clip(-right / max(cos(pitch), 1e-9), -1, 1))
    return Mounting(float(camera.position[2]), float(np.degrees(pitch)), float(np.degrees(roll)))


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the rotation (4,) wxyz of `b`, then `a`."""
    return np.array(
        [
            a[0] * b[0] - a[1:] @ b[1:],
            *(a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])),
        ]
    )
