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

"""Portable float maps (PFM, http://netpbm.sourceforge.net/doc/pfm.html) of one channel."""

from pathlib import Path
import re

from lunar_perception.atomic import write_bytes
import numpy as np

_HEADER = re.compile(rb'(P[Ff])\s+(\d+)\s+(\d+)\s+([-+.\deE]+)(?:\r\n|\s)')


def read_pfm(path: str | Path, *, top_to_bottom: bool = False) -> np.ndarray:
    """
    Return the image, (H, W) float32, its top row first.

    The standard stores rows from bottom to top; `top_to_bottom` reads files that do not. The
    scale's sign gives the byte order; its magnitude is ignored, as other LuSNAR readers do.
    Raises FileNotFoundError, and ValueError for anything but a whole one-channel PFM.
    """
    data = Path(path).read_bytes()
    header = _HEADER.match(data)
    if header is None:
        raise ValueError(f'{path}: not a PFM file (header {data[:16]!r})')
    kind, width, height, scale = header.groups()
    if kind == b'PF':
        raise ValueError(f'{path}: a colour PFM, where one channel is expected')
    shape = int(height), int(width)
    expected = 4 * shape[0] * shape[1]
    if len(data) - header.end() != expected:
        raise ValueError(
            f'{path}: {len(data) - header.end()} bytes of pixels, where '
            f'{shape[1]}×{shape[0]} float32 take {expected}'
        )
    byte_order = '<' if float(scale) < 0 else '>'
    image = np.frombuffer(data, f'{byte_order}f4', offset=header.end()).reshape(shape)
    return (image if top_to_bottom else image[::-1]).astype(np.float32)


def write_pfm(path: str | Path, image: np.ndarray, *, top_to_bottom: bool = False) -> None:
    """
    Write an image (H, W), its top row first, as a little-endian one-channel PFM.

    Rows go to disk from bottom to top, as the standard has it, unless `top_to_bottom`.
    """
    if image.ndim != 2:
        raise ValueError(f'a PFM of one channel takes an image (H, W), not {image.shape}')
    rows = image if top_to_bottom else image[::-1]
    pixels = np.ascontiguousarray(rows, '<f4')
    header = f'Pf\n{image.shape[1]} {image.shape[0]}\n-1.0\n'.encode()
    write_bytes(path, header, pixels.data)
