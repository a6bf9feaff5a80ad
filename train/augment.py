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
Augmentation: generated frames made to look like other cameras, geometry kept exact.

One similarity transform (flip, rotation, crop) takes a frame from the cache to the network's
input. Rotating about the view axis leaves depth along Z as it is; cropping to a share s of the
side multiplies the focal length over width by 1 / s, which the canonical depth follows. The
image is then changed as cameras and light differ; labels stay.
"""

from dataclasses import dataclass
from math import cos, exp, radians, sin

import cv2
from lunar_perception.taxonomy import UNLABELLED
import numpy as np


@dataclass(frozen=True)
class AugmentConfig:
    """
    Strength of each augmentation; probabilities in [0, 1].

    Params:
        flip: probability of a horizontal mirror image.
        rotation_deg: largest roll, either way.
        smallest_crop: smallest share of the side that is kept; 1 = never cropped.
        whole: probability of the whole frame.
        brightness, contrast, gamma: largest change, as a log-ratio.
        black_level: largest lift of black, in [0, 1].
        tint: largest log-ratio between colour channels.
        shading: probability of broad lighter and darker patches.
        shadow: probability of the rover's own finger-shaped shadow.
        low_resolution: probability of a detour through fewer pixels.
        blur: probability of Gaussian blur.
        noise: largest standard deviation of the noise, in [0, 1].
        hot_pixels: probability of a few saturated pixels.
        jpeg: probability of JPEG compression.

    """

    flip: float = 0.5
    rotation_deg: float = 10.0
    smallest_crop: float = 0.6
    whole: float = 0.3
    brightness: float = 0.35
    contrast: float = 0.3
    gamma: float = 0.35
    black_level: float = 0.12
    tint: float = 0.03
    shading: float = 0.3
    shadow: float = 0.3
    low_resolution: float = 0.4
    blur: float = 0.3
    noise: float = 0.04
    hot_pixels: float = 0.1
    jpeg: float = 0.2


def augment(
    image: np.ndarray,
    label: np.ndarray,
    depth: np.ndarray,
    focal: float,
    size: int,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """
    Return a changed frame of side `size` and its focal length over width.

    `image` (S, S, 3) uint8 RGB, `label` (S, S) uint8, `depth` (S, S) float metres with +Inf for
    sky. Image comes back as (size, size, 3) float32 in [0, 1]; corners that rotation brought in
    are 255 in the label and NaN in the depth. All randomness is `rng`'s.
    """
    matrix, scale, share = _geometry(image.shape[0], size, config, rng)
    if scale > 1:  # warpAffine does not average over areas
        image = cv2.GaussianBlur(image, (3, 3), 0.45 * (scale**2 - 1) ** 0.5 + 1e-3)
    image = _warp(image, matrix, size, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101)
    label = _warp(label, matrix, size, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT, UNLABELLED)
    depth = depth.astype(np.float32)
    depth = _warp(depth, matrix, size, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT, np.nan)
    return _photometric(image, config, rng), label, depth, focal / share


def augment_teacher(
    teacher: np.ndarray, size: int, config: AugmentConfig, rng: np.random.Generator
) -> np.ndarray:
    """
    Return a teacher's map (S, S) float moved as `augment` moves the frame; (size, size) float32.

    `rng` is a generator of the same seed as `augment` got. What rotation brought in is NaN.
    """
    matrix, _, _ = _geometry(teacher.shape[0], size, config, rng)
    teacher = teacher.astype(np.float32)
    return _warp(teacher, matrix, size, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT, np.nan)


def _geometry(
    side: int, size: int, config: AugmentConfig, rng: np.random.Generator
) -> tuple[np.ndarray, float, float]:
    """Draw a similarity: output to frame pixels (2, 3), its scale, the share that is kept."""
    share = 1.0 if rng.random() < config.whole else rng.uniform(config.smallest_crop, 1)
    mirror = -1.0 if rng.random() < config.flip else 1.0
    angle = radians(rng.uniform(-config.rotation_deg, config.rotation_deg))
    slack = side * (1 - share) / 2
    centre = side / 2 + rng.uniform(-slack, slack, 2)
    scale = share * side / size
    # Maps output pixel centres to the frame's: OpenCV puts a pixel's centre at its index.
    linear = scale * np.array(
        [[mirror * cos(angle), -sin(angle)], [mirror * sin(angle), cos(angle)]]
    )
    offset = centre - 0.5 - linear @ np.full(2, size / 2 - 0.5)
    matrix = np.column_stack((linear, offset))
    return matrix, scale, share


def _warp(
    image: np.ndarray, matrix: np.ndarray, size: int, way: int, border: int, value: float = 0
) -> np.ndarray:
    return cv2.warpAffine(
        image,
        matrix,
        (size, size),
        flags=way | cv2.WARP_INVERSE_MAP,
        borderMode=border,
        borderValue=value,
    )


def _photometric(image: np.ndarray, c: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Change light, then optics, then sensor; (S, S, 3) uint8 to float32 in [0, 1]."""
    size = image.shape[0]
    x = image.astype(np.float32) / 255
    if rng.random() < c.shading:
        patches = rng.uniform(-0.5, 0.5, (4, 4)).astype(np.float32)
        x *= np.exp(cv2.resize(patches, (size, size), interpolation=cv2.INTER_CUBIC))[..., None]
    if rng.random() < c.shadow:
        x *= _own_shadow(size, rng)[..., None]
    gain = exp(rng.uniform(-c.brightness, c.brightness))
    tint = np.exp(rng.uniform(-c.tint, c.tint, 3)).astype(np.float32)
    np.clip(x * (gain * tint), 0, 1, out=x)
    x **= exp(rng.uniform(-c.gamma, c.gamma))
    middle = x.mean()
    x = middle + (x - middle) * exp(rng.uniform(-c.contrast, c.contrast))
    black = rng.uniform(0, c.black_level)
    x = black + (1 - black) * np.clip(x, 0, 1)

    if rng.random() < c.blur:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < c.low_resolution:
        few = round(size * rng.uniform(0.35, 0.9))
        x = cv2.resize(x, (few, few), interpolation=cv2.INTER_AREA)
        x = cv2.resize(x, (size, size), interpolation=cv2.INTER_LINEAR)

    grain = rng.standard_normal((size, size, 1), np.float32)
    x = x + grain * rng.uniform(0, c.noise)
    if rng.random() < c.hot_pixels:
        rows, columns = rng.integers(0, size, (2, rng.integers(1, 20)))
        x[rows, columns] = 1
    x = np.clip(x, 0, 1)
    if rng.random() < c.jpeg:
        quality = int(rng.integers(30, 90))
        levels = np.rint(x * 255).astype(np.uint8)
        _, data = cv2.imencode('.jpg', levels, (cv2.IMWRITE_JPEG_QUALITY, quality))
        x = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.float32) / 255
    return x.astype(np.float32, copy=False)


def _own_shadow(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return the light left by a rover's shadow: tapered fingers, (size, size) float32."""
    mask = np.zeros((size, size), np.uint8)
    left, width = rng.uniform(-0.1, 0.8), rng.uniform(0.1, 0.5)
    body, lean = rng.uniform(0, 0.2), rng.uniform(-0.3, 0.3)

    def fill(foot: float, foot_width: float, tip_width: float, top: float) -> None:
        # In shares of the side, y counted up from the lower edge.
        corners = [(foot, 0.0), (foot + foot_width, 0.0)]
        middle = foot + foot_width / 2 + lean * top
        corners += [(middle + tip_width / 2, top), (middle - tip_width / 2, top)]
        points = [(x * size, (1 - y) * size) for x, y in corners]
        cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)

    fill(left, width, width * rng.uniform(0.6, 1), body)
    fingers = rng.integers(1, 6)
    for foot in left + width * np.arange(fingers) / fingers:
        wide = width / fingers * rng.uniform(0.5, 1.2)
        fill(foot, wide, wide * rng.uniform(0.1, 0.9), body + rng.uniform(0.05, 0.25))
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), size * rng.uniform(0.002, 0.02))
    return 1 - soft * np.float32(rng.uniform(0.75, 0.98))
