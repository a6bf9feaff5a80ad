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

"""Impact craters: how many, how large, what shape."""

from dataclasses import dataclass

from lunar_perception.synthetic.noise import periodic_profile
import numpy as np


@dataclass(frozen=True)
class Crater:
    """
    A simple bowl crater with a raised rim.

    Fields:
        x, y: centre in metres. radius: to the rim's crest, metres.
        depth: rim crest to floor, metres. rim: crest above the plain, metres.
        labelled: whether it is large and fresh enough for the label 'crater'.
        outline: seed of the rim's irregular outline.

    """

    x: float
    y: float
    radius: float
    depth: float
    rim: float
    labelled: bool
    outline: int

    REACH = 3.0
    """Radii out to which the ejecta blanket raises the ground."""

    def scaled_distance(self, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
        """Return distance from the centre in units of the rim's radius in that direction."""
        rng = np.random.default_rng(self.outline)
        table = periodic_profile(rng, np.linspace(0, 2 * np.pi, 257), harmonics=5)
        radius = self.radius * (1 + 0.05 * table)
        angle = np.arctan2(dy, dx) % (2 * np.pi)
        return np.hypot(dx, dy) / np.interp(angle, np.linspace(0, 2 * np.pi, 257), radius)

    def height(self, t: np.ndarray) -> np.ndarray:
        """
        Return the height it adds at scaled distances `t`, metres.

        A parabolic bowl inside the crest; outside, the ejecta's t^-3 decay (McGetchin et al.
        1973, doi:10.1016/0012-821X(73)90162-3), brought to zero at the reach.
        """
        bowl = self.rim - self.depth * (1 - t**2)
        outside = np.clip(t, 1, None)
        fade = np.clip((self.REACH - outside) / (self.REACH - 1), 0, 1)
        blanket = self.rim * outside**-3 * fade
        # Degradation rounds the crest: a soft minimum of bowl and blanket.
        softness = max(0.15 * self.depth, 1e-3)
        return -softness * np.logaddexp(-bowl / softness, -blanket / softness)


Bounds = tuple[float, float, float, float]
"""Of a rectangle: x0, y0, x1, y1 in metres."""


def draw_craters(rng: np.random.Generator, bounds: Bounds) -> list[Crater]:
    """Draw a landscape's labelled craters: wide and shallow, as LuSNAR's are."""
    density = float(np.exp(rng.uniform(np.log(1.15e-3), np.log(1.45e-3))))
    return _draw(rng, bounds, (4.5, 10.0), density, 1.3, (0.06, 0.13), labelled=True)


def draw_pits(rng: np.random.Generator, bounds: Bounds) -> list[Crater]:
    """Draw a landscape's small craters, worn to soft pits, which count as regolith."""
    return _draw(rng, bounds, (0.35, 2.5), 0.03, 2.2, (0.02, 0.07), labelled=False)


def _draw(
    rng: np.random.Generator,
    bounds: Bounds,
    sizes: tuple[float, float],
    density: float,
    exponent: float,
    depth_over_diameter: tuple[float, float],
    *,
    labelled: bool,
) -> list[Crater]:
    """
    Draw craters of radii between two `sizes`, `density` of them a square metre.

    Cumulative numbers fall as radius^-exponent, 2 or so (the lunar equilibrium population,
    Trask 1966).
    """
    smallest, largest = sizes
    x, y = _scattered(rng, bounds, density)
    count = len(x)
    u = rng.random(count)
    ratio = (largest / smallest) ** -exponent
    radii = smallest * (1 - u * (1 - ratio)) ** (-1 / exponent)
    depths = rng.uniform(*depth_over_diameter, count) * 2 * radii
    rims = depths * rng.uniform(0.15, 0.3, count)
    outlines = rng.integers(0, 2**31, count)
    return [
        Crater(
            float(x[i]),
            float(y[i]),
            float(radii[i]),
            float(depths[i]),
            float(rims[i]),
            labelled,
            int(outlines[i]),
        )
        for i in range(count)
    ]


def _scattered(
    rng: np.random.Generator, bounds: Bounds, density: float
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return x, y (N,) of points in `bounds`, `density` of them a square metre.

    One falls in each cell of a grid: where impacts overlap, the later has erased the earlier.
    """
    x0, y0, x1, y1 = bounds
    side = density**-0.5
    corner_x, corner_y = np.meshgrid(np.arange(x0, x1, side), np.arange(y0, y1, side))
    jitter = rng.random((2, corner_x.size)) * side
    return corner_x.ravel() + jitter[0], corner_y.ravel() + jitter[1]
