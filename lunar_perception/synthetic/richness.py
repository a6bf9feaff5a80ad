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

"""
How many craters, rocks and mountains a scene shows, spread evenly over the scenes of a set.

What nine independent scenes show of the rare classes scatters by a third and more. So a scene of
a set is given how much it is to show, drawn by strata; its landscape is drawn many times, and the
one that comes nearest by the estimates of `outlook` is kept. Nothing else about it is chosen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

CANDIDATES = 48
"""Landscapes of which one is kept."""

CRATERS = (0.0046, 0.0084, 0.0117, 0.0152, 0.0186, 0.0235, 0.0307, 0.0445, 0.0777)
ROCKS = (0.049, 0.074, 0.1, 0.132, 0.168, 0.219, 0.278, 0.352, 0.526)
MOUNTAINS = (0.0, 0.0054, 0.0176, 0.0263, 0.035, 0.0458, 0.057, 0.0746, 0.0983)
"""
What single draws show, as `outlook` estimates it: the means of each ninth of 480 landscapes'.

Rendered, landscapes of these show about LuSNAR's shares.
"""

STRATA = len(CRATERS)
"""Scenes that hold each stratum once, however many a set has; LuSNAR has nine."""

T = TypeVar('T')


@dataclass(frozen=True)
class Richness:
    """
    How much of the rare classes a scene is to show.

    Fields:
        craters, rocks, mountains: as `outlook` estimates them, about steradians.

    """

    craters: float
    rocks: float
    mountains: float


def richness_in_set(seed: int, number: int) -> Richness:
    """
    Return the richness of scene `number` (from 1) of the set `seed`.

    Any nine scenes in a row hold each ninth of a class's distribution once (a Latin hypercube;
    McKay et al. 1979, doi:10.2307/1268522); within its ninth a scene falls anywhere.
    """
    of_set = np.random.default_rng((seed, 51))
    within = np.random.default_rng((seed, 52, number)).random(3)
    craters, rocks, mountains = (
        float(
            np.interp(of_set.permutation(STRATA)[(number - 1) % STRATA] + u - 0.5, *_ninths(table))
        )
        for u, table in zip(within, (CRATERS, ROCKS, MOUNTAINS), strict=True)
    )
    return Richness(craters, rocks, mountains)


def choose(
    rng: np.random.Generator,
    draw: Callable[[np.random.Generator], T],
    shown: Callable[[T], float],
    target: float | None,
) -> T:
    """Draw several times and return what shows nearest to `target`; None: draw once."""
    if target is None:
        return draw(rng.spawn(1)[0])
    candidates = [draw(stream) for stream in rng.spawn(CANDIDATES)]
    return min(candidates, key=lambda candidate: abs(shown(candidate) - target))


def _ninths(table: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(STRATA), np.array(table)
