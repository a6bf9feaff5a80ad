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

"""Times of programs that are run in turn, and what to say of them."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import perf_counter, sleep
from typing import Any

Program = Callable[[], Any]

REST_S = 0.05
"""Threads that worked for one program watch for more for milliseconds, at the next one's cost."""


def run_in_turn(
    programs: Mapping[str, Program],
    repeats: int,
    *,
    warm_ups: int = 1,
    synchronise: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """
    Return the seconds of each run of each program, by name.

    In every round each program runs once, and every second round goes backwards, so that a
    machine that slows down or speeds up does so for all alike. `warm_ups` rounds go before and
    are not counted. `synchronise` waits for a device that works on by itself. Each program
    starts after `REST_S` of rest.
    """
    times: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(-warm_ups, repeats):
        names = list(programs)
        if number % 2:
            names.reverse()
        for name in names:
            synchronise()
            sleep(REST_S)
            start = perf_counter()
            programs[name]()
            synchronise()
            if number >= 0:
                times[name].append(perf_counter() - start)
    return times


def spread(samples: Sequence[float], digits: int = 6) -> dict[str, float | int]:
    """
    Return median, least and most of the samples, and how many there are.

    Raises ValueError when there is none.
    """
    if not samples:
        raise ValueError('there are no samples')
    return {
        'median': round(median(samples), digits),
        'least': round(min(samples), digits),
        'most': round(max(samples), digits),
        'samples': len(samples),
    }


def spreads(times: Mapping[str, Sequence[float]], scale: float = 1e3) -> dict[str, dict[str, Any]]:
    """Return the spread of each program's times; in milliseconds, unless `scale` says else."""
    return {name: spread([scale * t for t in samples], 3) for name, samples in times.items()}


def percentile(samples: Sequence[float], share: float) -> float:
    """
    Return the least sample that at least `share` per cent of all do not exceed.

    This is the nearest-rank percentile: always one of the samples. Raises ValueError when there
    is none, and for a share that is not above 0 and at most 100.
    """
    if not samples or not 0 < share <= 100:
        raise ValueError(f'no {share}th percentile of {len(samples)} samples')
    rank = -(-len(samples) * share // 100)
    return sorted(samples)[int(rank) - 1]
