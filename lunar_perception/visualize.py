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

"""Pictures for people: labels over an image, coloured depth, panels side by side."""

from collections.abc import Sequence
from functools import cache

import cv2
from lunar_perception.taxonomy import LUNAR_TERRAIN, Taxonomy
import numpy as np

DEPTH_RANGE_M = (1.0, 100.0)
"""Depth from the one end of the colour scale to the other; the same in every picture."""

SKY_COLOR = (0, 0, 0)
INVALID_COLOR = (128, 128, 128)
SKY_LEVEL, INVALID_LEVEL = 0, 1
"""What stands for them among the 256 levels of depth's colours."""

WRONG_COLOR = (255, 32, 32)


def overlay_labels(
    image: np.ndarray, label: np.ndarray, taxonomy: Taxonomy = LUNAR_TERRAIN, opacity: float = 0.45
) -> np.ndarray:
    """
    Tint an image with its labels' colours and draw the borders between them.

    `image`: (H, W, 3) uint8 RGB; `label`: (H, W) uint8 ids. Pixels without a class stay as they
    are. Returns (H, W, 3) uint8 RGB. Raises ValueError when the sizes differ.
    """
    if image.shape[:2] != label.shape:
        raise ValueError(f'label {label.shape} does not fit the image {image.shape[:2]}')
    color = taxonomy.colorize(label)
    mixed = cv2.addWeighted(image, 1 - opacity, color, opacity, 0)
    border = np.zeros(label.shape, bool)
    border[:, 1:] |= label[:, 1:] != label[:, :-1]
    border[1:] |= label[1:] != label[:-1]
    cv2.copyTo(color, border.view(np.uint8), mixed)
    cv2.copyTo(image, (label >= len(taxonomy)).view(np.uint8), mixed)
    return mixed


def color_depth(depth: np.ndarray) -> np.ndarray:
    """
    Paint depth (H, W) metres: near red to far blue, on a logarithmic scale over DEPTH_RANGE_M.

    Sky (+Inf) is black, unknown depth (NaN) grey. Returns (H, W, 3) uint8 RGB.
    """
    near, far = np.log(DEPTH_RANGE_M)
    sky = depth == np.inf
    known = np.isfinite(depth)
    position = cv2.log(np.clip(np.where(known, depth, 1), *DEPTH_RANGE_M, dtype=np.float32))
    # The ends of the map are left out: they are too dark to tell from the sky.
    slope = 220 / (far - near)
    level = cv2.convertScaleAbs(position, alpha=-slope, beta=20 + slope * far)  # rounds
    np.putmask(level, ~known, INVALID_LEVEL)
    np.putmask(level, sky, SKY_LEVEL)
    color: np.ndarray = cv2.applyColorMap(level, _depth_colors())
    return color


def overlay_evidence(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """
    Lay a saliency map (H, W) float over an image, the more opaque the larger its values.

    The colours' range ends at the 99th percentile of what is above 0, lest a few pixels hide the
    rest; a map that is 0 leaves the image as it is. `image` is (H, W, 3) uint8 RGB, and so is the
    result. Raises ValueError when the sizes differ.
    """
    if image.shape[:2] != heat.shape:
        raise ValueError(f'the map {heat.shape} does not fit the image {image.shape[:2]}')
    above = heat[heat > 0]
    if not above.size:
        return image.copy()
    level = np.clip(heat / np.percentile(above, 99), 0, 1).astype(np.float32)
    color = _colormap(np.rint(255 * level).astype(np.uint8), cv2.COLORMAP_TURBO)
    opacity = 0.75 * level[..., None]
    return np.rint(image * (1 - opacity) + color * opacity).astype(np.uint8)


def color_label_errors(image: np.ndarray, label: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Paint wrongly labelled pixels red on the darkened grey image; (H, W, 3) uint8 RGB."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) // 2
    color = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    color[(label != truth) & (truth < len(LUNAR_TERRAIN))] = WRONG_COLOR
    return color


def color_depth_errors(depth: np.ndarray, truth: np.ndarray, largest: float = 0.5) -> np.ndarray:
    """
    Paint relative depth error |depth − truth| / truth from black (0) to light yellow (`largest`).

    Grey where there is no truth, red where only the prediction is missing. (H, W, 3) uint8 RGB.
    """
    known = np.isfinite(truth) & (truth > 0)
    predicted = known & np.isfinite(depth)
    error = np.zeros(truth.shape, np.float32)
    error[predicted] = np.abs(depth[predicted] - truth[predicted]) / truth[predicted]
    level = np.rint(np.minimum(error / largest, 1) * 255).astype(np.uint8)
    color = _colormap(level, cv2.COLORMAP_INFERNO)
    color[~known] = INVALID_COLOR
    color[known & ~predicted] = WRONG_COLOR
    return color


def side_by_side(
    panels: Sequence[np.ndarray], titles: Sequence[str] | None = None, gap: int = 8
) -> np.ndarray:
    """
    Put pictures (H, W, 3) uint8 RGB of one height in a row on white, each under its title.

    Returns (H', W', 3) uint8 RGB. Raises ValueError when heights or the number of titles differ.
    """
    height = panels[0].shape[0]
    if any(panel.shape[0] != height for panel in panels):
        raise ValueError('panels of one height are needed')
    parts: list[np.ndarray] = []
    scale = height / 640
    margin = 0 if titles is None else round(40 * scale)
    for panel, title in zip(panels, titles or [''] * len(panels), strict=True):
        part = np.pad(panel, ((margin, 0), (0, 0), (0, 0)), constant_values=255)
        if title:
            origin = (0, round(28 * scale))
            thickness = max(1, round(2 * scale))
            cv2.putText(
                part, title, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.9 * scale, (40, 40, 40),
                thickness, cv2.LINE_AA,
            )  # fmt: skip
        parts += [part, np.full((part.shape[0], gap, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


@cache
def _depth_colors() -> np.ndarray:
    """Return the colours of depth's levels, (256, 1, 3) uint8 RGB."""
    colors = _colormap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)
    colors[SKY_LEVEL], colors[INVALID_LEVEL] = SKY_COLOR, INVALID_COLOR
    return colors


def _colormap(level: np.ndarray, colormap: int) -> np.ndarray:
    return cv2.cvtColor(cv2.applyColorMap(level, colormap), cv2.COLOR_BGR2RGB)
