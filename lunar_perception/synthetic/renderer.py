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

"""Embree rays into a scene: depth, labels, image and LiDAR ranges from the same surfaces."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from lunar_perception.camera import PinholeCamera
from lunar_perception.synthetic.mountains import LABEL_HEIGHT
from lunar_perception.synthetic.noise import sample
from lunar_perception.synthetic.photometry import expose, Look, reflectance
from lunar_perception.synthetic.rocks import LABEL_DIAMETER, Rocks
from lunar_perception.synthetic.terrain import Terrain, TerrainMesh
from lunar_perception.synthetic.trajectory import Pose
from lunar_perception.taxonomy import LUNAR_TERRAIN
import numpy as np

REGOLITH, CRATER, ROCK, MOUNTAIN, SKY = range(len(LUNAR_TERRAIN))
TERRAIN_GEOMETRY, ROCK_GEOMETRY = 0, 1

LIFT = np.float32(0.004)
"""Metres above a surface where its shadow rays start, so that it does not shade itself."""

SHADOW_REACH, SHADOW_HALF_WIDTH = 7.0, 1.3
"""Metres of the strip away from the sun in which the rover's own shadow falls."""

PENUMBRA = 0.03 * np.array(
    [[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1.5], [0, 0, -1.5]]
)
"""Changes of the sun's direction (K, 3) over which the rover's shadow is averaged."""


@dataclass(frozen=True)
class View:
    """
    What one camera sees.

    Fields:
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

    def view(self, camera: PinholeCamera, eye: Pose, body: Pose, look: Look, frame: int) -> View:
        """Render one image from `eye` (an optical frame in the world) on the rover `body`."""
        shape = (camera.height, camera.width)
        directions, lengths = _pixel_rays(camera)
        rays = directions @ eye.rotation.T.astype(np.float32)
        hits = self._cast(eye.position, rays)
        # The rays' z is 1 in the camera's frame, so their length is the depth along Z.
        depth = hits['tfar']
        label = np.full(len(rays), SKY, np.uint8)
        radiance = np.zeros(len(rays), np.float32)
        origin = eye.position.astype(np.float32)
        _, fresh, stone, alpine = look.albedo

        def light_on(chosen: np.ndarray, starts: np.ndarray, normal: np.ndarray) -> np.ndarray:
            size = np.sqrt(np.einsum('nc,nc->n', normal, normal))
            incidence = normal @ look.sun.astype(np.float32) / size
            emission = -np.einsum('nc,nc->n', normal, rays[chosen]) / (size * lengths[chosen])
            shine = reflectance(incidence, emission, look.lunar_lambert)
            lit = np.flatnonzero(incidence > 0)
            shine[lit] *= self._sunlight(starts[lit], body, look.sun)
            light: np.ndarray = shine / reflectance_of_flat_ground(look) + look.ambient
            return light

        ground = np.flatnonzero(hits['geomID'] == TERRAIN_GEOMETRY)
        slope, bowl, rise = self._ground(hits, ground)
        label[ground] = _ground_label(bowl, rise)
        points = origin + rays[ground] * depth[ground, None]
        rough, relief = self._roughness(points, depth[ground] / camera.fx)
        normal = np.ones_like(points)
        normal[:, :2] = -slope - rough
        # Hollows get less light from around, and dust is darker than grains.
        albedo = np.exp(look.mottling * relief)
        albedo *= (
            1 + (fresh - 1) * np.clip(4 * bowl, 0, 1) + (alpine - 1) * np.clip(rise / 4, 0, 1)
        )
        starts = points + np.array([0, 0, LIFT], np.float32)
        radiance[ground] = albedo * light_on(ground, starts, normal)

        rock = np.flatnonzero(hits['geomID'] == ROCK_GEOMETRY)
        rows = self._rocks.rows[self._rock_mesh[2][hits['primID'][rock]]]
        large = rows[:, 2] >= LABEL_DIAMETER
        label[rock] = np.where(large, ROCK, REGOLITH)
        points = origin + rays[rock] * depth[rock, None]
        rough, relief = self._roughness(points, depth[rock] / camera.fx)
        facets = hits['Ng'][rock]
        facets /= np.linalg.norm(facets, axis=1, keepdims=True)
        facets[np.einsum('nc,nc->n', facets, rays[rock]) > 0] *= -1
        starts = points + LIFT * facets
        facets[:, :2] -= 0.5 * rough
        tone = 0.8 + 0.4 * ((rows[:, 6] * 7919) % 1)
        albedo = np.exp(look.mottling * relief) * tone * (1 + (stone - 1) * large)
        radiance[rock] = albedo * light_on(rock, starts, facets)

        grain = np.random.default_rng((self._seed, 41, frame)).standard_normal(
            shape, dtype=np.float32
        )
        image = expose(radiance.reshape(shape), look, camera.width, grain)
        return View(image, depth.reshape(shape), label.reshape(shape))

    def scan(self, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Cast rays (N, 3) in the world's axes from a point (3,).

        Returns how far they go, (N,) float32 in their lengths, +Inf for sky, and the label ids
        of what they meet, (N,) uint8.
        """
        hits = self._cast(origin, rays.astype(np.float32))
        label = np.full(len(rays), SKY, np.uint8)
        ground = np.flatnonzero(hits['geomID'] == TERRAIN_GEOMETRY)
        _, bowl, rise = self._ground(hits, ground)
        label[ground] = _ground_label(bowl, rise)
        rock = np.flatnonzero(hits['geomID'] == ROCK_GEOMETRY)
        diameter = self._rocks.rows[self._rock_mesh[2][hits['primID'][rock]], 2]
        label[rock] = np.where(diameter >= LABEL_DIAMETER, ROCK, REGOLITH)
        return hits['tfar'], label

    @cached_property
    def _scene(self) -> EmbreeScene:
        scene = EmbreeScene()
        TriangleMesh(scene, self.mesh.vertices(), self.mesh.triangles())
        vertices, triangles, _ = self._rock_mesh
        if len(triangles):
            TriangleMesh(scene, vertices, triangles)
        return scene

    @cached_property
    def _rock_mesh(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._rocks.mesh(self.mesh.height_at, self.centre)

    @cached_property
    def _silhouette(self) -> EmbreeScene:
        scene = EmbreeScene()
        TriangleMesh(scene, self._silhouette_triangles)
        return scene

    def _cast(self, origin: np.ndarray, rays: np.ndarray) -> dict[str, np.ndarray]:
        origins = np.empty_like(rays)
        origins[:] = origin
        hits: dict[str, np.ndarray] = self._scene.run(origins, rays, output=True)
        hits['tfar'][hits['geomID'] < 0] = np.inf
        return hits

    def _ground(
        self, hits: dict[str, np.ndarray], chosen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return slope (N, 2), bowl (N,) and rise (N,) of `TerrainMesh` at hits on the ground."""
        column, row = self.mesh.place(hits['primID'][chosen], hits['u'][chosen], hits['v'][chosen])
        values = sample(self.mesh.cover, column, row)
        return values[:, :2], values[:, 2], values[:, 3]

    def _roughness(
        self, points: np.ndarray, footprint: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the small relief's slopes (N, 2) and its heights (N,) in standard deviations.

        A band fades where a pixel's `footprint` (N,) metres can't resolve it.
        """
        total = np.zeros((len(points), 3), np.float32)
        x, y = points[:, 0], points[:, 1]
        patch = np.ones(len(points), np.float32)
        for band in self._terrain.roughness:
            seen = np.clip(0.35 * band.noise.longest / np.maximum(footprint, 1e-6), 0, 1)
            values = band.noise.slopes_and_height_at(x, y)
            # The finer bands lie in patches: grit on the coarsest one's crests, dust between.
            seen *= patch
            values *= seen[:, None] * np.array([band.height, band.height, 1], np.float32)
            if band is self._terrain.roughness[0]:
                patch = np.clip(np.exp(0.6 * values[:, 2]), 0.3, 1.6)
                # Broad hollows darken most: less of their sky is free.
                values[:, 2] *= 2.5
            total += values
        return total[:, :2], total[:, 2]

    def _sunlight(self, starts: np.ndarray, body: Pose, sun: np.ndarray) -> np.ndarray:
        """Return the share of the sun that ground, rocks and rover leave to points (N, 3)."""
        towards = np.empty_like(starts)
        towards[:] = sun
        light = (self._scene.run(starts, towards, query='OCCLUDED') < 0).astype(np.float32)
        # The rover's shadow, sought where it can fall, has the soft edges of LuSNAR's.
        away = -sun[:2] / np.hypot(*sun[:2])
        dx, dy = (starts[:, k] - np.float32(body.position[k]) for k in (0, 1))
        along, across = dx * away[0] + dy * away[1], dy * away[0] - dx * away[1]
        in_strip = (np.abs(across) < SHADOW_HALF_WIDTH) & (along > -1) & (along < SHADOW_REACH)
        near = np.flatnonzero((light > 0) & in_strip)
        starts = (starts[near] - body.position.astype(np.float32)) @ body.rotation.astype(
            np.float32
        )
        share = np.zeros(len(near), np.float32)
        for offset in PENUMBRA:
            towards = np.empty_like(starts)
            towards[:] = (sun + offset) @ body.rotation
            share += self._silhouette.run(starts, towards, query='OCCLUDED') < 0
        light[near] = share / len(PENUMBRA)
        return light


def _ground_label(bowl: np.ndarray, rise: np.ndarray) -> np.ndarray:
    return np.where(rise > LABEL_HEIGHT, MOUNTAIN, np.where(bowl > 0, CRATER, REGOLITH))


@lru_cache(maxsize=2)
def _pixel_rays(camera: PinholeCamera) -> tuple[np.ndarray, np.ndarray]:
    """Return a camera's rays (N, 3) float32 in its optical frame, z = 1, and their lengths."""
    rays = camera.rays().reshape(-1, 3).astype(np.float32)
    return rays, np.linalg.norm(rays, axis=1)


def reflectance_of_flat_ground(look: Look) -> float:
    """Return the reflectance of level ground seen 20° above it, the unit of radiance."""
    incidence, emission = np.array([look.sun[2]]), np.array([np.sin(np.radians(20))])
    return float(reflectance(incidence, emission, look.lunar_lambert)[0])
