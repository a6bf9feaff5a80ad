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

"""Rocks and pebbles: how many, how large, what shape, and their mesh."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

from lunar_perception.synthetic.noise import FractalNoise
import numpy as np

LABEL_DIAMETER = 0.18
"""Smallest rock in metres. Anything smaller is a pebble, which LuSNAR labels regolith."""

PEBBLES = (0.02, 0.10)
"""Smallest and largest pebble, metres."""

LARGEST = 3.5
CELL = 16.0
REACH = 260.0
"""Metres out to which rocks stand; beyond, the labelled ones are too small to see."""

BOULDER = (0.5, LARGEST)
BOULDER_GAP = (0.6, 6.0)
"""Smallest and largest boulder that is put ahead of a camera, and the gap before it, metres."""

ALONE = 0.6
"""How many of the boulders have no other rocks around them; half of these no pebbles either."""

ROW = 7
"""Numbers that make a rock: x, y, diameter, and four random ones."""

SHAPES = 12

DETAIL = (0.008, 0.05, 0.2, 0.45)
"""Apparent sizes, radians, from which a rock has four times the triangles."""


@dataclass(frozen=True)
class RockField:
    """
    Where rocks lie: a size-frequency law, clustered.

    Fields:
        seed: of the scene.
        abundance: rocks of at least 1 m a square metre; their cumulative number falls as
            diameter^-2 (Golombek and Rapp 1997, doi:10.1029/96JE03319, at these sizes).
        pebble_abundance: the same for pebbles, which obey their own abundance.
        clustering: a noise; rocks gather where it is high. shift: x, y metres of its origin.
        boulders: rows (N, 7) as `Rocks` has them, of what lies there beside the law.

    """

    seed: tuple[int, ...]
    abundance: float
    pebble_abundance: float
    clustering: FractalNoise
    shift: tuple[float, float]
    boulders: np.ndarray = field(default_factory=lambda: np.zeros((0, ROW)))

    def around(self, centre: tuple[float, float], smallest_angle: float) -> 'Rocks':
        """
        Return the rocks around `centre` that look at least `smallest_angle` radians wide.

        Every rock is drawn from its own cell's seed, so that it is the same one whatever the
        centre.
        """
        cells = _cells_around(np.array([centre]), REACH)
        drawn = [self._cell(cx, cy, max(d - 24.0, 3.0)) for cx, cy, d in cells]
        rocks = np.concatenate([*drawn, self.boulders])
        distance = np.hypot(rocks[:, 0] - centre[0], rocks[:, 1] - centre[1])
        # What a rover a few metres off the centre would still see.
        return Rocks(rocks[rocks[:, 2] > smallest_angle * np.clip(distance - 6.0, 0, None)])

    def labelled_near(self, places: np.ndarray, reach: float) -> 'Rocks':
        """Return the rocks, pebbles left out, that lie about `reach` metres from places (N, 2)."""
        cells = _cells_around(places, reach)
        return Rocks(np.concatenate([self._cell(cx, cy, np.inf) for cx, cy, _ in cells]))

    def _cell(self, cx: int, cy: int, distance: float) -> np.ndarray:
        # Signed cell numbers become distinct non-negative words of the seed.
        rng = np.random.default_rng((*self.seed, 31, cx % 2**20, cy % 2**20))
        drawn = []
        for abundance, smallest, largest in (
            (self.abundance, LABEL_DIAMETER, LARGEST),
            (self.pebble_abundance if distance < 20 else 0.0, *PEBBLES),
        ):
            count = rng.poisson(abundance * smallest**-2 * CELL**2)
            u = rng.random((count, 8))
            x, y = (cx + u[:, 0]) * CELL, (cy + u[:, 1]) * CELL
            diameter = smallest * (1 - u[:, 2] * (1 - (largest / smallest) ** -2)) ** -0.5
            gathering = self.clustering.at(x + self.shift[0], y + self.shift[1])
            keep = u[:, 3] < 0.4 * np.exp(0.9 * gathering)
            drawn.append(np.column_stack([x, y, diameter, u[:, 4:]])[keep])
        return np.concatenate(drawn)


@dataclass(frozen=True)
class Rocks:
    """A set of rocks: rows of x, y, diameter (metres) and four random numbers in [0, 1)."""

    rows: np.ndarray

    def where(self, keep: np.ndarray) -> 'Rocks':
        """Return the rocks for which `keep` (N,) bool holds."""
        return Rocks(self.rows[keep])

    def mesh(
        self,
        height_at: Callable[[np.ndarray, np.ndarray], np.ndarray],
        centre: tuple[float, float],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Build all rocks as triangles, partly buried in the ground.

        `height_at` gives the ground's height at points x, y; rocks far from `centre` get
        fewer triangles. Returns vertices (V, 3) float32 metres, triangles (T, 3) int32 and, for
        each triangle, its rock's row (T,) int32.
        """
        x, y, diameter, turn, squash, burial, shape = self.rows.T
        half = np.stack(
            [
                diameter / 2,
                diameter / 2 * (0.75 + 0.25 * ((shape * 977) % 1)),
                diameter / 2 * (0.55 + 0.35 * squash),
            ],
            axis=-1,
        )
        lift = height_at(x, y) + half[:, 2] * (0.55 - 0.8 * burial)
        cos, sin = np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)
        apparent = diameter / np.hypot(np.hypot(x - centre[0], y - centre[1]), 2.0)
        level = np.digitize(apparent, DETAIL)
        kind = (shape * SHAPES).astype(int)
        vertices = [np.zeros((0, 3), np.float32)]
        triangles = [np.zeros((0, 3), np.int32)]
        owners = [np.zeros(0, np.int32)]
        first = 0
        for index, detail in np.ndindex(SHAPES, len(DETAIL) + 1):
            chosen = np.flatnonzero((kind == index) & (level == detail))
            block, faces = _shape(index, detail)
            local = block * half[chosen][:, None]  # (rocks, vertices, 3)
            c, s = cos[chosen][:, None], sin[chosen][:, None]
            placed = np.stack(
                [
                    local[..., 0] * c - local[..., 1] * s + x[chosen][:, None],
                    local[..., 0] * s + local[..., 1] * c + y[chosen][:, None],
                    local[..., 2] + lift[chosen][:, None],
                ],
                axis=-1,
            )
            starts = first + len(block) * np.arange(len(chosen))
            vertices.append(placed.reshape(-1, 3).astype(np.float32))
            triangles.append((faces + starts[:, None, None]).reshape(-1, 3).astype(np.int32))
            owners.append(np.repeat(chosen, len(faces)).astype(np.int32))
            first += len(block) * len(chosen)
        return np.concatenate(vertices), np.concatenate(triangles), np.concatenate(owners)


def draw_rock_field(rng: np.random.Generator, clustering: FractalNoise) -> RockField:
    """Draw where one landscape's rocks lie."""
    return RockField(
        tuple(rng.integers(0, 2**32, 2).tolist()),
        abundance=float(np.exp(rng.uniform(np.log(0.005), np.log(0.045)))),
        pebble_abundance=float(rng.uniform(0.005, 0.025)),
        clustering=clustering,
        shift=(float(rng.uniform(0, clustering.period)), float(rng.uniform(0, clustering.period))),
    )


def add_boulder(
    rocks: RockField, rng: np.random.Generator, eye: np.ndarray, half_width: float
) -> RockField:
    """
    Return the rocks with a boulder in sight of `eye` (x, y, heading).

    It lies at most `half_width` radians to a side; what else lies there may be taken away.
    """
    diameter = np.exp(rng.uniform(*np.log(BOULDER)))
    # As many between 0.6 and 1.3 metres, cut by the image's lower edge, as between 2.8 and 6.
    distance = diameter / 2 + np.exp(rng.uniform(*np.log(BOULDER_GAP)))
    bearing = eye[2] + 0.8 * half_width * rng.uniform(-1, 1)
    place = eye[:2] + distance * np.array([np.cos(bearing), np.sin(bearing)])
    rocks = replace(rocks, boulders=np.array([[*place, diameter, *rng.random(ROW - 3)]]))
    if rng.random() < ALONE:
        pebbles = rocks.pebble_abundance * (rng.random() < 0.5)
        rocks = replace(rocks, abundance=0.0, pebble_abundance=pebbles)
    return rocks


def rock_clusters(seed: int) -> FractalNoise:
    """Return the noise by which one landscape's rocks gather."""
    return FractalNoise((seed, 32), texel=1.0, shortest=6.0, longest=90.0, hurst=0.3)


def _cells_around(places: np.ndarray, reach: float) -> list[tuple[int, int, float]]:
    """Return numbers of the cells whose middles lie within `reach` of places, and how near."""
    first = np.floor((places.min(0) - reach) / CELL).astype(int)
    last = np.floor((places.max(0) + reach) / CELL).astype(int)
    cells = np.stack(np.meshgrid(*map(np.arange, first, last + 1), indexing='ij'), -1)
    cells = cells.reshape(-1, 2)
    middles = (cells + 0.5) * CELL
    distance = np.linalg.norm(middles[:, None] - places, axis=-1).min(1)
    near = distance < reach
    return [
        (int(x), int(y), float(d)) for (x, y), d in zip(cells[near], distance[near], strict=True)
    ]


@cache
def _shape(index: int, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (V, 3) and faces (F, 3) of a block: a unit ball cut by random planes."""
    rng = np.random.default_rng((97, index))
    planes = rng.standard_normal((rng.integers(11, 22), 3))
    planes /= np.linalg.norm(planes, axis=1, keepdims=True)
    offsets = rng.uniform(0.55, 0.95, len(planes))
    vertices, faces = _icosphere(level)
    facing = vertices @ planes.T
    cut = np.where(facing > 0.05, offsets / np.clip(facing, 0.05, None), np.inf).min(1)
    radius = np.minimum(cut, 1.15) * (1 + 0.05 / 2.4**level * rng.standard_normal(len(vertices)))
    return vertices * radius[:, None], faces


@cache
def _icosphere(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (V, 3) and outward faces (F, 3) of a ball, 20 · 4^level triangles."""
    golden = (1 + 5**0.5) / 2
    axes = [(-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0)]
    vertices = [np.roll(axis, shift) for shift in range(3) for axis in axes]
    points = np.array(vertices, float) / np.hypot(1, golden)
    # The twenty faces are the triples of mutually nearest vertices.
    near = np.linalg.norm(points[:, None] - points[None], axis=-1) < 1.1
    faces = np.array(
        [
            (i, j, k)
            for i in range(12)
            for j in range(i + 1, 12)
            for k in range(j + 1, 12)
            if near[i, j] and near[j, k] and near[i, k]
        ]
    )
    for _ in range(level):
        edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2))
        edges, edge_of = np.unique(edges, axis=0, return_inverse=True)
        a, b, c = faces.T
        ab, bc, ca = (len(points) + edge_of.reshape(-1, 3)).T
        corners = ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))
        faces = np.concatenate([np.stack(triangle, -1) for triangle in corners])
        middles = points[edges].sum(1)
        points = np.concatenate([points, middles / np.linalg.norm(middles, axis=1)[:, None]])
    corner = points[faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    inward = np.einsum('fi,fi->f', normal, corner.mean(1)) < 0
    faces[inward] = faces[inward][:, ::-1]
    return points, faces
