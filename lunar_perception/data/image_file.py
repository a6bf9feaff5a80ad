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

"""Images on disk, whatever their format."""

from pathlib import Path

import cv2
import numpy as np


def read_image(path: Path) -> np.ndarray:
    """
    Return the image (H, W, 3) uint8 RGB; grey is repeated, alpha left out, 16 bits scaled to 8.

    Raises OSError, or ValueError naming the file when it is not an image of 8 or 16 bits.
    """
    data = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # an empty file, or one that announces an absurd size
        image = None
    if image is None:
        raise ValueError(f'{path} can not be read as an image')
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        raise ValueError(f'{path} has {image.dtype} pixels; save it with 8 or 16 bits')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
