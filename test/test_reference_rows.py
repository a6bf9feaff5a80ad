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

"""The position prior and the flat plane, against what can be worked out by hand."""

from math import cos, inf, radians, sin, tan

import cv2
from hypothesis import given
from hypothesis import strategies as st
from lunar_perception.camera import PinholeCamera
from lunar_perception.data.lusnar_format import CAMERA_PITCH_DEG
from lunar_perception.reference_rows import flat_plane_depth, PositionPrior
from lunar_perception.taxonomy import UNLABELLED
import numpy as np
import pytest

CAMERA = PinholeCamera(200, 100, 100, 80, 100, 40)


def test_prior_is_the_most_frequent_label_of_each_place():
    first = np.zeros((256, 128), np.uint8)
    second, third = first.copy(), first.copy()
    first[:128], second[:128], third[:128] = 4, 4, 3
    third[128:] = UNLABELLED
    first[128:] = 2  # a tie with regolith: the smaller id wins
    prior = PositionPrior.fit([first, second, third])
    label = prior.predict(50, 70)
    assert label.shape == (50, 70)
    assert label.dtype == np.uint8
    assert (label[:25] == 4).all()
    assert (label[25:] == 0).all()


def test_prior_speaks_where_nobody_voted():
    label = np.full((128, 128), UNLABELLED, np.uint8)
    label[0, :100] = 3
    assert (PositionPrior.fit([label]).label == 3).all()
    with pytest.raises(ValueError, match='at least one'):
        PositionPrior.fit([np.full((4, 4), UNLABELLED, np.uint8)])


def test_prior_on_disk(tmp_path):
    label = np.random.default_rng(0).integers(0, 5, (128, 128), np.uint8)
    PositionPrior.fit([label]).save(tmp_path / 'prior.png')
    np.testing.assert_array_equal(PositionPrior.load(tmp_path / 'prior.png').label, label)
    assert [file.name for file in tmp_path.iterdir()] == ['prior.png']
    (tmp_path / 'text.png').write_text('no image')
    cv2.imwrite(str(tmp_path / 'color.png'), np.zeros((4, 4, 3), np.uint8))
    for name in ('text.png', 'color.png'):
        with pytest.raises(ValueError, match=name):
            PositionPrior.load(tmp_path / name)


@given(
    height=st.floats(0.5, 3),
    pitch=st.floats(-10, 60),
    roll=st.floats(-20, 20),
    row=st.integers(0, 99),
    column=st.integers(0, 199),
)
def test_plane_points_lie_the_cameras_height_below_it(height, pitch, roll, row, column):
    """Rotate each seen point into a level frame by hand: all are `height` below."""
    depth = flat_plane_depth(CAMERA, height, pitch, roll)[row, column]
    x, y, z = CAMERA.rays()[row, column].astype(float)
    p, r = radians(pitch), radians(roll)
    level_y = x * sin(r) + y * cos(r)  # undo the roll, then the pitch
    below = level_y * cos(p) + z * sin(p)
    if below <= 1e-9:
        assert depth == inf
    else:
        assert depth * below == pytest.approx(height, rel=1e-5)


def test_plane_by_hand():
    """On the optical axis, the ground is height / sin(pitch) away; the horizon is level."""
    depth = flat_plane_depth(CAMERA, 1.5, CAMERA_PITCH_DEG)
    assert depth.dtype == np.float32
    assert depth[40, 100] == pytest.approx(1.5 / sin(radians(CAMERA_PITCH_DEG)))
    below = int(40 - 80 * tan(radians(CAMERA_PITCH_DEG))) + 1
    assert np.isinf(depth[:below]).all()
    assert np.isfinite(depth[below:]).all()
    # Straight ahead and level: a pixel k rows under the axis sees the ground at height · f / k.
    level = flat_plane_depth(CAMERA, 1.5, 0)
    assert level[60, 7] == pytest.approx(1.5 * 80 / 20)
    # The right side lower: the ground on the right comes nearer.
    rolled = flat_plane_depth(CAMERA, 1.5, 20, 10)
    assert rolled[60, 180] < depth[60, 180] < rolled[60, 20]
    with pytest.raises(ValueError, match='no ground'):
        flat_plane_depth(CAMERA, 0, 20)
