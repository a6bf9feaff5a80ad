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

"""The pinhole camera against arithmetic by hand."""

from math import inf, nan, sqrt

from lunar_perception import LUNAR_TERRAIN, PinholeCamera
from lunar_perception.camera import LUSNAR_CAMERA
import numpy as np
import pytest

CAMERA = PinholeCamera(6, 4, fx=3.0, fy=2.0, cx=2.5, cy=1.0)


def test_a_pixel_sees_where_its_ray_goes() -> None:
    depth = np.full((4, 6), 8.0, np.float32)
    points = CAMERA.back_project(depth)
    assert points.shape == (4, 6, 3)
    assert points.dtype == np.float32
    assert points[3, 5] == pytest.approx([(5 - 2.5) / 3 * 8, (3 - 1) / 2 * 8, 8])
    assert CAMERA.back_project(depth, stride=3).shape == (2, 2, 3)
    assert np.array_equal(CAMERA.back_project(depth, stride=3), points[::3, ::3])


def test_points_without_depth_are_nan() -> None:
    depth = np.array([[1, inf, nan, 1, 1, -inf]] * 4, np.float32)
    known = np.isfinite(CAMERA.back_project(depth)).all(-1)
    assert np.array_equal(known, np.isfinite(depth))


def test_far_points_keep_float32s_precision() -> None:
    """At 200 m a float32 product would already be off by more than 1e-5 m."""
    camera = LUSNAR_CAMERA
    depth = np.full((1024, 1024), 199.98766, np.float32)
    x = (np.arange(1024) - 512.0) / 610.17784 * np.float64(np.float32(199.98766))
    assert np.array_equal(camera.back_project(depth)[7, :, 0], x.astype(np.float32))


def test_resizing_scales_each_axis_by_its_own() -> None:
    resized = CAMERA.resized(12, 2)
    assert resized == PinholeCamera(12, 2, fx=6.0, fy=1.0, cx=5.0, cy=0.5)
    assert LUSNAR_CAMERA.resized(512, 512).fx == pytest.approx(305.08892)


def test_field_of_view_of_lusnar_is_eighty_degrees() -> None:
    assert PinholeCamera.from_fov_deg(1024, 1024, 80).fx == pytest.approx(LUSNAR_CAMERA.fx)
    assert PinholeCamera.from_fov_deg(10, 4, 90).fy == pytest.approx(5)
    assert np.linalg.norm(PinholeCamera.from_fov_deg(10, 4, 90).rays()[2, 0]) == pytest.approx(
        sqrt(2)
    )


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'width': 0}, '0×4'),
        ({'fx': -1.0}, 'fx = -1.0'),
        ({'fy': nan}, 'fy = nan'),
        ({'cx': inf}, 'cx = inf'),
    ],
)
def test_impossible_cameras_are_refused(changes: dict, said: str) -> None:
    values = {'width': 6, 'height': 4, 'fx': 3.0, 'fy': 2.0, 'cx': 2.5, 'cy': 1.0}
    with pytest.raises(ValueError, match=said):
        PinholeCamera(**{**values, **changes})
    with pytest.raises(ValueError, match='between 0° and 180°'):
        PinholeCamera.from_fov_deg(6, 4, 180)
    with pytest.raises(ValueError, match='does not fit the camera 6×4'):
        CAMERA.back_project(np.zeros((6, 4), np.float32))


def test_classes_have_ids_names_and_colours() -> None:
    assert LUNAR_TERRAIN.ids_of(['rock', 'regolith']) == (2, 0)
    with pytest.raises(ValueError, match="unknown class 'pebble'; LuSNAR terrain has regolith"):
        LUNAR_TERRAIN.id_of('pebble')
    painted = LUNAR_TERRAIN.colorize(np.array([[2, 4, 255]], np.uint8))
    assert painted.tolist() == [[[232, 250, 80], [34, 201, 248], [0, 0, 0]]]
