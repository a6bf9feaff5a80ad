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

"""A generated Moon: a landscape, a rover that drives over it, and what its cameras see."""

from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache, partial

from lunar_perception.camera import PinholeCamera
from lunar_perception.data.lusnar_format import IMU_POSITION, ImuSamples, LidarScan
from lunar_perception.synthetic.config import MoonConfig
from lunar_perception.synthetic.lidar import scan
from lunar_perception.synthetic.mountains import LABEL_HEIGHT
from lunar_perception.synthetic.outlook import Outlook, ROCKS_REACH
from lunar_perception.synthetic.photometry import draw_look, relief_for
from lunar_perception.synthetic.renderer import Renderer, View
from lunar_perception.synthetic.richness import choose
from lunar_perception.synthetic.rocks import (
    add_boulder,
    draw_rock_field,
    LABEL_DIAMETER,
    rock_clusters,
    RockField,
)
from lunar_perception.synthetic.rover import (
    camera_of,
    camera_pose,
    draw_course,
    draw_mount,
    draw_silhouette,
)
from lunar_perception.synthetic.terrain import draw_terrain, Terrain
from lunar_perception.synthetic.trajectory import Drive, Pose
import numpy as np

IMU_STEP_NS = 10_000_000

TILE_AHEAD, TILE_RADIUS = 4.0, 5.0
"""Metres that a mesh's centre lies ahead of the rover, and that the rover may be off it."""


class MoonFrame:
    """
    One frame of a generated scene; its images are rendered when first asked for, and kept.

    Fields:
        stamp_ns: nanoseconds. camera: of both images.
        body: the rover body's pose in the world (x ahead, y left, z up).
        velocity: the body's in the world, (3,) m/s.
        renderer: of the stretch of ground around it.

    """

    def __init__(
        self,
        stamp_ns: int,
        camera: PinholeCamera,
        body: Pose,
        velocity: np.ndarray,
        renderer: Renderer,
        view: Callable[[bool], View],
    ) -> None:
        self.stamp_ns = stamp_ns
        self.camera = camera
        self.body = body
        self.velocity = velocity
        self.renderer = renderer
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

    @property
    def right(self) -> np.ndarray:
        """The right image, (H, W, 3) uint8 RGB."""
        return self.right_view.image

    @cached_property
    def right_view(self) -> View:
        """What the right camera sees, with its own depth and label."""
        return self._view(True)

    @cached_property
    def lidar(self) -> LidarScan:
        """The LiDAR's scan, in its own frame (x ahead, y right, z down)."""
        return scan(self.renderer, self.body)


class Moon:
    """The landscape, light, camera and rover of one configuration."""

    def __init__(self, config: MoonConfig) -> None:
        self.config = config
        # One stream of random numbers a subject: none shifts when another draws more.
        streams = [np.random.default_rng((config.seed, k)) for k in range(3)]
        self.mount = config.mount or draw_mount(streams[0])
        self.camera = camera_of(self.mount, config.size)
        self.look = draw_look(streams[1], sun_anywhere=config.boulder)
        self._silhouette = draw_silhouette(streams[2], self.mount, self.look.sun)
        self._landscape = lru_cache(maxsize=1)(self._draw_landscape)

    def frames(self, count: int) -> Iterator[MoonFrame]:
        """Yield `count` frames along the rover's drive, always the same ones."""
        terrain, rock_field, drive = self._landscape(count)
        path = drive.course.points()
        tile: Renderer | None = None
        for index, t in enumerate(drive.course.seconds()):
            body = drive.pose(t)
            if tile is None or np.hypot(*(body.position[:2] - tile.centre)) > TILE_RADIUS:
                tile = self._tile(terrain, rock_field, path, body)
            yield MoonFrame(
                stamp_ns=int(drive.course.stamps_ns[index]),
                camera=self.camera,
                body=body,
                velocity=drive.velocity(t),
                renderer=tile,
                view=partial(self._view, tile, body, index),
            )

    def inertial(self, count: int) -> ImuSamples:
        """
        Return what the inertial unit measures from the first of `count` frames to the last.

        100 Hz, no noise and no bias, in LuSNAR's axes (x ahead, y right, z down): angular
        velocity, and specific force, which at rest is −1.62 m/s² along z.
        """
        *_, drive = self._landscape(count)
        stamps = np.arange(drive.course.stamps_ns[0], drive.course.stamps_ns[-1] + 1, IMU_STEP_NS)
        flip = np.array([1.0, -1.0, -1.0])
        omega, force = drive.inertial((stamps - stamps[0]) / 1e9, flip * IMU_POSITION)
        return ImuSamples(stamps, omega * flip, force * flip)

    def _draw_landscape(self, count: int) -> tuple[Terrain, RockField, Drive]:
        config = self.config
        streams = [np.random.default_rng((config.seed, k)) for k in (3, 4, 5)]
        if config.course is None:
            course = draw_course(streams[1], config.speed, config.frame_interval, count)
        else:
            course = config.course.first(count)
        outlook = Outlook.of(course, self.mount)
        path = course.points()
        terrain = draw_terrain(
            streams[2],
            config.seed,
            path,
            3.5,
            outlook,
            config.richness,
            config.relief * relief_for(self.look.sun),
        )
        if config.level:
            terrain = terrain.levelled()

        def rock_view(field: RockField) -> float:
            rocks = field.labelled_near(outlook.eyes[:, :2], ROCKS_REACH)
            return outlook.of_rocks(rocks.rows[_beside(rocks.rows, path)])

        rock_field = choose(
            streams[0],
            partial(draw_rock_field, clustering=rock_clusters(config.seed)),
            rock_view,
            config.richness.rocks if config.richness else None,
        )
        if config.boulder:
            stream = np.random.default_rng((config.seed, 6))
            rock_field = add_boulder(rock_field, stream, outlook.eyes[-1], outlook.half_width)
        return terrain, rock_field, Drive(course, terrain.ground_at)

    def _tile(
        self, terrain: Terrain, rock_field: RockField, path: np.ndarray, body: Pose
    ) -> Renderer:
        ahead = body.position + TILE_AHEAD * body.rotation[:, 0]
        centre = (float(ahead[0]), float(ahead[1]))
        pixel = 1 / self.camera.fx
        mesh = terrain.mesh(
            centre,
            spacing=float(np.clip(36 * pixel, 0.06, 0.12)),
            growth=float(np.clip(15 * pixel, 0.022, 0.04)),
        )
        rocks = rock_field.around(centre, smallest_angle=1.3 * pixel)
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
