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

"""The camera behind an image, from CameraInfo, and CameraInfo of a camera."""

from collections import deque

from builtin_interfaces.msg import Time
from lunar_perception.camera import PinholeCamera
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header


class RecentCameraInfos:
    """The CameraInfos that came of late; one thread may add while another asks."""

    def __init__(self, length: int = 100) -> None:
        self._infos: deque[CameraInfo] = deque(maxlen=length)

    def add(self, info: CameraInfo) -> None:
        """Keep one more, and let the oldest go."""
        self._infos.append(info)

    def clear(self) -> None:
        """Keep none."""
        self._infos.clear()

    @property
    def latest(self) -> CameraInfo | None:
        """Last that came; None before the first."""
        infos = list(self._infos)
        return infos[-1] if infos else None

    def at(self, stamp: Time) -> CameraInfo | None:
        """Return the last with just this stamp."""
        return next((i for i in reversed(list(self._infos)) if i.header.stamp == stamp), None)


class CameraInfoError(ValueError):
    """This CameraInfo does not tell which camera took the image."""


class UncalibratedError(CameraInfoError):
    """There is no calibration: no CameraInfo, or one with K[0] = 0."""


def is_distorted(info: CameraInfo) -> bool:
    """Return whether the camera has lens distortion, so that its images need rectifying."""
    return any(info.d)


def camera_from_info(info: CameraInfo) -> PinholeCamera:
    """
    Return the camera of the images that `info` comes with, its ROI and binning applied.

    K describes the full sensor; the image is its region of interest, shrunk by binning: fx / b and
    (cx − x_offset) / b, as image_geometry has it. Of a camera with distortion, images are taken to
    be rectified and P is used where there is one. Raises UncalibratedError when K[0] is 0, and
    CameraInfoError for a focal length or size that makes no camera.
    """
    if info.k[0] == 0:
        raise UncalibratedError('CameraInfo is uncalibrated (K[0] = 0)')
    rectified = is_distorted(info) and info.p[0] != 0
    fx, cx, fy, cy = (
        (info.p[0], info.p[2], info.p[5], info.p[6])
        if rectified
        else (info.k[0], info.k[2], info.k[4], info.k[5])
    )
    roi = info.roi
    binning_x, binning_y = info.binning_x or 1, info.binning_y or 1
    try:
        return PinholeCamera(
            width=(roi.width or info.width) // binning_x,
            height=(roi.height or info.height) // binning_y,
            fx=fx / binning_x,
            fy=fy / binning_y,
            cx=(cx - roi.x_offset) / binning_x,
            cy=(cy - roi.y_offset) / binning_y,
        )
    except ValueError as error:
        raise CameraInfoError(f'CameraInfo: {error}') from None


def camera_of_image(
    info: CameraInfo | None, frame_id: str, width: int, height: int
) -> PinholeCamera:
    """
    Return the camera of an image of the given frame and size.

    Raises UncalibratedError when `info` is None or without calibration, CameraInfoError when it
    belongs to another frame or size.
    """
    if info is None:
        raise UncalibratedError('no CameraInfo has come')
    camera = camera_from_info(info)
    if info.header.frame_id not in ('', frame_id):
        raise CameraInfoError(
            f"CameraInfo is of frame '{info.header.frame_id}', the image of '{frame_id}'"
        )
    if (camera.width, camera.height) != (width, height):
        raise CameraInfoError(
            f'CameraInfo is of {camera.width}×{camera.height} pixels, '
            f'the image of {width}×{height}'
        )
    return camera


def find_camera(
    info: CameraInfo | None, frame_id: str, width: int, height: int, default_fov_deg: float
) -> tuple[PinholeCamera | None, str]:
    """
    Return the camera of an image of the given frame and size, and what is wrong with it, if any.

    Above 0, a horizontal field of view stands in for a CameraInfo that is missing or uncalibrated.
    """
    try:
        camera = camera_of_image(info, frame_id, width, height)
    except CameraInfoError as error:
        if isinstance(error, UncalibratedError) and default_fov_deg > 0:
            return PinholeCamera.from_fov_deg(width, height, default_fov_deg), ''
        return None, f'no depth and clouds: {error}'
    if info is not None and is_distorted(info):
        return camera, 'CameraInfo has lens distortion: depth and clouds need rectified images'
    return camera, ''


def info_from_camera(camera: PinholeCamera, header: Header) -> CameraInfo:
    """Return the CameraInfo of an undistorted image that fills the camera's size."""
    fx, fy, cx, cy = camera.fx, camera.fy, camera.cx, camera.cy
    return CameraInfo(
        header=header,
        width=camera.width,
        height=camera.height,
        distortion_model='plumb_bob',
        d=[0.0] * 5,
        k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )
