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

What nine independent scenes show of the rare classes scatters by a third and more. So a landscape
is drawn several times, and the one whose rank among them matches the scene's quantile is kept.
When the quantile is uniform, the kept one is distributed as a single draw would be; when the
quantiles of a set are stratified, so is what its scenes show.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

STRATA = 9
"""Scenes that hold each stratum once, however many a set has; LuSNAR has nine."""

CANDIDATES = 64
"""Landscapes of which one is kept."""

T = TypeVar('T')


@dataclass(frozen=True)
class Richness:
    """
    How much of a class a scene shows among scenes like it, as quantiles in [0, 1).

    Fields:
        craters, rocks, mountains: 0.5 is the median; the largest is the richest of 64.

    """

    craters: float
    rocks: float
    mountains: float

    def __post_init__(self) -> None:
        for quantile in (self.craters, self.rocks, self.mountains):
            if not 0 <= quantile < 1:
                raise ValueError(f'richness {quantile} is no quantile in [0, 1)')


def richness_in_set(seed: int, number: int) -> Richness:
    """
    Return the richness of scene `number` (from 1) of the set `seed`.

    Any nine scenes in a row hold each ninth of the quantiles once (a Latin hypercube; McKay et
    al. 1979, doi:10.2307/1268522); within the middle half of its ninth a quantile is uniform, so
    that no single extreme scene decides what nine of them show.
    """
    of_set = np.random.default_rng((seed, 51))
    stratum = [of_set.permutation(STRATA)[(number - 1) % STRATA] for _ in range(3)]
    within = np.random.default_rng((seed, 52, number)).uniform(0.25, 0.75, 3)
    craters, rocks, mountains = ((np.array(stratum) + within) / STRATA).tolist()
    return Richness(craters, rocks, mountains)


def choose(
    rng: np.random.Generator,
    draw: Callable[[np.random.Generator], T],
    shown: Callable[[T], float],
    quantile: float | None,
) -> T:
    """Draw several times and return the one of that quantile in `shown`; None: draw once."""
    if quantile is None:
        return draw(rng.spawn(1)[0])
    candidates = sorted((draw(stream) for stream in rng.spawn(CANDIDATES)), key=shown)
    return candidates[int(quantile * CANDIDATES)]
