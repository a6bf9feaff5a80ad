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

"""Pictures: what each colour says, and sizes."""

from lunar_perception.taxonomy import LUNAR_TERRAIN, UNLABELLED
from lunar_perception.visualize import (
    color_depth,
    color_depth_errors,
    color_label_errors,
    INVALID_COLOR,
    overlay_labels,
    side_by_side,
    SKY_COLOR,
    WRONG_COLOR,
)
import numpy as np
import pytest

IMAGE = np.full((6, 8, 3), 100, np.uint8)


def test_overlay_tints_draws_borders_and_spares_the_unlabelled():
    label = np.zeros((6, 8), np.uint8)
    label[:, 4:] = 3
    label[5] = UNLABELLED
    overlay = overlay_labels(IMAGE, label, opacity=0.5)
    assert overlay.dtype == np.uint8
    np.testing.assert_allclose(
        overlay[2, 0], (np.array(LUNAR_TERRAIN.colors[0]) + 100) / 2, atol=1
    )
    assert tuple(overlay[2, 4]) == LUNAR_TERRAIN.colors[3]
    assert (overlay[5] == 100).all()
    with pytest.raises(ValueError, match='does not fit'):
        overlay_labels(IMAGE, label[1:])


def test_depth_runs_from_red_to_blue_and_names_sky_and_unknown():
    depth = np.array([[0.1, 1, 10, 100, 500, np.inf, np.nan]], np.float32)
    color = color_depth(depth)[0].astype(int)
    near, far = color[1], color[3]
    assert near[0] > near[2] and far[2] > far[0]
    assert (color[0] == near).all() and (color[4] == far).all()
    assert not (color[2] == near).all()
    assert tuple(color[5]) == SKY_COLOR
    assert tuple(color[6]) == INVALID_COLOR


def test_errors_show_where_and_only_where_they_are():
    truth = np.array([[0, 1, UNLABELLED]], np.uint8)
    label = np.array([[0, 2, 2]], np.uint8)
    color = color_label_errors(IMAGE[:1, :3], label, truth)[0]
    assert [tuple(pixel) == WRONG_COLOR for pixel in color] == [False, True, False]

    truth_m = np.array([[10, 10, 10, np.inf, np.nan]], np.float32)
    depth = np.array([[10, 20, np.nan, 10, 10]], np.float32)
    color = color_depth_errors(depth, truth_m)[0].astype(int)
    assert color[0].sum() < 20 and color[1].sum() > 400
    assert tuple(color[2]) == WRONG_COLOR
    assert tuple(color[3]) == tuple(color[4]) == INVALID_COLOR


def test_panels_stand_side_by_side():
    row = side_by_side([IMAGE, IMAGE[:, :5]], gap=2)
    assert row.shape == (6, 8 + 2 + 5, 3)
    assert (row[:, 8:10] == 255).all()
    large = np.zeros((320, 100, 3), np.uint8)
    titled = side_by_side([large, large], ['truth', 'depth'])
    assert titled.shape[0] > 320
    assert (titled[:-320, :100] < 128).any()  # the title
    with pytest.raises(ValueError, match='height'):
        side_by_side([IMAGE, IMAGE[1:]])
    with pytest.raises(ValueError):
        side_by_side([IMAGE, IMAGE], ['one'])
