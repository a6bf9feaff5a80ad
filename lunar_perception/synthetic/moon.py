# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""A generated Moon: a landscape, a rover that drives over it, and what its cameras see."""

from collections.abc import Callable, Iterator
from functools import cached_property, partial

import numpy as np

from lunar_perception.camera import PinholeCamera
from lunar_perception.synthetic.config import MoonConfig
from lunar_perception.synthetic.mountains import LABEL_HEIGHT
from lunar_perception.synthetic.photometry import draw_look
from lunar_perception.synthetic.renderer import Renderer, View
from lunar_perception.synthetic.rocks import draw_rock_field, LABEL_DIAMETER
from lunar_perception.synthetic.rover import (
    along,
    camera_of,
    camera_pose,
    draw_mount,
    draw_path,
    draw_silhouette,
    Pose,
    standing,
)
from lunar_perception.synthetic.terrain import draw_terrain, Terrain

FIRST_STAMP_NS = 1_700_000_000_000_000_000
TILE_RADIUS = 6.0
"""Metres that the rover may drive from a mesh's centre before the next mesh is built."""


class MoonFrame:
    """
    One frame of a generated scene; its images are rendered when first asked for, and kept.

    Attributes:
        stamp_ns: nanoseconds. camera: of both images.
        body: the rover body's pose in the world (x ahead, y left, z up).

    """

    def __init__(
        self, stamp_ns: int, camera: PinholeCamera, body: Pose, view: Callable[[bool], View]
    ) -> None:
        self.stamp_ns = stamp_ns
        self.camera = camera
        self.body = body
        self._view = view

    @cached_property
    def _left(self) -> View:
        return self._view(False)

    @property
    def left(self) -> np.ndarray:
        """The left image, (H, W, 3) uint8 RGB."""
        return self._left.image

    @property
    def depth(self) -> np.ndarray:
        """Of the left image, (H, W) float32 metres along Z, +Inf for sky."""
        return self._left.depth

    @property
    def label(self) -> np.ndarray:
        """Of the left image, (H, W) uint8 ids."""
        return self._left.label

    @cached_property
    def right(self) -> np.ndarray:
        """The right image, (H, W, 3) uint8 RGB."""
        return self._view(True).image


class Moon:
    """The landscape, light, camera and rover of one configuration."""

    def __init__(self, config: MoonConfig) -> None:
        self.config = config
        # One stream of random numbers a subject: none shifts when another draws more.
        streams = [np.random.default_rng((config.seed, k)) for k in range(4)]
        self.mount = config.mount or draw_mount(streams[0])
        self.camera = camera_of(self.mount, config.size)
        self.look = draw_look(streams[1])
        self._silhouette = draw_silhouette(streams[2], self.mount)
        self._rock_field = draw_rock_field(streams[3], config.seed)

    def frames(self, count: int) -> Iterator[MoonFrame]:
        """Yield `count` frames along the rover's drive, always the same ones."""
        step = self.config.speed * self.config.frame_interval
        streams = [np.random.default_rng((self.config.seed, k)) for k in (4, 5)]
        path = draw_path(streams[0], length=count * step + 20.0)
        terrain = draw_terrain(streams[1], self.config.seed, path, keep_clear=1.5)
        tile: Renderer | None = None
        for index in range(count):
            place, heading = along(path, 1.0 + index * step)
            if tile is None or np.hypot(*(place - tile.centre)) > TILE_RADIUS:
                tile = self._tile(terrain, path, place)
            body = standing(tile.mesh, place, heading)
            yield MoonFrame(
                stamp_ns=FIRST_STAMP_NS + round(index * self.config.frame_interval * 1e9),
                camera=self.camera,
                body=body,
                view=partial(self._view, tile, body, index),
            )

    def _tile(self, terrain: Terrain, path: np.ndarray, place: np.ndarray) -> Renderer:
        centre = (float(place[0]), float(place[1]))
        pixel = 1 / self.camera.fx
        mesh = terrain.mesh(
            centre,
            spacing=float(np.clip(25 * pixel, 0.04, 0.12)),
            growth=float(np.clip(8 * pixel, 0.012, 0.04)),
        )
        rocks = self._rock_field.around(centre, smallest_angle=1.3 * pixel)
        on_plain = mesh.mountain_at(*rocks.rows[:, :2].T) < LABEL_HEIGHT
        rocks = rocks.where(on_plain & _beside(rocks.rows, path))
        return Renderer(terrain, mesh, rocks, self._silhouette, centre, self.config.seed)

    def _view(self, tile: Renderer, body: Pose, index: int, right: bool) -> View:
        eye = body.then(camera_pose(self.mount, right))
        return tile.view(self.camera, eye, body, self.look, 2 * index + right)


def _beside(rows: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Return which rocks leave the rover's path free; pebbles may lie on it."""
    x, y, diameter = rows[:, 0], rows[:, 1], rows[:, 2]
    gap = np.full(len(rows), np.inf)
    for px, py in path:
        np.minimum(gap, np.hypot(x - px, y - py), out=gap)
    return (diameter < LABEL_DIAMETER) | (gap > 0.9 + diameter / 2)
