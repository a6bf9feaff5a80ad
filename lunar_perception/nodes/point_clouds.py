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

"""Labelled point clouds in the camera's optical frame (REP 103), as PointCloud2."""

from array import array

from lunar_perception.camera import PinholeCamera
from lunar_perception.hazards import (
    beside_rocks,
    beyond_rocks,
    groups_of,
    hazard_mask,
    HazardRule,
    rise,
    sharpened,
)
from lunar_perception.nodes.codec import data_bytes
from lunar_perception.taxonomy import LUNAR_TERRAIN, UNLABELLED
import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

FIELDS = [
    PointField(name='x', offset=0, datatype=PointField.FLOAT32, count=1),
    PointField(name='y', offset=4, datatype=PointField.FLOAT32, count=1),
    PointField(name='z', offset=8, datatype=PointField.FLOAT32, count=1),
    PointField(name='rgb', offset=16, datatype=PointField.FLOAT32, count=1),
    PointField(name='label', offset=20, datatype=PointField.UINT32, count=1),
    PointField(name='confidence', offset=24, datatype=PointField.FLOAT32, count=1),
]
"""PCL's layout, with the class id and its probability in bytes that PCL leaves free."""

POINT = np.dtype(
    {
        'names': [field.name for field in FIELDS],
        'formats': ['<u4' if field.datatype == PointField.UINT32 else '<f4' for field in FIELDS],
        'offsets': [field.offset for field in FIELDS],
        'itemsize': 32,
    }
)

ROCK = LUNAR_TERRAIN.id_of('rock')

BLUE_GREEN_RED = slice(16, 19)
"""Where a point's colour is among its bytes."""

WHOLE = np.dtype((np.void, POINT.itemsize))
"""A point as mere bytes: so copied, the ones between its fields stay zero."""


def organised_points(
    depth: np.ndarray,
    camera: PinholeCamera,
    image: np.ndarray,
    label: np.ndarray,
    confidence: np.ndarray,
    stride: int,
    data: 'array[int] | None' = None,
) -> np.ndarray:
    """
    Return the points of every stride-th pixel: (⌈H/s⌉, ⌈W/s⌉) of `POINT`, metres.

    `depth` (H, W) float32 metres along Z, `image` (H, W, 3) uint8 RGB, `label` (H, W) uint8 and
    `confidence` (H, W) float32. Where depth is not finite, x, y and z are NaN. `data`, of as many
    bytes, zeros or an earlier cloud, is where the points go.
    """
    every = (slice(None, None, stride), slice(None, None, stride))
    places = camera.back_project(depth, stride)
    shape = places.shape[:2]
    points = np.zeros(shape, POINT) if data is None else np.ndarray(shape, POINT, data)
    for axis, values in zip('xyz', np.moveaxis(places, 2, 0), strict=True):
        points[axis] = values
    channels = points.view(np.uint8).reshape(*shape, POINT.itemsize)[..., BLUE_GREEN_RED]
    channels[...] = image[every][..., ::-1]
    points['label'] = label[every]
    points['confidence'] = confidence[every]
    return points


def places_of(points: np.ndarray) -> np.ndarray:
    """Return where points of `POINT` (h, w) are, (h, w, 3) float32 metres."""
    return np.stack([points[axis] for axis in 'xyz'], axis=-1)


def hazard_points(
    points: np.ndarray,
    cost: np.ndarray | None,
    rule: HazardRule,
    down: np.ndarray,
    *,
    predicted: bool,
) -> np.ndarray:
    """
    Return those of an image's points (h, w) that are hazards, (n,); n ≤ h · w.

    `cost` (h, w) is the ground's, as `hazard_mask` takes it; `down` (3,) points along gravity in
    the camera's frame. Where a network has `predicted` the depth, what lies `beside_rocks` or does
    not `rise` by `min_rise` is no rock, outlines are `sharpened`, and what lies `beyond_rocks` is
    no hazard. Otherwise depth is true, and so are its rocks.
    """
    label, confidence = points['label'], points['confidence']
    rock = label == ROCK
    places = places_of(points)
    if not predicted:
        mask = hazard_mask(places, label, confidence, cost, rule)
    else:
        groups = groups_of(rock & np.isfinite(places[..., 2]), places)
        ground = beside_rocks(places, groups, down, rule.min_rise)
        groups[ground] = 0
        places = sharpened(places, groups)
        ground |= rock & (rise(places, groups, down) < rule.min_rise)
        groups[ground] = 0
        label = np.where(ground, np.uint32(UNLABELLED), label)
        mask = hazard_mask(places, label, confidence, cost, rule)
        mask &= ~beyond_rocks(places, groups, down)
    hazards = points.view(WHOLE)[mask].view(POINT)
    for axis, values in zip('xyz', places[mask].T, strict=True):
        hazards[axis] = values
    return hazards


def clearing_points(
    points: np.ndarray, depth: np.ndarray, camera: PinholeCamera, stride: int, max_range: float
) -> np.ndarray:
    """
    Return the ends (n,) of the rays along which nothing stands, all finite; n ≤ h · w.

    Points within `max_range` metres of the camera are such ends themselves; rays to farther ones
    and to the sky (+Inf in `depth`, (H, W)) end at `max_range`. Unknown depth (NaN) has no ray.
    """
    distance = _distance(points)
    far = (depth[::stride, ::stride] == np.inf) | (distance > max_range)
    rays = camera.rays(stride)[far]
    rays *= max_range / np.linalg.norm(rays, axis=-1, keepdims=True)
    ends = points.view(WHOLE).copy().view(POINT)
    for axis, values in zip('xyz', rays.T, strict=True):
        ends[axis][far] = values
    return ends.view(WHOLE)[far | (distance <= max_range)].view(POINT)


def cloud_message(
    points: np.ndarray, header: Header, data: 'array[int] | None' = None
) -> PointCloud2:
    """
    Return a cloud of `POINT`: organised (height, width), not dense; or a list (n,), dense.

    Dense means that every point is finite. `data`, where given, holds the points' bytes already.
    """
    organised = points.ndim == 2
    height, width = points.shape if organised else (1, len(points))
    message = PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=FIELDS,
        is_bigendian=False,
        point_step=POINT.itemsize,
        row_step=POINT.itemsize * width,
        is_dense=not organised,
        check_fields=True,
    )
    # Set afterwards, and with checks, because else the message copies it.
    message.data = data_bytes(points) if data is None else data
    return message


def _distance(points: np.ndarray) -> np.ndarray:
    """Return each point's distance from the camera in metres, NaN where it has no depth."""
    return np.sqrt(sum(points[axis].astype(np.float64) ** 2 for axis in 'xyz'))
