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

"""The ground: relief, craters and mountains as one height field, and its mesh."""

from dataclasses import dataclass, replace
from functools import cached_property, partial

from lunar_perception.synthetic.craters import Crater, draw_craters, draw_pits
from lunar_perception.synthetic.mountains import draw_mountains, Mountains
from lunar_perception.synthetic.noise import FractalNoise
from lunar_perception.synthetic.outlook import Outlook
from lunar_perception.synthetic.richness import choose, Richness
import numpy as np

HORIZON = 2500.0
"""Metres to the mesh's edge; the Moon's own horizon at eye height 1.5 m is 2.3 km away."""


NEAR = 8.0
"""Metres from a mesh's centre within which it is finest."""


@dataclass(frozen=True)
class Roughness:
    """One band of small relief: a noise and the root mean square of its height, metres."""

    noise: FractalNoise
    height: float


@dataclass(frozen=True)
class Terrain:
    """
    The ground of one scene, x forward, y left, z up, metres.

    Fields:
        undulation: relief wide enough for the mesh to carry its shading.
        roughness: smaller relief, coarsest first; the last is too fine for the mesh and
            only roughens the shading.
        craters, mountains: what stands on it.

    """

    undulation: Roughness
    roughness: tuple[Roughness, ...]
    craters: tuple[Crater, ...]
    mountains: Mountains

    def levelled(self) -> 'Terrain':
        """Return this ground with its small relief and mountains alone: no craters, no swells."""
        swells, *small = self.roughness
        return replace(
            self,
            undulation=replace(self.undulation, height=0.0),
            roughness=(replace(swells, height=0.0), *small),
            craters=(),
        )

    def mesh(self, centre: tuple[float, float], spacing: float, growth: float) -> 'TerrainMesh':
        """
        Build the mesh around `centre`.

        Its lines are `spacing` metres apart out to NEAR, and from there each gap is
        1 + growth times the last one, so that every triangle looks about equally small.
        """
        offsets = _offsets(NEAR, spacing, growth)
        x, y = centre[0] + offsets, centre[1] + offsets
        mountain = self.mountains.height(x, y)
        smooth = self.undulation.noise.on_lines(x, y) * self.undulation.height + mountain
        bowl = np.full(smooth.shape, -1.0, np.float32)
        gaps = np.gradient(offsets)
        for crater in self.craters:
            self._add_crater(crater, x, y, gaps, smooth, bowl)
        dz_dy, dz_dx = np.gradient(smooth, y, x)
        height = smooth
        for band in self.roughness[:-1]:
            height = height + band.noise.on_lines(x, y) * band.height
        return TerrainMesh(
            x=x,
            y=y,
            z=height.astype(np.float32),
            slope=np.stack([dz_dx, dz_dy], -1).astype(np.float32),
            bowl=bowl,
            mountain=mountain.astype(np.float32),
        )

    def ground_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """
        Return the plain's heights at points x, y (N,), metres, as a rover's wheels feel it.

        Mountains and what is shorter than a wheelbase are left out.
        """
        height = np.zeros(len(x))
        for band in (self.undulation, self.roughness[0]):
            height += band.noise.at(x, y) * band.height
        for crater in self.craters:
            dx, dy = x - crater.x, y - crater.y
            near = np.hypot(dx, dy) < crater.REACH * crater.radius * 1.2
            if near.any():
                height[near] += crater.height(crater.scaled_distance(dx[near], dy[near]))
        return height

    @staticmethod
    def _add_crater(
        crater: Crater,
        x: np.ndarray,
        y: np.ndarray,
        gaps: np.ndarray,
        smooth: np.ndarray,
        bowl: np.ndarray,
    ) -> None:
        reach = crater.REACH * crater.radius * 1.2
        i0, i1 = np.searchsorted(y, (crater.y - reach, crater.y + reach))
        j0, j1 = np.searchsorted(x, (crater.x - reach, crater.x + reach))
        if i1 - i0 < 3 or j1 - j0 < 3 or crater.radius < 1.5 * min(gaps[i0:i1].max(), 1e3):
            return  # outside, or too small for the mesh out there
        window = np.s_[i0:i1, j0:j1]
        t = crater.scaled_distance(x[None, j0:j1] - crater.x, y[i0:i1, None] - crater.y)
        smooth[window] += crater.height(t)
        if crater.labelled:
            np.maximum(bowl[window], 1 - t, out=bowl[window])


@dataclass(frozen=True)
class TerrainMesh:
    """
    The height field's samples where lines x (W,) and y (H,) cross.

    Fields:
        x, y: metres. z: heights (H, W) float32 metres.
        slope: (∂z/∂x, ∂z/∂y) of the smooth relief, (H, W, 2) float32.
        bowl: positive inside labelled craters, (H, W) float32.
        mountain: metres that mountains rise above the plain, (H, W) float32.

    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    slope: np.ndarray
    bowl: np.ndarray
    mountain: np.ndarray

    def vertices(self) -> np.ndarray:
        """Return the vertices row by row, (H · W, 3) float32 metres."""
        vertices = np.empty((*self.z.shape, 3), np.float32)
        vertices[..., 0] = self.x
        vertices[..., 1] = self.y[:, None]
        vertices[..., 2] = self.z
        return vertices.reshape(-1, 3)

    def triangles(self) -> np.ndarray:
        """Return the triangles' vertex indices, counter-clockwise from above, (T, 3) int32."""
        height, width = self.z.shape
        corner = (np.arange(height - 1)[:, None] * width + np.arange(width - 1)).ravel()
        a, b, c, d = corner, corner + 1, corner + width, corner + width + 1
        return np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)]).astype(np.int32)

    def place(
        self, triangle: np.ndarray, u: np.ndarray, v: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return columns and rows (N,) of points given by triangle and barycentric u, v (N,)."""
        cells = self.z.size - sum(self.z.shape) + 1
        upper = triangle >= cells
        row, column = np.divmod(triangle - cells * upper, self.z.shape[1] - 1)
        # The triangles of a cell are (a, b, c) and (b, d, c), see `triangles`.
        return (
            np.where(upper, column + 1 - v, column + u).astype(np.float32),
            np.where(upper, row + u + v, row + v).astype(np.float32),
        )

    @cached_property
    def cover(self) -> np.ndarray:
        """Slope, bowl and mountain beside each other, (H, W, 4) float32."""
        return np.dstack([self.slope, self.bowl, self.mountain])

    def height_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the ground's heights at points x, y (N,) inside the mesh, (N,) metres."""
        return self._between(self.z, x, y)

    def mountain_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return how high mountains rise at points x, y (N,) inside the mesh, (N,) metres."""
        return self._between(self.mountain, x, y)

    def _between(self, values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        j = np.clip(np.searchsorted(self.x, x) - 1, 0, len(self.x) - 2)
        i = np.clip(np.searchsorted(self.y, y) - 1, 0, len(self.y) - 2)
        u = (x - self.x[j]) / (self.x[j + 1] - self.x[j])
        v = (y - self.y[i]) / (self.y[i + 1] - self.y[i])
        near = values[i, j] * (1 - u) + values[i, j + 1] * u
        far = values[i + 1, j] * (1 - u) + values[i + 1, j + 1] * u
        return near * (1 - v) + far * v


def draw_terrain(
    rng: np.random.Generator,
    seed: int,
    path: np.ndarray,
    keep_clear: float,
    outlook: Outlook | None = None,
    richness: Richness | None = None,
    relief: float = 1.0,
) -> Terrain:
    """
    Draw the ground around a path (N, 2) metres; craters keep `keep_clear` metres off it.

    With both given, craters and mountains are as `richness` says, as far as `outlook` can tell.
    The small relief's heights are multiplied by `relief`.
    """
    low, high = path.min(0), path.max(0)
    centre = (low + high) / 2
    bounds = (low[0] - 100, low[1] - 100, high[0] + 100, high[1] + 100)
    clearance = float(np.hypot(*(high - low)) / 2)
    crater_stream, pit_stream, mountain_stream, relief_stream = rng.spawn(4)

    def mountain_view(mountains: Mountains) -> float:
        assert outlook is not None
        return outlook.of_mountains(mountains.outline_at)

    mountains = choose(
        mountain_stream,
        partial(
            draw_mountains,
            centre=(float(centre[0]), float(centre[1])),
            clearance=clearance,
            seed=seed,
        ),
        mountain_view,
        richness.mountains if richness else None,
    )
    plain = Terrain(*_draw_relief(relief_stream, seed, relief), (), mountains)

    def draw_clear_craters(stream: np.random.Generator) -> list[Crater]:
        gaps = (
            (c, np.hypot(path[:, 0] - c.x, path[:, 1] - c.y).min() - c.radius)
            for c in draw_craters(stream, bounds)
        )
        return [crater for crater, gap in gaps if gap > keep_clear]

    def crater_view(craters: list[Crater]) -> float:
        assert outlook is not None
        rows = np.array([(c.x, c.y, c.radius, c.rim) for c in craters]).reshape(-1, 4)
        return outlook.of_craters(rows, plain.ground_at)

    craters = choose(
        crater_stream, draw_clear_craters, crater_view, richness.craters if richness else None
    )
    return replace(plain, craters=(*craters, *draw_pits(pit_stream, bounds)))


def _draw_relief(
    rng: np.random.Generator, seed: int, relief: float
) -> tuple[Roughness, tuple[Roughness, ...]]:
    """
    Return a terrain's undulation and roughness.

    Over half a metre, ground between craters slopes by 5 to 8 degrees in the median, and by more
    than 20 hardly anywhere: rovers drive here.
    """
    undulation = FractalNoise((seed, 11), texel=3.0, shortest=20.0, longest=350.0, hurst=0.95)
    broad = FractalNoise((seed, 12), texel=0.25, shortest=1.6, longest=22.0, hurst=0.6)
    middle = FractalNoise((seed, 13), texel=0.04, shortest=0.25, longest=1.8)
    fine = FractalNoise((seed, 14), texel=0.008, shortest=0.03, longest=0.3, hurst=0.6)
    return Roughness(undulation, float(np.exp(rng.uniform(np.log(0.15), np.log(1.6))))), (
        Roughness(broad, relief**0.5 * float(rng.uniform(0.1, 0.17))),
        Roughness(middle, relief * float(rng.uniform(0.011, 0.021))),
        Roughness(fine, relief * float(rng.uniform(0.002, 0.0055))),
    )


def _offsets(reach: float, spacing: float, growth: float) -> np.ndarray:
    near = np.arange(0, reach, spacing)
    gaps = [spacing]
    total = near[-1]
    while total < HORIZON:
        gaps.append(gaps[-1] * (1 + growth))
        total += gaps[-1]
    far = near[-1] + np.cumsum(gaps[1:])
    half = np.concatenate([near[1:], far])
    return np.concatenate([-half[::-1], [0.0], half])
