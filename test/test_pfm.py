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

"""PFM files: round trip to the bit, both row orders and byte orders, damage."""

from pathlib import Path
import tempfile

import cv2
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from lunar_perception.data.pfm import read_pfm, write_pfm
import numpy as np
import pytest

images = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)


@given(image=images, top_to_bottom=st.booleans())
def test_every_bit_comes_back(image, top_to_bottom):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'image.pfm'
        write_pfm(path, image, top_to_bottom=top_to_bottom)
        back = read_pfm(path, top_to_bottom=top_to_bottom)
        flipped = read_pfm(path, top_to_bottom=not top_to_bottom)
    assert back.dtype == np.float32
    assert back.view(np.uint32).tolist() == image.view(np.uint32).tolist()
    assert flipped.view(np.uint32).tolist() == image[::-1].view(np.uint32).tolist()


def test_opencv_agrees_on_the_standard_row_order(tmp_path):
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_pfm(tmp_path / 'ours.pfm', image)
    np.testing.assert_array_equal(
        cv2.imread(str(tmp_path / 'ours.pfm'), cv2.IMREAD_UNCHANGED), image
    )
    cv2.imwrite(str(tmp_path / 'theirs.pfm'), image)
    np.testing.assert_array_equal(read_pfm(tmp_path / 'theirs.pfm'), image)


@pytest.mark.parametrize('header', [b'Pf 2 1 1.0\n', b'Pf\r\n2 1\r\n1.0\r\n'])
def test_big_endian_and_other_white_space(tmp_path, header):
    (tmp_path / 'image.pfm').write_bytes(header + np.array([1.5, -2], '>f4').tobytes())
    assert read_pfm(tmp_path / 'image.pfm').tolist() == [[1.5, -2]]


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'not a PFM'),
        (b'\x89PNG\r\n\x1a\n', 'not a PFM'),
        (b'PF\n1 1\n-1.0\n' + bytes(12), 'colour PFM'),
        (b'Pf\n2 2\n-1.0\n' + bytes(15), '15 bytes of pixels'),
        (b'Pf\n2 2\n-1.0\n' + bytes(17), '17 bytes of pixels'),
    ],
)
def test_damage_is_named(tmp_path, content, reason):
    (tmp_path / 'image.pfm').write_bytes(content)
    with pytest.raises(ValueError, match=f'image.pfm.*{reason}'):
        read_pfm(tmp_path / 'image.pfm')


def test_three_channels_are_refused(tmp_path):
    with pytest.raises(ValueError, match='one channel'):
        write_pfm(tmp_path / 'image.pfm', np.zeros((2, 2, 3), np.float32))
    assert list(tmp_path.iterdir()) == []
