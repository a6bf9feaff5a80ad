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
What LuSNAR's reader and writer share: folders, encodings, extrinsics, error (arXiv 2407.06512).

The body frame is x forward, y right, z down.
"""

from dataclasses import dataclass
from math import asin, degrees
from pathlib import Path
from typing import NamedTuple

from lunar_perception.taxonomy import LUNAR_TERRAIN
import numpy as np

SKY_DEPTH = 65504.0
"""Depth on disk where there is no surface: float16's largest value."""

BASELINE_M = 0.310
"""Distance between the two cameras; depth = BASELINE_M · fx / disparity."""

LIDAR_CATEGORIES = {-1: 'regolith', 0: 'crater', 174: 'rock'}
"""Class names by the category number in LiDAR files."""

IMU_POSITION = LIDAR_POSITION = (1.0, 0.0, -1.5)
"""Position in the body, metres; both are turned as the body is."""

LEFT_CAMERA_POSITION = (1.0, -BASELINE_M / 2, -1.5)
RIGHT_CAMERA_POSITION = (1.0, BASELINE_M / 2, -1.5)
"""Positions of the cameras in the body, metres."""

CAMERA_HEIGHT_M = 1.5
"""Height of the cameras above the body's origin."""


@dataclass(frozen=True)
class Layout:
    """Folders and files of a scene, relative to it."""

    name: str
    color: str
    right: str
    depth: str
    label: str
    poses: str
    imu: str
    lidar: str = 'LiDAR'


SHIPPED_LAYOUT = Layout(
    'shipped', 'image0/color', 'image1/color', 'image0/depth', 'image0/label', 'gt.txt', 'imu.txt'
)
"""What the data set's archives hold."""

README_LAYOUT = Layout(
    'README',
    'image1/RGB',
    'image2/RGB',
    'image1/Depth',
    'image1/Label',
    'Rover_pose.txt',
    'IMU.txt',
)
"""What the data set's README describes."""

CAMERA_FILE = 'camera.json'
"""Ours alone: intrinsics and mounting where they are not LuSNAR's, which has no such file."""

COLOR_INDEX = 'image0/color_timestamp.txt'
DEPTH_INDEX = 'image0/depth_timestamp.txt'
LIDAR_INDEX = 'LiDAR/timestamp.txt'


class Pose(NamedTuple):
    """The body in the world: position (3,) metres; rotation as a unit quaternion (4,) wxyz."""

    position: np.ndarray
    quaternion: np.ndarray


class Mounting(NamedTuple):
    """How the cameras stand on the body: metres up, degrees down, degrees clockwise."""

    height: float
    pitch_deg: float
    roll_deg: float


class LidarScan(NamedTuple):
    """A scan in the LiDAR's frame: points (N, 3) float32 metres, label ids (N,) uint8."""

    points: np.ndarray
    label: np.ndarray


class ImuSamples(NamedTuple):
    """
    Samples of the inertial unit.

    stamp_ns (N,) int64; angular_velocity (N, 3) rad/s; acceleration (N, 3) m/s².
    """

    stamp_ns: np.ndarray
    angular_velocity: np.ndarray
    acceleration: np.ndarray


class LusnarError(ValueError):
    """A missing or damaged file of a LuSNAR scene: which file, which scene, what is wrong."""

    def __init__(self, file: str | Path, scene: str, reason: str) -> None:
        super().__init__(str(file), scene, reason)
        self.file, self.scene, self.reason = str(file), scene, reason

    def __str__(self) -> str:
        return f'scene {self.scene}: {self.file}: {self.reason}'


def rotation_matrix(quaternion: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) of a quaternion (4,) wxyz of any length but zero."""
    w, x, y, z = np.asarray(quaternion, float) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


CAMERA_QUATERNION = (0.579, 0.406, 0.406, 0.579)
"""Rotation wxyz (as published, not normalised) of both cameras' optical frames in the body."""

CAMERA_PITCH_DEG = degrees(asin(rotation_matrix(np.array(CAMERA_QUATERNION))[2, 2]))
"""How far the optical axis looks down from the body's horizontal: 19.92°."""

LUSNAR_MOUNTING = Mounting(CAMERA_HEIGHT_M, CAMERA_PITCH_DEG, 0.0)


def color_label(label: np.ndarray) -> np.ndarray:
    """Return label ids (H, W) uint8 as LuSNAR's colours (H, W, 3) uint8; ValueError beyond 4."""
    if label.max(initial=0) >= len(LUNAR_TERRAIN):
        raise ValueError(f'label {label.max()} is not an id of {LUNAR_TERRAIN.name}')
    return LUNAR_TERRAIN.colorize(label)


# The red channel alone tells the classes apart.
_ID_BY_RED = np.zeros(256, np.uint8)
_ID_BY_RED[[color[0] for color in LUNAR_TERRAIN.colors]] = range(len(LUNAR_TERRAIN))


def label_ids(color: np.ndarray) -> np.ndarray:
    """Return the ids (H, W) uint8 of LuSNAR's label colours (H, W, 3); ValueError for others."""
    label: np.ndarray = _ID_BY_RED[color[..., 0]]
    unknown = np.zeros(label.shape, bool)
    for channel, shade in enumerate(LUNAR_TERRAIN.palette().T):  # much faster than whole colours
        unknown |= shade.copy()[label] != color[..., channel]
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        raise ValueError(
            f'unknown label colour {tuple(color[row, column].tolist())} at column {column}, '
            f'row {row} ({unknown.sum()} such pixels)'
        )
    return label
