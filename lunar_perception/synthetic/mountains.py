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

"""Far mountains: massifs that stand around the plain."""

from dataclasses import dataclass

from lunar_perception.synthetic.noise import FractalNoise
import numpy as np

LABEL_HEIGHT = 1.0
"""Metres that a massif rises above the plain where the label 'mountain' begins."""


@dataclass(frozen=True)
class Massif:
    """
    One mountain: a ridge across the line of sight from the plain's centre.

    Fields:
        azimuth: radians. half_width: radians to where it has sunk to the plain.
        distance: metres from the centre to its foot. height: metres, of its crest.

    """

    azimuth: float
    half_width: float
    distance: float
    height: float


@dataclass(frozen=True)
class Mountains:
    """The massifs around `centre` (x, y) metres, and the roughness they share."""

    centre: tuple[float, float]
    massifs: tuple[Massif, ...]
    ridges: FractalNoise
    ribs: FractalNoise

    def height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the height they add where lines x (W,) and y (H,) cross, (H, W) metres."""
        return self._height(
            x[None, :], y[:, None], self.ridges.on_lines(x, y), self.ribs.on_lines(x, y)
        )

    def outline_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the height they add without their roughness, at points of any shape, metres."""
        smooth = np.zeros(())
        return self._height(x, y, smooth, smooth)

    def _height(
        self, x: np.ndarray, y: np.ndarray, ridges: np.ndarray, ribs: np.ndarray
    ) -> np.ndarray:
        dx, dy = x - self.centre[0], y - self.centre[1]
        distance, azimuth = np.hypot(dx, dy), np.arctan2(dy, dx)
        height = np.zeros_like(distance)
        for massif in self.massifs:
            across = (azimuth - massif.azimuth + np.pi) % (2 * np.pi) - np.pi
            window = np.clip(1 - (across / massif.half_width) ** 2, 0, None)
            # Feet wander in and out by the roughness; flanks of about 25 to 35 degrees.
            foot = massif.distance * (1 + 0.06 * ridges)
            climb = np.clip((distance - foot) / (1.8 * massif.height), 0, None)
            flank = climb**1.3 * np.exp(-np.clip(climb - 1, 0, None) * 0.5)
            rough = 1 + 0.16 * ridges + 0.02 * np.abs(ribs)
            np.maximum(height, massif.height * window * flank * rough, out=height)
        return height


def draw_mountains(
    rng: np.random.Generator, centre: tuple[float, float], clearance: float, seed: int
) -> Mountains:
    """Draw three to seven massifs no nearer than `clearance` metres to `centre`."""
    massifs = []
    for _ in range(rng.integers(3, 8)):
        distance = clearance + float(np.exp(rng.uniform(np.log(60), np.log(600))))
        elevation = np.radians(np.exp(rng.uniform(np.log(2.1), np.log(10.9))))
        massifs.append(
            Massif(
                azimuth=float(rng.uniform(-np.pi, np.pi)),
                half_width=float(np.radians(rng.uniform(12, 45))),
                distance=distance,
                height=float(distance * np.tan(elevation)),
            )
        )
    return Mountains(
        centre,
        tuple(massifs),
        ridges=FractalNoise((seed, 21), texel=2.0, shortest=25.0, longest=260.0, hurst=0.9),
        ribs=FractalNoise((seed, 22), texel=0.5, shortest=3.0, longest=40.0, hurst=0.8),
    )
