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

"""Which points of one image are hazards: by their class, by the ground's shape, and not alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
from lunar_perception.traversability import LETHAL
import numpy as np

SOURCES = ('class', 'geometry', 'both')

LINK_M = 0.5
"""Metres up to which points that are neighbours in the image belong together."""

SMEAR = 0.024
"""How far a network smears the outline of a rock, as a share of the image's width."""

DEPTH_PER_WIDTH = 0.4
"""How much deeper than its neighbours in the image a rock may be, as a share of its width."""

COLUMN_RISE = 1 / 3
"""Share of its whole rise by which a rock reaches up in each column of the image."""

LEAST_DEPTH_M = 0.3
"""Metres that a rock may be deep, however narrow it looks."""


@dataclass(frozen=True)
class HazardRule:
    """
    What makes a point a hazard.

    Fields:
        sources: class: it is of one of `classes` (ids), in a group of such points of which the
            surest has at least `min_confidence`; geometry: the ground there is lethal; both:
            either of them.
        max_range: metres from the camera up to which it counts.
        min_points: least number of hazards that lie together, itself among them.
        min_rise: metres that a rock stands up at least, as a network sees it.

    """

    sources: str
    classes: Sequence[int]
    min_confidence: float
    max_range: float
    min_points: int
    min_rise: float

    @property
    def by_class(self) -> bool:
        return self.sources != 'geometry'

    @property
    def by_geometry(self) -> bool:
        return self.sources != 'class'


def hazard_mask(
    points: np.ndarray,
    label: np.ndarray,
    confidence: np.ndarray,
    cost: np.ndarray | None,
    rule: HazardRule,
) -> np.ndarray:
    """
    Return which points are hazards, (h, w) bool.

    `points` (h, w, 3) metres in the camera's frame, NaN where there is none; `label` and
    `confidence` (h, w) of the same pixels; `cost` (h, w) as `traversability.assess` returns it,
    for which a rule by class alone has no use.
    """
    distance2 = np.einsum('hwc,hwc->hw', points, points, dtype=np.float64)
    within = distance2 <= rule.max_range**2
    classes = rule.classes if rule.by_class else ()
    hazard = np.isin(label, classes) & within
    groups = groups_of(hazard, points)
    # A rock is unsure at its outline; what is not one, throughout.
    hazard &= surest(groups, confidence) >= rule.min_confidence
    if rule.by_geometry:
        if cost is None:
            raise ValueError(f'hazards by {rule.sources} need the cost of the ground')
        hazard |= (cost == LETHAL) & within
        groups = groups_of(hazard, points)
    return hazard & (group_sizes(groups) >= rule.min_points)


def sharpened(points: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """
    Return points (h, w, 3) with the smeared outlines of rocks drawn to the rocks.

    From a rock to the ground behind it true depth is a step. A network's is a steep slope, whose
    points hang in the air behind the rock, and would mark cells where nothing stands. So a point
    of one of `groups` (h, w), as `groups_of` returns them, may lie `DEPTH_PER_WIDTH` of its
    group's width, at least `LEAST_DEPTH_M`, behind the nearest rock beside it, up to `SMEAR` away
    in the image; one farther behind moves along its ray until it does.
    """
    reach = round(SMEAR * points.shape[1])
    if reach == 0:
        return points
    depth = points[..., 2]
    nearest = np.where(groups > 0, depth, np.float32(np.inf))
    beside = cv2.erode(nearest, np.ones((2 * reach + 1,) * 2, np.uint8))
    limit = beside + np.maximum(DEPTH_PER_WIDTH * _widths(points, groups), LEAST_DEPTH_M)[groups]
    behind = (groups > 0) & (depth > limit)
    scale = np.ones_like(depth)
    np.divide(limit, depth, out=scale, where=behind)
    return points * scale[..., None]


def rise(points: np.ndarray, groups: np.ndarray, down: np.ndarray) -> np.ndarray:
    """
    Return how far each one's group reaches up, (h, w) metres; 0 where there is no group.

    `points` (h, w, 3) metres, finite in `groups` (h, w), which are as `groups_of` returns them;
    `down` (3,) points along gravity in their frame. A patch of level ground that is called rock
    reaches up nowhere, however large it is.
    """
    grouped = groups > 0
    lowest, highest = _extremes(groups[grouped], _height(points[grouped], down))
    return np.where(grouped, (highest - lowest)[groups], 0)


def beside_rocks(
    points: np.ndarray, groups: np.ndarray, down: np.ndarray, min_rise: float
) -> np.ndarray:
    """
    Return which points of rocks are ground beside their rock, (h, w) bool.

    Labels run on from a rock into its shadow, but the ground there is flat: columns of the image
    in which a group reaches up by less than `COLUMN_RISE` of its whole rise are none of the rock,
    unless they reach up by `min_rise` metres, as those of a low rock beside it do. The rest is as
    `rise` takes it.
    """
    grouped = groups > 0
    width = groups.shape[1]
    column = np.broadcast_to(np.arange(width), groups.shape)
    _, number = np.unique(groups[grouped] * width + column[grouped], return_inverse=True)
    columns = np.zeros_like(groups)
    columns[grouped] = 1 + number
    least = np.minimum(COLUMN_RISE * rise(points, groups, down), min_rise)
    beside: np.ndarray = rise(points, columns, down) < least
    return beside


def beyond_rocks(points: np.ndarray, groups: np.ndarray, down: np.ndarray) -> np.ndarray:
    """
    Return which points of rocks lie behind their rock, (h, w) bool.

    A rock is about as deep as it is wide: points (h, w, 3) of one of `groups` (h, w) that are
    farther than that behind its nearest one are ground that is called rock, or depth that is
    smeared, unless they are another rock's face: steeper than 45° against gravity, `down` (3,).
    """
    grouped = groups > 0
    number = groups[grouped]
    x, _, z = points[grouped].T
    distance = np.hypot(x, z)
    nearest, _ = _extremes(number, distance)
    farthest = nearest + np.maximum(_widths(points, groups), LEAST_DEPTH_M)
    beyond = np.zeros(groups.shape, bool)
    beyond[grouped] = distance > farthest[number]
    beyond[beyond] = ~_steep(points, beyond, down)
    return beyond


def _steep(points: np.ndarray, chosen: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Return of each `chosen` point whether from below to above it goes more up than away."""
    rows, columns = np.nonzero(chosen)  # few of all
    below = points[np.minimum(rows + 1, len(points) - 1), columns]
    above = points[np.maximum(rows - 1, 0), columns]
    up = _height(above, down) - _height(below, down)
    steep: np.ndarray = up > np.abs(_away(above, down) - _away(below, down))
    return steep


def _height(points: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Return how high points (n, 3) are over the camera, (n,) metres."""
    height: np.ndarray = points @ -(down / np.linalg.norm(down))
    return height


def _away(points: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Return how far points (n, 3) are from the camera along level ground, (n,) metres."""
    away: np.ndarray = np.linalg.norm(np.cross(points, down / np.linalg.norm(down)), axis=-1)
    return away


def group_sizes(groups: np.ndarray) -> np.ndarray:
    """Return how many points each one's group has, (h, w) int; 0 where there is no group."""
    sizes = np.bincount(groups.ravel())
    sizes[0] = 0
    return sizes[groups]


def surest(groups: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Return the highest `confidence` (h, w) in each one's group; 0 where there is no group."""
    grouped = groups > 0
    highest = np.zeros(int(groups.max()) + 1, confidence.dtype)
    np.maximum.at(highest, groups[grouped], confidence[grouped])
    return highest[groups]


def _widths(points: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return how wide each group is, (1 + number of groups,) metres; −Inf of none."""
    grouped = groups > 0
    left, right = _extremes(groups[grouped], points[grouped][:, 0])
    widths: np.ndarray = right - left
    return widths


def _extremes(groups: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest of `values` (n,) by group (n,); +Inf, −Inf of none."""
    count = int(groups.max(initial=0)) + 1
    least, largest = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(least, groups, values)
    np.maximum.at(largest, groups, values)
    return least, largest


def groups_of(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """
    Return the number of each point's group, (h, w) int from 1; 0 where `mask` (h, w) is false.

    Neighbours in a row or column of the image, at most `LINK_M` apart, are of one group.
    """
    height, width = mask.shape
    # Points at even places, the links between them at odd ones: a picture whose parts are groups.
    picture = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    picture[::2, ::2] = mask
    picture[1::2, ::2] = _linked(mask[:-1], mask[1:], points[:-1], points[1:])
    picture[::2, 1::2] = _linked(mask[:, :-1], mask[:, 1:], points[:, :-1], points[:, 1:])
    _, groups = cv2.connectedComponents(picture, connectivity=4)
    return np.asarray(groups[::2, ::2])


def _linked(a: np.ndarray, b: np.ndarray, at_a: np.ndarray, at_b: np.ndarray) -> np.ndarray:
    """Return where masks `a` and `b` have points `LINK_M` apart at most; none is near to NaN."""
    linked: np.ndarray = a & b
    gap = at_a[linked] - at_b[linked]  # few of all
    linked[linked] = np.einsum('nc,nc->n', gap, gap) <= LINK_M**2
    return linked
