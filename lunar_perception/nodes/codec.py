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

"""ROS image messages to arrays and back; cv_bridge only for what few cameras send."""

from array import array

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

try:
    from cv_bridge import CvBridge, CvBridgeError
    import cv_bridge.boost.cv_bridge_boost  # noqa: F401  fails beside a NumPy that is not its own
except (AttributeError, ImportError, SystemError):
    from rosbags.image import ImageError, message_to_cvimage

    HAS_CV_BRIDGE = False
    _convert, _ConversionError = message_to_cvimage, ImageError
else:
    HAS_CV_BRIDGE = True
    _convert, _ConversionError = CvBridge().imgmsg_to_cv2, CvBridgeError

CHANNELS = {
    'rgb8': ('u1', 'rgb'),
    'bgr8': ('u1', 'bgr'),
    'rgba8': ('u1', 'rgba'),
    'bgra8': ('u1', 'bgra'),
    'mono8': ('u1', 'y'),
    'rgb16': ('u2', 'rgb'),
    'bgr16': ('u2', 'bgr'),
    'rgba16': ('u2', 'rgba'),
    'bgra16': ('u2', 'bgra'),
    'mono16': ('u2', 'y'),
    # OpenCV's types tell no order of colours; blue comes first, as in OpenCV and RViz.
    '8UC1': ('u1', 'y'),
    '8UC3': ('u1', 'bgr'),
    '8UC4': ('u1', 'bgra'),
    '16UC1': ('u2', 'y'),
    '16UC3': ('u2', 'bgr'),
    '16UC4': ('u2', 'bgra'),
    '32FC1': ('f4', 'y'),
    '32FC3': ('f4', 'bgr'),
}
"""Type of a channel and order of the channels, by encoding."""

TO_RGB = {
    'bgr': cv2.COLOR_BGR2RGB,
    'rgba': cv2.COLOR_RGBA2RGB,
    'bgra': cv2.COLOR_BGRA2RGB,
    'y': cv2.COLOR_GRAY2RGB,
}

BRIDGED = {
    **{f'bayer_{order}8': ('u1', 1) for order in ('rggb', 'bggr', 'gbrg', 'grbg')},
    **{f'bayer_{order}16': ('u2', 1) for order in ('rggb', 'bggr', 'gbrg', 'grbg')},
    **dict.fromkeys(('uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2'), ('u1', 2)),
}
"""As FORMATS: what cv_bridge or rosbags-image makes colours of."""

CV_BRIDGE_ONLY = ('nv21', 'nv24')

FORMATS = {**{name: (kind, len(order)) for name, (kind, order) in CHANNELS.items()}, **BRIDGED}
"""Type of a channel and number of channels, by encoding."""


def pixels(message: Image) -> np.ndarray:
    """
    Return the message's pixels as a view, (H, W) or (H, W, C), in the type of its encoding.

    Honours any `step` and byte order. Raises ValueError for an encoding that is not in `FORMATS`,
    an empty image, rows longer than `step`, and data shorter than its rows.
    """
    if message.encoding not in FORMATS:
        missing = ' (needs cv_bridge)' if message.encoding in CV_BRIDGE_ONLY else ''
        raise ValueError(
            f"encoding '{message.encoding}'{missing} is not one of {', '.join(FORMATS)}"
        )
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

    Grey is repeated, alpha left out, 16 bits scaled to 8 by 255 / 65535, as cv_bridge does; float
    images have 0 for black and 1 for white. Raises ValueError as `pixels`, and for a float image
    with other values.
    """
    if message.encoding in CV_BRIDGE_ONLY and HAS_CV_BRIDGE:
        return _bridge(message, 'rgb8')
    image = pixels(message)
    if message.encoding in BRIDGED:
        if image.ndim == 3 and message.width % 2:
            raise ValueError(f'a {message.encoding} image has an even width, not {message.width}')
        # Neither takes both padded rows and a foreign byte order.
        packed = encode(image.astype(image.dtype.newbyteorder('<')), message.encoding, Header())
        return _eight_bits(_bridge(packed, f'rgb{8 * image.itemsize}'))
    image = _eight_bits(image)
    order = CHANNELS[message.encoding][1]
    return image if order == 'rgb' else cv2.cvtColor(image, TO_RGB[order])


def decode_compressed_rgb(message: CompressedImage) -> np.ndarray:
    """
    Return a JPEG or PNG image as (H, W, 3) uint8 RGB; ValueError when it is neither.

    A format such as 'bgr8; jpeg compressed rgb8' says that red and blue were swapped before.
    """
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        image = cv2.imdecode(np.frombuffer(message.data, np.uint8), flags)
    except cv2.error:  # no data at all, or an absurd size
        image = None
    if image is None:
        raise ValueError(
            f"compressed image of format '{message.format}' is not a sound JPEG or PNG"
        )
    image = _eight_bits(image)
    return image if 'compressed rgb' in message.format else cv2.cvtColor(image, TO_RGB['bgr'])


def _eight_bits(image: np.ndarray) -> np.ndarray:
    """Return an image of any type as uint8, its white as 255; the image itself if it is that."""
    if image.dtype.kind == 'f':
        least, most = image.min(), image.max()  # NaN if there is one
        if not (least >= 0 and most <= 1):
            held = 'NaN' if np.isnan(least) else f'values from {least:g} to {most:g}'
            raise ValueError(f'the float image holds {held}; 0 is black and 1 is white')
        return np.rint(image * 255).astype(np.uint8)
    if image.itemsize == 2:
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return image


def _bridge(message: Image, encoding: str) -> np.ndarray:
    """Convert with cv_bridge where it imports, or else rosbags-image; ValueError if it can't."""
    try:
        return _convert(message, encoding)
    except (_ConversionError, cv2.error) as error:
        raise ValueError(f'{message.encoding} image: {" ".join(str(error).split())}') from None


class MessageBuffers:
    """
    The bytes of messages by topic, used again for the next frame.

    To touch fresh memory costs many times what copying does. A message must have been published
    before the next one of its topic is made.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, array[int]] = {}

    def take(self, topic: str, size: int) -> 'array[int]':
        """Return so many bytes for a message on a topic; what is in them is left from before."""
        data = self._arrays.get(topic)
        if data is None or len(data) != size:
            data = self._arrays[topic] = array('B', bytes(size))
        return data


def encode(
    image: np.ndarray, encoding: str, header: Header, data: 'array[int] | None' = None
) -> Image:
    """
    Return an image message with `header` as it is.

    `image` is (H, W) or (H, W, C) in the type of `encoding`; ValueError when it is not. `data`, of
    as many bytes, is where the message's go.
    """
    kind, channels = FORMATS[encoding]
    dtype = np.dtype(f'<{kind}')
    if image.dtype != dtype or image.shape[2:] != (() if channels == 1 else (channels,)):
        raise ValueError(f'{image.dtype} {image.shape} is no {encoding} image')
    height, width = image.shape[:2]
    message = Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=width * channels * dtype.itemsize,
        check_fields=True,
    )
    # Set afterwards, and with checks, because else the message copies it.
    message.data = data_bytes(image, data)
    return message


def data_bytes(values: np.ndarray, data: 'array[int] | None' = None) -> 'array[int]':
    """
    Return an array's bytes in the one form that a message takes without a slow check.

    `data`, of as many bytes, is where they go.
    """
    if data is None:
        data = array('B')
        data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    else:
        np.copyto(np.ndarray(values.shape, values.dtype, data), values)
    return data
