# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""Image messages to arrays and back, against conversions written byte by byte."""

from array import array

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from lunar_perception.nodes.codec import (
    COLOR_ENCODINGS,
    decode_compressed_rgb,
    decode_rgb,
    encode,
    FORMATS,
    pixels,
)

ORDERS = {'rgb8': 'rgb', 'bgr8': 'bgr', 'rgba8': 'rgba', 'bgra8': 'bgra', 'mono8': 'y'}


def image_message(encoding: str, rows: list[bytes], width: int, /, **changes: object) -> Image:
    message = Image(header=Header(), encoding=encoding, height=len(rows), width=width)
    message.step = len(rows[0])
    message.data = array('B', b''.join(rows))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@settings(max_examples=60, deadline=None)
@given(
    encoding=st.sampled_from([*ORDERS, 'mono16']),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    padding=st.integers(0, 5),
    big_endian=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_encoding_step_and_byte_order_becomes_rgb(
    encoding: str, height: int, width: int, padding: int, big_endian: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    expected = np.zeros((height, width, 3), np.uint8)
    rows = []
    for v in range(height):
        row = b''
        for u in range(width):
            if encoding == 'mono16':
                value = int(rng.integers(0, 2**16))
                row += value.to_bytes(2, 'big' if big_endian else 'little')
                expected[v, u] = round(value * 255 / 65535)
            else:
                sample = {channel: int(rng.integers(0, 256)) for channel in 'rgbay'}
                row += bytes(sample[channel] for channel in ORDERS[encoding])
                color = 'yyy' if encoding == 'mono8' else 'rgb'
                expected[v, u] = [sample[channel] for channel in color]
        rows.append(row + rng.bytes(padding))
    message = image_message(encoding, rows, width, is_bigendian=int(big_endian))
    image = decode_rgb(message)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


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
        ({'encoding': 'yuv422'}, "'yuv422' is not one of rgb8"),
        ({'encoding': '32FC1'}, "'32FC1' is not one of rgb8"),
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


def test_every_color_encoding_is_known() -> None:
    assert {*ORDERS, 'mono16'} == set(COLOR_ENCODINGS)


def test_compressed_images() -> None:
    image = np.zeros((6, 9, 3), np.uint8)
    image[..., 0] = 200  # red
    _, data = cv2.imencode('.png', image[..., ::-1])
    message = CompressedImage(format='png', data=array('B', data.tobytes()))
    np.testing.assert_array_equal(decode_compressed_rgb(message), image)
    for bad in (b'', data.tobytes()[:20], b'nonsense'):
        with pytest.raises(ValueError, match="'png' is not a sound JPEG or PNG"):
            decode_compressed_rgb(CompressedImage(format='png', data=array('B', bad)))
