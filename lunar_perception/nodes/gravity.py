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

"""Which way is down in a camera's optical frame: from TF, an IMU, or how it is mounted."""

from typing import Any, NamedTuple

from lunar_perception.traversability import down_from_pitch
import numpy as np
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import Imu
from std_msgs.msg import Header

try:
    import tf2_ros
except ImportError:  # comes with ROS, not from PyPI
    tf2_ros = None

IMU_MAX_AGE_S = 1.0
"""Seconds between an image and the newest IMU message before or after it that still count."""

ACCELERATION_SMOOTHING_S = 1.0
"""Time constant over which acceleration is averaged, so that driving does not tilt the ground."""


class Down(NamedTuple):
    """
    Which way is down.

    Fields:
        direction: unit vector (3,) in the camera's optical frame (x right, y down, z forward).
        source: where it comes from, for people.
        problem: why it does not come from where it should; empty: it does.

    """

    direction: np.ndarray
    source: str
    problem: str = ''


class Gravity:
    """
    Finds which way is down for each image.

    From TF when `frame` is given (a frame whose z axis points up) and TF knows it. Otherwise from
    the newest sensor_msgs/Imu: its orientation (REP 145: towards a frame whose z points up) or,
    where it has none, its acceleration, averaged. An IMU in the images' frame speaks for the
    camera; of any other its axes are taken to be the rover's (REP 103: x ahead, y left, z up),
    with the camera looking ahead and down by its pitch. Otherwise from that pitch alone, as if
    the rover stood level.

    One thread may add IMU messages while another asks.
    """

    def __init__(self, node: Node, frame: str) -> None:
        self._frame = frame
        self._tf: Any = None
        self._listener: Any = None
        self._imu: tuple[int, str, np.ndarray] | None = None
        self._smooth: tuple[int, np.ndarray] | None = None
        if frame and tf2_ros is not None:
            self._tf = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._tf, node)

    def stop(self) -> None:
        """Stop listening to TF."""
        if self._listener is not None:
            self._listener.unregister()
            self._listener = None

    def add_imu(self, message: Imu) -> None:
        """Take what an IMU says; a message that says nothing is passed over."""
        stamp = _nanoseconds(message.header)
        q, a = message.orientation, message.linear_acceleration
        quaternion = np.array([q.w, q.x, q.y, q.z])
        acceleration = np.array([a.x, a.y, a.z])
        # A covariance that starts with −1: this is not measured (sensor_msgs/Imu).
        if message.orientation_covariance[0] != -1 and abs(np.linalg.norm(quaternion) - 1) < 0.1:
            down = -_up_in_body(quaternion)
        elif message.linear_acceleration_covariance[0] != -1 and np.isfinite(acceleration).all():
            down = -self._smoothed(stamp, acceleration)
        else:
            return
        size = np.linalg.norm(down)
        if size > 0:
            self._imu = (stamp, message.header.frame_id, down / size)

    def down(self, header: Header, camera_pitch_deg: float) -> Down:
        """Return which way is down for an image with this header."""
        problem = ''
        if self._frame:
            found = self._from_tf(header)
            if isinstance(found, np.ndarray):
                return Down(found, f'TF from {self._frame}')
            problem = found
        imu = self._imu
        if imu is not None and abs(_nanoseconds(header) - imu[0]) <= IMU_MAX_AGE_S * 1e9:
            _, frame, down = imu
            if frame == header.frame_id:
                return Down(down, 'imu', problem)
            return Down(_mounted(camera_pitch_deg) @ down, 'imu and camera_pitch_deg', problem)
        return Down(down_from_pitch(camera_pitch_deg), 'camera_pitch_deg', problem)

    def _from_tf(self, header: Header) -> np.ndarray | str:
        """Return down by TF, or why there is none."""
        if self._tf is None:
            return 'gravity_frame needs tf2_ros, which is not installed'
        # At the image's time where TF has come so far, which it need not wait for: down turns
        # slowly.
        for late in (False, True):
            try:
                time = Time() if late else Time.from_msg(header.stamp)
                transform = self._tf.lookup_transform(self._frame, header.frame_id, time)
            except (tf2_ros.TransformException, ValueError) as error:  # a stamp below zero
                why = str(error)
                continue
            q = transform.transform.rotation
            return -_up_in_body(np.array([q.w, q.x, q.y, q.z]))
        return f'no transform from {header.frame_id} to {self._frame}: {why}'

    def _smoothed(self, stamp: int, acceleration: np.ndarray) -> np.ndarray:
        last = self._smooth
        share = 1.0
        if last is not None and 0 <= (passed := (stamp - last[0]) / 1e9) <= IMU_MAX_AGE_S:
            share = 1 - np.exp(-passed / ACCELERATION_SMOOTHING_S)
            acceleration = last[1] + share * (acceleration - last[1])
        self._smooth = (stamp, acceleration)
        return acceleration


def _up_in_body(quaternion: np.ndarray) -> np.ndarray:
    """Return the parent's z axis in the child's, (3,), from the child's attitude wxyz."""
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)])


def _mounted(pitch_deg: float) -> np.ndarray:
    """Return the rotation (3, 3) from a rover's axes into its camera's, which looks down."""
    pitch = np.radians(pitch_deg)
    cos, sin = np.cos(pitch), np.sin(pitch)
    return np.array([[0.0, -1.0, 0.0], [-sin, 0.0, -cos], [cos, 0.0, -sin]])


def _nanoseconds(header: Header) -> int:
    nanoseconds: int = header.stamp.sec * 10**9 + header.stamp.nanosec
    return nanoseconds
