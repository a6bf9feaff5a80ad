# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""Embree rays into a scene: depth, labels and image from the same hits."""

from dataclasses import dataclass
from functools import cached_property

from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
import numpy as np

from lunar_perception.camera import PinholeCamera
from lunar_perception.synthetic.mountains import LABEL_HEIGHT
from lunar_perception.synthetic.photometry import expose, Look, reflectance
from lunar_perception.synthetic.rocks import LABEL_DIAMETER, Rocks
from lunar_perception.synthetic.rover import Pose
from lunar_perception.synthetic.terrain import Terrain, TerrainMesh
from lunar_perception.taxonomy import LUNAR_TERRAIN

REGOLITH, CRATER, ROCK, MOUNTAIN, SKY = range(len(LUNAR_TERRAIN))
TERRAIN_GEOMETRY, ROCK_GEOMETRY = 0, 1


@dataclass(frozen=True)
class View:
    """
    What one camera sees.

    Attributes:
        image: (H, W, 3) uint8 RGB. label: (H, W) uint8 ids.
        depth: (H, W) float32 metres along Z, +Inf for sky.

    """

    image: np.ndarray
    depth: np.ndarray
    label: np.ndarray


class Renderer:
    """Casts rays into one stretch of ground with its rocks."""

    def __init__(
        self,
        terrain: Terrain,
        mesh: TerrainMesh,
        rocks: Rocks,
        silhouette: np.ndarray,
        centre: tuple[float, float],
        seed: int,
    ) -> None:
        self.mesh = mesh
        self.centre = centre
        self._terrain = terrain
        self._rocks = rocks
        self._silhouette_triangles = silhouette
        self._seed = seed
        self._slope = mesh.slope.reshape(-1, 2)
        self._bowl = mesh.bowl.ravel()
        self._mountain = mesh.mountain.ravel()

    @cached_property
    def _scene(self) -> EmbreeScene:
        scene = EmbreeScene()
        TriangleMesh(scene, self.mesh.vertices(), self._triangles)
        vertices, triangles, _ = self._rock_mesh
        if len(triangles):
            TriangleMesh(scene, vertices, triangles)
        return scene

    @cached_property
    def _triangles(self) -> np.ndarray:
        return self.mesh.triangles()

    @cached_property
    def _rock_mesh(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._rocks.mesh(self.mesh.height_at, self.centre)

    @cached_property
    def _silhouette(self) -> EmbreeScene:
        scene = EmbreeScene()
        TriangleMesh(scene, self._silhouette_triangles)
        return scene

    def view(self, camera: PinholeCamera, eye: Pose, body: Pose, look: Look, frame: int) -> View:
        """Render one image from `eye` (an optical frame in the world) on the rover `body`."""
        shape = (camera.height, camera.width)
        rays = (camera.rays().reshape(-1, 3) @ eye.rotation.T.astype(np.float32)).astype(
            np.float32
        )
        origins = np.broadcast_to(eye.position.astype(np.float32), rays.shape)
        hits = self._scene.run(np.ascontiguousarray(origins), rays, output=True)
        hit = hits['geomID'] >= 0
        # The rays' z is 1 in the camera's frame, so their length is the depth along Z.
        depth = np.where(hit, hits['tfar'], np.inf).astype(np.float32)
        points = origins + rays * np.where(hit, depth, 0)[:, None]
        on_ground = hits['geomID'] == TERRAIN_GEOMETRY
        on_rock = hits['geomID'] == ROCK_GEOMETRY

        outward = hits['Ng'] / (np.linalg.norm(hits['Ng'], axis=1, keepdims=True) + 1e-12)
        outward[(outward * rays).sum(1) > 0] *= -1

        label = np.full(len(rays), SKY, np.uint8)
        albedo = np.zeros(len(rays), np.float32)
        normal = np.zeros_like(rays)
        normal[:, 2] = 1

        ground = np.flatnonzero(on_ground)
        corners = self._triangles[hits['primID'][ground]]
        u, v = hits['u'][ground], hits['v'][ground]
        weights = np.stack([1 - u - v, u, v], -1)
        bowl = (self._bowl[corners] * weights).sum(-1)
        rise = (self._mountain[corners] * weights).sum(-1)
        mountain, crater = rise > LABEL_HEIGHT, bowl > 0
        label[ground] = np.where(mountain, MOUNTAIN, np.where(crater, CRATER, REGOLITH))
        soft = np.clip(np.stack([bowl * 4, rise / 4], -1), 0, 1)
        _, fresh, stone, alp = look.albedo
        albedo[ground] = 1 + (fresh - 1) * soft[:, 0] + (alp - 1) * soft[:, 1]
        slope = (self._slope[corners] * weights[..., None]).sum(1)
        rough, relief = self._roughness(points[ground], depth[ground] / camera.fx)
        normal[ground, :2] = -slope - rough
        # Hollows get less light from around, and dust is darker than grains.
        albedo[ground] *= np.exp(look.mottling * relief)

        rock = np.flatnonzero(on_rock)
        rows = self._rocks.rows[self._rock_mesh[2][hits['primID'][rock]]]
        label[rock] = np.where(rows[:, 2] >= LABEL_DIAMETER, ROCK, REGOLITH)
        tone = 0.8 + 0.4 * ((rows[:, 6] * 7919) % 1)
        albedo[rock] = (1 + (stone - 1) * (rows[:, 2] >= LABEL_DIAMETER)) * tone
        facets = outward[rock]
        rough, relief = self._roughness(points[rock], depth[rock] / camera.fx)
        facets[:, :2] -= 0.5 * rough
        albedo[rock] *= np.exp(look.mottling * relief)
        normal[rock] = facets
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)

        towards_eye = -rays / np.linalg.norm(rays, axis=1, keepdims=True)
        lit = self._lit(points + 0.004 * outward, normal, hit, body, look.sun)
        flat = reflectance_of_flat_ground(look)
        shine = reflectance(
            normal.reshape(*shape, 3), towards_eye.reshape(*shape, 3), look.sun, look.lunar_lambert
        ).ravel()
        radiance = albedo * (lit * shine / flat + look.ambient)
        grain = np.random.default_rng((self._seed, 41, frame)).standard_normal(
            shape, dtype=np.float32
        )
        image = expose(
            np.where(hit, radiance, 0).reshape(shape).astype(np.float32), look, camera.width, grain
        )
        return View(image, depth.reshape(shape), label.reshape(shape))

    def _roughness(
        self, points: np.ndarray, footprint: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the small relief's slopes (N, 2) and its heights (N,) in standard deviations.

        A band fades where a pixel's `footprint` (N,) metres can't resolve it.
        """
        slopes = np.zeros((len(points), 2), np.float32)
        relief = np.zeros(len(points), np.float32)
        x, y = points[:, 0], points[:, 1]
        for band in self._terrain.roughness:
            seen = np.clip(0.35 * band.noise.longest / np.maximum(footprint, 1e-6), 0, 1)
            slopes += band.noise.slopes_at(x, y) * (band.height * seen)[:, None]
            relief += band.noise.at(x, y) * seen
        return slopes, relief

    def _lit(
        self, points: np.ndarray, normal: np.ndarray, hit: np.ndarray, body: Pose, sun: np.ndarray
    ) -> np.ndarray:
        """Return 1 where the sun reaches a point past ground, rocks and rover, else 0."""
        lit = np.zeros(len(points), np.float32)
        facing = np.flatnonzero(hit & (normal @ sun.astype(np.float32) > 0))
        start = np.ascontiguousarray(points[facing])
        towards = np.broadcast_to(sun.astype(np.float32), start.shape)
        free = self._scene.run(start, np.ascontiguousarray(towards), query='OCCLUDED') < 0
        turn = body.rotation.astype(np.float32)
        start = (start - body.position.astype(np.float32)) @ turn
        towards = np.ascontiguousarray(np.broadcast_to(towards[:1] @ turn, start.shape))
        free &= self._silhouette.run(start, towards, query='OCCLUDED') < 0
        lit[facing] = free
        return lit


def reflectance_of_flat_ground(look: Look) -> float:
    """Return the reflectance of level ground seen 20° above it, the unit of radiance."""
    level = np.array([[[0.0, 0.0, 1.0]]], np.float32)
    eye = np.array([[[np.cos(np.radians(20)), 0.0, np.sin(np.radians(20))]]], np.float32)
    return float(reflectance(level, eye, look.sun, look.lunar_lambert)[0, 0])
