# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""ROS image messages to arrays and back, without cv_bridge."""

from array import array

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

FORMATS = {
    'rgb8': ('u1', 3),
    'bgr8': ('u1', 3),
    'rgba8': ('u1', 4),
    'bgra8': ('u1', 4),
    'mono8': ('u1', 1),
    'mono16': ('u2', 1),
    '32FC1': ('f4', 1),
}
"""Type of a channel and number of channels, by encoding."""

TO_RGB = {
    'bgr8': cv2.COLOR_BGR2RGB,
    'rgba8': cv2.COLOR_RGBA2RGB,
    'bgra8': cv2.COLOR_BGRA2RGB,
    'mono8': cv2.COLOR_GRAY2RGB,
    'mono16': cv2.COLOR_GRAY2RGB,
}
COLOR_ENCODINGS = ('rgb8', *TO_RGB)
"""What `decode_rgb` reads."""


def pixels(message: Image) -> np.ndarray:
    """
    Return the message's pixels as a view, (H, W) or (H, W, C), in the type of its encoding.

    Honours any `step` and byte order. Raises ValueError for an encoding that is not in `FORMATS`,
    an empty image, rows longer than `step`, and data shorter than its rows.
    """
    if message.encoding not in FORMATS:
        raise ValueError(f"encoding '{message.encoding}' is not one of {', '.join(FORMATS)}")
    if not (message.height and message.width):
        raise ValueError(f'the image is empty ({message.width}×{message.height})')
    kind, channels = FORMATS[message.encoding]
    dtype = np.dtype(('>' if message.is_bigendian else '<') + kind)
    row = message.width * channels * dtype.itemsize
    if message.step < row:
        raise ValueError(
            f'step {message.step} is less than a row of {message.width} {message.encoding} '
            f'pixels, {row} bytes'
        )
    if len(message.data) < message.step * message.height:
        raise ValueError(
            f'the data is cut off: {len(message.data)} of {message.step * message.height} bytes'
        )
    shape = (message.height, message.width, channels)
    strides = (message.step, channels * dtype.itemsize, dtype.itemsize)
    view: np.ndarray = np.ndarray(shape, dtype, message.data, strides=strides)
    return view[..., 0] if channels == 1 else view


def decode_rgb(message: Image) -> np.ndarray:
    """
    Return a camera image as (H, W, 3) uint8 RGB; a view of the message where it is that already.

    Grey is repeated, alpha left out, 16 bits scaled to 8 by 255 / 65535, as cv_bridge does.
    Raises ValueError as `pixels`, and for an encoding that is not in `COLOR_ENCODINGS`.
    """
    if message.encoding not in COLOR_ENCODINGS:
        raise ValueError(
            f"encoding '{message.encoding}' is not one of {', '.join(COLOR_ENCODINGS)}"
        )
    image = pixels(message)
    if message.encoding == 'mono16':
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if message.encoding == 'rgb8':
        return image
    return cv2.cvtColor(image, TO_RGB[message.encoding])


def decode_compressed_rgb(message: CompressedImage) -> np.ndarray:
    """Return a JPEG or PNG image as (H, W, 3) uint8 RGB; ValueError when it is neither."""
    try:
        image = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # no data at all, or an absurd size
        image = None
    if image is None:
        raise ValueError(
            f"compressed image of format '{message.format}' is not a sound JPEG or PNG"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def encode(image: np.ndarray, encoding: str, header: Header) -> Image:
    """
    Return an image message with `header` as it is.

    `image` is (H, W) or (H, W, C) in the type of `encoding`; ValueError when it is not.
    """
    kind, channels = FORMATS[encoding]
    dtype = np.dtype(f'<{kind}')
    if image.dtype != dtype or image.shape[2:] != (() if channels == 1 else (channels,)):
        raise ValueError(f'{image.dtype} {image.shape} is no {encoding} image')
    height, width = image.shape[:2]
    return Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=width * channels * dtype.itemsize,
        data=data_bytes(image),
    )


def data_bytes(values: np.ndarray) -> 'array[int]':
    """Return an array's bytes in the one form that a message takes without a slow check."""
    data: array[int] = array('B')
    data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return data
