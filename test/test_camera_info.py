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

"""Which camera took an image, as CameraInfo tells."""

from lunar_perception.camera import PinholeCamera
from lunar_perception.nodes.camera_info import (
    camera_from_info,
    camera_of_image,
    CameraInfoError,
    find_camera,
    info_from_camera,
    UncalibratedError,
)
import pytest
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header


def camera_info(**changes: object) -> CameraInfo:
    info = CameraInfo(header=Header(frame_id='eye'), width=640, height=480)
    info.k = [500.0, 0.0, 330.0, 0.0, 520.0, 250.0, 0.0, 0.0, 1.0]
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def test_k_is_the_camera() -> None:
    assert camera_from_info(camera_info()) == PinholeCamera(640, 480, 500, 520, 330, 250)


def test_roi_and_binning() -> None:
    roi = RegionOfInterest(x_offset=100, y_offset=40, width=400, height=303)
    info = camera_info(roi=roi, binning_x=2, binning_y=4)
    assert camera_from_info(info) == PinholeCamera(200, 75, 250, 130, 115, 52.5)


def test_a_point_is_seen_by_the_same_pixel_with_roi_and_binning() -> None:
    """Binned pixel u covers full pixels 2u and 2u + 1: both conventions meet at the centre."""
    whole = camera_from_info(camera_info())
    roi = RegionOfInterest(x_offset=100, y_offset=40, width=400, height=300)
    part = camera_from_info(camera_info(roi=roi, binning_x=2, binning_y=2))
    x, y, z = 0.3, -0.2, 4.0
    u, v = whole.fx * x / z + whole.cx, whole.fy * y / z + whole.cy
    assert part.fx * x / z + part.cx == pytest.approx((u - 100) / 2)
    assert part.fy * y / z + part.cy == pytest.approx((v - 40) / 2)


def test_of_a_camera_with_distortion_p_describes_the_rectified_image() -> None:
    p = [480.0, 0.0, 320.0, 0.0, 0.0, 490.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    rectified = PinholeCamera(640, 480, 480, 490, 320, 240)
    distortion = [0.1, 0.0, 0.0, 0.0, 0.0]
    assert camera_from_info(camera_info(p=p, d=distortion)) == rectified
    assert camera_from_info(camera_info(p=p)).fx == 500
    assert camera_from_info(camera_info(d=distortion)).fx == 500
    camera, wrong = find_camera(camera_info(p=p, d=distortion), 'eye', 640, 480, 0.0)
    assert camera == rectified
    assert 'distortion' in wrong


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'k': [0.0] * 9}, r'uncalibrated \(K\[0\] = 0\)'),
        ({'k': [-500.0, 0.0, 330.0, 0.0, 520.0, 250.0, 0.0, 0.0, 1.0]}, 'fx = -500'),
        ({'k': [500.0, 0.0, 330.0, 0.0, float('nan'), 250.0, 0.0, 0.0, 1.0]}, 'fy = nan'),
        ({'width': 0}, '0×480'),
        ({'width': 320}, 'of 320×480 pixels, the image of 640×480'),
        ({'header': Header(frame_id='ear')}, "of frame 'ear', the image of 'eye'"),
    ],
)
def test_a_bad_camera_info_is_refused_with_the_reason(
    changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(CameraInfoError, match=reason):
        camera_of_image(camera_info(**changes), 'eye', 640, 480)


def test_no_camera_info_has_come() -> None:
    with pytest.raises(UncalibratedError):
        camera_of_image(None, 'eye', 640, 480)


def test_a_field_of_view_stands_in_for_a_calibration_only() -> None:
    stand_in = PinholeCamera.from_fov_deg(640, 480, 80.0)
    assert find_camera(None, 'eye', 640, 480, 80.0) == (stand_in, '')
    assert find_camera(camera_info(k=[0.0] * 9), 'eye', 640, 480, 80.0) == (stand_in, '')
    camera, wrong = find_camera(camera_info(), 'eye', 320, 240, 80.0)
    assert camera is None
    assert '320×240' in wrong


def test_a_published_info_describes_the_camera() -> None:
    camera = PinholeCamera(200, 75, 250, 130, 115, 52.5)
    info = info_from_camera(camera, Header(frame_id='eye'))
    assert camera_from_info(info) == camera
    assert info.p.tolist() == [250, 0, 115, 0, 0, 130, 52.5, 0, 0, 0, 1, 0]
