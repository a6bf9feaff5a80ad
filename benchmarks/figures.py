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

"""Figures that are worked out of measurements."""

from collections.abc import Callable, Sequence

ALLOWED_LOSS = 0.05
TRIALS = 6


def highest_rate(loss_at: Callable[[float], float], start: float, trials: int = TRIALS) -> float:
    """
    Return the highest rate in Hz that was seen to lose at most `ALLOWED_LOSS` of its frames.

    `loss_at` tries a rate and tells which share was lost. The search goes up from `start` by
    half, or down by a third, until it has a rate that holds and one that does not, and halves
    what lies between them; 0 when no rate of all `trials` holds.
    """
    holds, fails, rate = 0.0, float('inf'), start
    for _ in range(trials):
        if loss_at(rate) <= ALLOWED_LOSS:
            holds = max(holds, rate)
        else:
            fails = min(fails, rate)
        if fails == float('inf'):
            rate = holds * 1.5
        elif holds == 0:
            rate = fails / 1.5
        else:
            rate = (holds + fails) / 2
    return holds


def growth(rows: Sequence[tuple[int, float]]) -> float:
    """Return the last value over that after a tenth of the way; rows are (place, value)."""
    end, last = rows[-1]
    early = next(value for place, value in rows if place >= end / 10)
    return last / early
