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

"""
The files of a LuSNAR scene, one reader a kind.

Each raises FileNotFoundError, or ValueError that says what is wrong with the content.
"""

import json
from pathlib import Path
import struct
from typing import Any

import cv2
from lunar_perception.camera import PinholeCamera
from lunar_perception.data.lusnar_format import label_ids, LIDAR_CATEGORIES, LidarScan, Mounting
from lunar_perception.data.pfm import read_pfm
from lunar_perception.taxonomy import LUNAR_TERRAIN
import numpy as np

_ID_BY_CATEGORY = {number: LUNAR_TERRAIN.id_of(name) for number, name in LIDAR_CATEGORIES.items()}


def read_camera(file: Path) -> tuple[PinholeCamera, Mounting]:
    """Return intrinsics and mounting from a camera.json."""
    try:
        values = json.loads(file.read_text())
        mounting = Mounting(**{k: float(v) for k, v in values.pop('mounting').items()})
        return PinholeCamera(**values), mounting
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f'not a camera file: {error}') from None


def read_png_size(file: Path) -> tuple[int, int]:
    """Return an image's width and height in pixels, without decoding it."""
    with file.open('rb') as stream:
        header = stream.read(24)
    if len(header) < 24 or header[12:16] != b'IHDR':
        raise ValueError('not a PNG image')
    width, height = struct.unpack('>II', header[16:])
    return width, height


def _decode(file: Path) -> np.ndarray:
    data = file.read_bytes()
    if b'IEND' not in data[-64:]:  # OpenCV would silently leave the missing rows black
        raise ValueError('not a whole PNG image')
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError('not a PNG image')
    return image


def read_color(file: Path) -> np.ndarray:
    """Return an RGB or RGBA image of 8 bits as (H, W, 3) uint8 RGB; alpha is dropped."""
    image = _decode(file)
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype != np.uint8 or channels not in (3, 4):
        raise ValueError(
            f'{channels} channels of {image.dtype}, where RGB or RGBA of uint8 is expected'
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGB)


def read_label(file: Path) -> np.ndarray:
    """Return a label image as ids (H, W) uint8."""
    return label_ids(read_color(file))


def read_depth(file: Path, *, top_to_bottom: bool) -> np.ndarray:
    """
    Return a depth file as it is, (H, W) float32 metres.

    `.pfm`, whose rows are taken in the given order; or `.png` of 16 bits in millimetres (REP
    118), which can not say more than 65.535 m.
    """
    if file.suffix == '.pfm':
        return read_pfm(file, top_to_bottom=top_to_bottom)
    image = _decode(file)
    if image.dtype != np.uint16 or image.ndim != 2:
        raise ValueError(
            f'{image.dtype} {image.shape}, where grey uint16 millimetres are expected'
        )
    return image.astype(np.float32) / 1000


def read_lidar(file: Path) -> LidarScan:
    """Return a LiDAR scan from rows x, y, z, category."""
    table = _read_table(file, [('point', np.float64, (3,)), ('category', np.float64)])
    label = np.zeros(len(table), np.uint8)
    for number in np.unique(table['category']):
        if number not in _ID_BY_CATEGORY:
            raise ValueError(f'unknown LiDAR category {number:g}')
        label[table['category'] == number] = _ID_BY_CATEGORY[number]
    return LidarScan(table['point'].astype(np.float32), label)


def read_stamped(file: Path, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return stamps (N,) int64 ns, in order, and the `columns` values beside them (N, columns)."""
    table = _read_table(file, [('stamp', np.int64), ('values', np.float64, (columns,))])
    table = table[np.argsort(table['stamp'], kind='stable')]
    return table['stamp'], table['values']


def _read_table(file: Path, fields: list[tuple[Any, ...]]) -> np.ndarray:
    """Read rows of numbers split by commas or by spaces, '#' lines left out."""
    lines = [line for line in file.read_text().splitlines() if line.strip() and line[0] != '#']
    if not lines:
        return np.empty(0, fields)
    delimiter = ',' if ',' in lines[0] else None
    try:
        return np.loadtxt(lines, fields, delimiter=delimiter, ndmin=1)
    except ValueError as error:
        raise ValueError(f'not a table of numbers: {str(error).partition(";")[0]}') from error
