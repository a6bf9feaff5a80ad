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

"""The messages of LuSNAR bags, made and read without ROS."""

from collections.abc import Sequence
from typing import Any

import cv2
from lunar_perception.camera import PinholeCamera
from lunar_perception.data.lusnar_format import BASELINE_M, Pose
from lunar_perception.data.ros_frames import BASE_LINK, ODOM
import numpy as np
from rosbags.typesys import get_typestore, Stores

TYPESTORE = get_typestore(Stores.ROS2_JAZZY)
"""ROS 2 Jazzy's common message types."""

FORMATS = {
    'rgb8': ('u1', 3, None),
    'bgr8': ('u1', 3, cv2.COLOR_BGR2RGB),
    'rgba8': ('u1', 4, cv2.COLOR_RGBA2RGB),
    'bgra8': ('u1', 4, cv2.COLOR_BGRA2RGB),
    'mono8': ('u1', 1, cv2.COLOR_GRAY2RGB),
    '32FC1': ('f4', 1, None),
}
"""Type and number of channels, and how it becomes RGB, by encoding."""

LIDAR_POINT = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('label', '<u4')])
"""A point of /lidar/points: metres in the LiDAR's frame, and a taxonomy id."""

_FLOAT32, _UINT32 = 7, 6  # sensor_msgs/PointField
_UNKNOWN = np.array([-1.0, *[0.0] * 8])  # covariance whose quantity is not given (sensor_msgs/Imu)


def _type(name: str) -> Any:
    return TYPESTORE.types[name]


def _header(stamp_ns: int, frame_id: str) -> Any:
    stamp = _type('builtin_interfaces/msg/Time')(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return _type('std_msgs/msg/Header')(stamp=stamp, frame_id=frame_id)


def _vector(values: Sequence[float] | np.ndarray, kind: str = 'Vector3') -> Any:
    x, y, z = map(float, values)
    return _type(f'geometry_msgs/msg/{kind}')(x=x, y=y, z=z)


def _quaternion(wxyz: Sequence[float] | np.ndarray) -> Any:
    w, x, y, z = map(float, wxyz)
    return _type('geometry_msgs/msg/Quaternion')(x=x, y=y, z=z, w=w)


def image(stamp_ns: int, frame_id: str, pixels: np.ndarray, encoding: str) -> Any:
    """Return a sensor_msgs/Image of pixels (H, W) or (H, W, C) in the type of `encoding`."""
    data = np.ascontiguousarray(pixels, '<' + FORMATS[encoding][0])
    return _type('sensor_msgs/msg/Image')(
        header=_header(stamp_ns, frame_id),
        height=data.shape[0],
        width=data.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=data.strides[0],
        data=data.reshape(-1).view(np.uint8),
    )


def compressed_image(stamp_ns: int, frame_id: str, png: bytes) -> Any:
    """Return a sensor_msgs/CompressedImage of an RGB image as PNG."""
    return _type('sensor_msgs/msg/CompressedImage')(
        header=_header(stamp_ns, frame_id),
        format='rgb8; png compressed bgr8',  # as compressed_image_transport says it
        data=np.frombuffer(png, np.uint8),
    )


def camera_info(
    stamp_ns: int, frame_id: str, camera: PinholeCamera, *, right: bool = False
) -> Any:
    """Return a sensor_msgs/CameraInfo; of a right camera, P tells the baseline."""
    fx, fy, cx, cy = camera.fx, camera.fy, camera.cx, camera.cy
    offset = -fx * BASELINE_M if right else 0.0
    roi = _type('sensor_msgs/msg/RegionOfInterest')(0, 0, 0, 0, False)
    return _type('sensor_msgs/msg/CameraInfo')(
        header=_header(stamp_ns, frame_id),
        height=camera.height,
        width=camera.width,
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1.0]),
        r=np.eye(3).reshape(-1),
        p=np.array([fx, 0, cx, offset, 0, fy, cy, 0, 0, 0, 1.0, 0]),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def lidar(stamp_ns: int, frame_id: str, points: np.ndarray, label: np.ndarray) -> Any:
    """Return a sensor_msgs/PointCloud2 of points (N, 3) metres and label ids (N,)."""
    cloud = np.empty(len(points), LIDAR_POINT)
    for axis, name in enumerate('xyz'):
        cloud[name] = points[:, axis]
    cloud['label'] = label
    field = _type('sensor_msgs/msg/PointField')
    fields = [
        field(name, 4 * place, _UINT32 if name == 'label' else _FLOAT32, 1)
        for place, name in enumerate(LIDAR_POINT.names or ())
    ]
    return _type('sensor_msgs/msg/PointCloud2')(
        header=_header(stamp_ns, frame_id),
        height=1,
        width=len(cloud),
        fields=fields,
        is_bigendian=False,
        point_step=LIDAR_POINT.itemsize,
        row_step=cloud.nbytes,
        data=cloud.view(np.uint8),
        is_dense=bool(np.isfinite(points).all()),
    )


def imu(stamp_ns: int, frame_id: str, rate: np.ndarray, acceleration: np.ndarray) -> Any:
    """Return a sensor_msgs/Imu of rad/s and m/s² (3,), without orientation."""
    return _type('sensor_msgs/msg/Imu')(
        header=_header(stamp_ns, frame_id),
        orientation=_quaternion([1.0, 0.0, 0.0, 0.0]),
        orientation_covariance=_UNKNOWN,
        angular_velocity=_vector(rate),
        angular_velocity_covariance=np.zeros(9),
        linear_acceleration=_vector(acceleration),
        linear_acceleration_covariance=np.zeros(9),
    )


def odometry(stamp_ns: int, pose: Pose) -> Any:
    """Return a nav_msgs/Odometry of base_link in odom; its twist is not given."""
    pose_message = _type('geometry_msgs/msg/Pose')(
        position=_vector(pose.position, 'Point'), orientation=_quaternion(pose.quaternion)
    )
    unknown = np.array([-1.0, *[0.0] * 35])
    twist = _type('geometry_msgs/msg/Twist')(linear=_vector([0, 0, 0]), angular=_vector([0, 0, 0]))
    return _type('nav_msgs/msg/Odometry')(
        header=_header(stamp_ns, ODOM),
        child_frame_id=BASE_LINK,
        pose=_type('geometry_msgs/msg/PoseWithCovariance')(pose_message, np.zeros(36)),
        twist=_type('geometry_msgs/msg/TwistWithCovariance')(twist, unknown),
    )


def transform(stamp_ns: int, parent: str, child: str, pose: Pose) -> Any:
    """Return a geometry_msgs/TransformStamped: where `child` is in `parent`."""
    return _type('geometry_msgs/msg/TransformStamped')(
        header=_header(stamp_ns, parent),
        child_frame_id=child,
        transform=_type('geometry_msgs/msg/Transform')(
            translation=_vector(pose.position), rotation=_quaternion(pose.quaternion)
        ),
    )


def tf(transforms: list[Any]) -> Any:
    """Return a tf2_msgs/TFMessage."""
    return _type('tf2_msgs/msg/TFMessage')(transforms=transforms)


def image_pixels(message: Any) -> np.ndarray:
    """
    Return an Image's pixels, (H, W) or (H, W, C), in the type of its encoding.

    Any `step` and byte order. ValueError for other encodings than FORMATS, and too little data.
    """
    if message.encoding not in FORMATS:
        raise ValueError(f"encoding '{message.encoding}' is not one of {', '.join(FORMATS)}")
    kind, channels, _ = FORMATS[message.encoding]
    dtype = np.dtype(('>' if message.is_bigendian else '<') + kind)
    row = message.width * channels * dtype.itemsize
    if message.step < row or len(message.data) < message.step * message.height:
        raise ValueError(
            f'{len(message.data)} bytes in rows of {message.step} are no '
            f'{message.width}×{message.height} {message.encoding} image'
        )
    rows = message.data[: message.step * message.height].reshape(message.height, message.step)
    pixels = np.ascontiguousarray(rows[:, :row]).view(dtype)
    return pixels if channels == 1 else pixels.reshape(message.height, message.width, channels)


def rgb_image(message: Any) -> np.ndarray:
    """Return an Image or a CompressedImage as (H, W, 3) uint8 RGB; ValueError if it is none."""
    if message.__msgtype__ == 'sensor_msgs/msg/CompressedImage':
        pixels = cv2.imdecode(message.data, cv2.IMREAD_COLOR) if len(message.data) else None
        if pixels is None:
            raise ValueError(f"a compressed image of format '{message.format}' is damaged")
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    pixels = image_pixels(message)
    if message.encoding == '32FC1':
        raise ValueError('a camera image of encoding 32FC1')
    code = FORMATS[message.encoding][2]
    return pixels if code is None else cv2.cvtColor(pixels, code)
