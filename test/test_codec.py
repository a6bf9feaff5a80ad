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

"""Image messages to arrays and back, against conversions written byte by byte."""

from array import array
import struct

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
from lunar_perception.nodes.codec import (
    decode_compressed_rgb,
    decode_rgb,
    encode,
    FORMATS,
    HAS_CV_BRIDGE,
    pixels,
)
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

COLORS = {'rgb': 'rgb', 'bgr': 'bgr', 'rgba': 'rgba', 'bgra': 'bgra', 'mono': 'y'}
ORDERS = {f'{name}{bits}': (order, bits) for name, order in COLORS.items() for bits in (8, 16)} | {
    f'{bits}{kind}C{len(order)}': (order, bits)
    for bits, kind in ((8, 'U'), (16, 'U'), (32, 'F'))
    for order in ('y', 'bgr', 'bgra')
    if (bits, order) != (32, 'bgra')
}
MOSAICS = {'rggb': 'rggb', 'bggr': 'bggr', 'gbrg': 'gbrg', 'grbg': 'grbg'}
YUV = {'uyvy': 'uyvy', 'yuv422': 'uyvy', 'yuyv': 'yuyv', 'yuv422_yuy2': 'yuyv'}


def image_message(encoding: str, rows: list[bytes], width: int, /, **changes: object) -> Image:
    message = Image(header=Header(), encoding=encoding, height=len(rows), width=width)
    message.step = len(rows[0])
    message.data = array('B', b''.join(rows))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def sample_bytes(value: float, bits: int, big_endian: bool) -> bytes:
    """Return one channel of a pixel as a camera sends it."""
    if bits == 32:
        return struct.pack('>f' if big_endian else '<f', value)
    return int(value).to_bytes(bits // 8, 'big' if big_endian else 'little')


@settings(max_examples=250, deadline=None)
@given(
    encoding=st.sampled_from(sorted(ORDERS)),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    padding=st.integers(0, 9),
    big_endian=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_encoding_step_and_byte_order_becomes_rgb(
    encoding: str, height: int, width: int, padding: int, big_endian: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    order, bits = ORDERS[encoding]
    white = 1 if bits == 32 else 2**bits - 1
    expected = np.zeros((height, width, 3), np.uint8)
    rows = []
    for v in range(height):
        row = b''
        for u in range(width):
            whole = {channel: int(rng.integers(0, 256)) for channel in 'rgbay'}
            sample = {
                8: whole,
                16: {channel: int(rng.integers(0, 2**16)) for channel in 'rgbay'},
                32: {channel: value / 255 for channel, value in whole.items()},
            }[bits]
            row += b''.join(sample_bytes(sample[channel], bits, big_endian) for channel in order)
            color = 'yyy' if order == 'y' else 'rgb'
            expected[v, u] = [round(sample[channel] * 255 / white) for channel in color]
        rows.append(row + rng.bytes(padding))
    message = image_message(encoding, rows, width, is_bigendian=int(big_endian))
    image = decode_rgb(message)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('mosaic', MOSAICS)
@pytest.mark.parametrize('big_endian', [False, True])
def test_bayer_mosaics_show_the_color_behind_them(
    mosaic: str, bits: int, big_endian: bool
) -> None:
    color = {'r': 200, 'g': 120, 'b': 30}
    scale = 257 if bits == 16 else 1
    rows = [
        b''.join(
            sample_bytes(scale * color[mosaic[2 * (v % 2) + u % 2]], bits, big_endian)
            for u in range(9)
        )
        + b'padding'
        for v in range(7)
    ]
    message = image_message(f'bayer_{mosaic}{bits}', rows, 9, is_bigendian=int(big_endian))
    image = decode_rgb(message)
    assert image.shape == (7, 9, 3)
    assert (image == list(color.values())).all()


@pytest.mark.parametrize('encoding', YUV)
def test_yuv_becomes_rgb(encoding: str) -> None:
    """ITU-R BT.601 with Y of 16 to 235, and two pixels that share their colour."""
    rng = np.random.default_rng(1)
    rows, expected = [], np.zeros((3, 4, 3))
    for v in range(3):
        row = b''
        for u in (0, 2):
            sample = {'u': int(rng.integers(96, 160)), 'v': int(rng.integers(96, 160))}
            first, second = (int(y) for y in rng.integers(80, 180, 2))
            brightness = iter((first, second))
            row += bytes(next(brightness) if c == 'y' else sample[c] for c in YUV[encoding])
            blue, red = sample['u'] - 128, sample['v'] - 128
            for place, y in ((u, first), (u + 1, second)):
                grey = 255 / 219 * (y - 16)
                expected[v, place] = [
                    grey + 1.596 * red,
                    grey - 0.813 * red - 0.391 * blue,
                    grey + 2.018 * blue,
                ]
        rows.append(row + b'padding')
    image = decode_rgb(image_message(encoding, rows, 4))
    np.testing.assert_allclose(image, expected, atol=1.5)
    with pytest.raises(ValueError, match='even width, not 3'):
        decode_rgb(image_message(encoding, [b'abcdef'], 3))


@pytest.mark.skipif(not HAS_CV_BRIDGE, reason='needs cv_bridge, which is not on PyPI')
@pytest.mark.parametrize('encoding', [*COLORS, *(f'bayer_{m}' for m in MOSAICS), *YUV])
@pytest.mark.parametrize('bits', [8, 16])
def test_it_is_as_cv_bridge_has_it(encoding: str, bits: int) -> None:
    from cv_bridge import CvBridge

    name = encoding if encoding in YUV else f'{encoding}{bits}'
    kind, channels = FORMATS[name]
    shape = (9, 14) if channels == 1 else (9, 14, channels)
    values = np.random.default_rng(2).integers(0, 2**16, shape)
    message = encode(values.astype(f'<{kind}'), name, Header())
    np.testing.assert_array_equal(
        decode_rgb(message), CvBridge().imgmsg_to_cv2(message, desired_encoding='rgb8')
    )


@pytest.mark.parametrize(
    ('value', 'held'),
    [
        (float('nan'), 'holds NaN'),
        (float('inf'), 'values from 0 to inf'),
        (200.0, 'values from 0 to 200'),
        (-0.5, 'values from -0.5 to 0'),
    ],
)
@pytest.mark.parametrize('encoding', ['32FC1', '32FC3'])
def test_float_images_run_from_0_to_1(encoding: str, value: float, held: str) -> None:
    image = np.zeros((2, 3, 3) if encoding == '32FC3' else (2, 3), '<f4')
    assert (decode_rgb(encode(image, encoding, Header())) == 0).all()
    image[1, 1] = value
    with pytest.raises(ValueError, match=held):
        decode_rgb(encode(image, encoding, Header()))


@pytest.mark.parametrize('encoding', FORMATS)
@pytest.mark.parametrize('size', [(1, 1), (3, 5)])
def test_what_is_encoded_is_read_back(encoding: str, size: tuple[int, int]) -> None:
    kind, channels = FORMATS[encoding]
    shape = size if channels == 1 else (*size, channels)
    image = np.random.default_rng(0).random(shape) * 200
    image = image.astype(f'<{kind}')
    if kind == 'f4':
        image[0, 0] = np.inf
    header = Header(frame_id='eye')
    message = encode(image, encoding, header)
    assert message.header is header
    assert (message.height, message.width, message.is_bigendian) == (*size, 0)
    assert message.step * message.height == len(message.data) == image.nbytes
    np.testing.assert_array_equal(pixels(message), image)


def test_encoding_a_part_of_an_image() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)[::2, 1::3]
    np.testing.assert_array_equal(pixels(encode(image, 'mono8', Header())), image)


def test_encode_refuses_what_the_encoding_does_not_hold() -> None:
    with pytest.raises(ValueError, match='float64'):
        encode(np.zeros((2, 2)), '32FC1', Header())
    with pytest.raises(ValueError, match='rgb8'):
        encode(np.zeros((2, 2), np.uint8), 'rgb8', Header())


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'encoding': 'rgb24'}, "'rgb24' is not one of rgb8"),
        ({'encoding': '64FC1'}, "'64FC1' is not one of rgb8"),
        ({'height': 0}, 'empty'),
        ({'width': 0}, 'empty'),
        ({'step': 5}, 'step 5 is less than a row of 2 rgb8 pixels, 6 bytes'),
        ({'height': 3}, 'cut off: 12 of 18 bytes'),
        ({'height': 2**31, 'step': 2**31}, 'cut off'),
        ({'data': array('B')}, 'cut off: 0 of 12 bytes'),
    ],
)
def test_a_bad_image_is_refused_with_the_reason(changes: dict[str, object], reason: str) -> None:
    message = image_message('rgb8', [b'abcdef', b'ghijkl'], 2, **changes)
    with pytest.raises(ValueError, match=reason):
        decode_rgb(message)


def test_a_plain_rgb_image_is_not_copied() -> None:
    message = image_message('rgb8', [b'abcdef', b'ghijkl'], 2)
    assert np.shares_memory(decode_rgb(message), np.asarray(message.data))


def png(image: np.ndarray) -> bytes:
    """Return an image, RGB or grey, as a PNG file."""
    return cv2.imencode('.png', image[..., ::-1] if image.ndim == 3 else image)[1].tobytes()


def test_compressed_images() -> None:
    image = np.random.default_rng(3).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    for format_ in ('png', 'rgb8; png compressed bgr8', 'bgr8; png compressed bgr8'):
        message = CompressedImage(format=format_, data=array('B', png(image)))
        np.testing.assert_array_equal(decode_compressed_rgb(message), image)
    # Sent with red and blue swapped, which the format tells.
    swapped = array('B', png(image[..., ::-1]))
    message = CompressedImage(format='bgr8; png compressed rgb8', data=swapped)
    np.testing.assert_array_equal(decode_compressed_rgb(message), image)
    message = CompressedImage(format='mono8; png compressed ', data=array('B', png(image[..., 0])))
    np.testing.assert_array_equal(decode_compressed_rgb(message), image[..., [0, 0, 0]])

    smooth = np.full((16, 16, 3), (200, 90, 30), np.uint8)
    jpeg = cv2.imencode('.jpg', smooth[..., ::-1])[1].tobytes()
    message = CompressedImage(format='rgb8; jpeg compressed bgr8', data=array('B', jpeg))
    np.testing.assert_allclose(decode_compressed_rgb(message), smooth, atol=3)


@pytest.mark.parametrize('channels', [1, 3])
def test_compressed_images_of_16_bits(channels: int) -> None:
    shape = (5, 7, channels) if channels == 3 else (5, 7)
    image = np.random.default_rng(4).integers(0, 2**16, shape, dtype=np.uint16)
    message = CompressedImage(format='rgb16; png compressed bgr16', data=array('B', png(image)))
    expected = np.rint(image * (255 / 65535)).reshape(5, 7, channels)
    np.testing.assert_array_equal(
        decode_compressed_rgb(message), np.broadcast_to(expected, (5, 7, 3))
    )


def test_a_bad_compressed_image_is_refused() -> None:
    data = png(np.zeros((6, 9, 3), np.uint8))
    absurd = data[:16] + struct.pack('>II', 2**31 - 1, 2**31 - 1) + data[24:]
    for bad in (b'', data[:20], b'nonsense', absurd):
        with pytest.raises(ValueError, match="'png' is not a sound JPEG or PNG"):
            decode_compressed_rgb(CompressedImage(format='png', data=array('B', bad)))
