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

"""How well two saliency maps agree: the paper's 'consistency analysis' as numbers."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import numpy as np

TOP_SHARE = 0.2
"""The share of a map's places that count as salient."""


@dataclass(frozen=True)
class Consistency:
    """
    Agreement of two maps of one size; None where a map gives nothing to compare.

    Fields:
        overlap: |A ∩ B| / |A ∪ B| of the maps' top-20 % areas; 0.11 by chance, 1 at best.
        shared: |A ∩ B| over the smaller area; 0.2 by chance, 1 at best.
        rank_correlation: Spearman's, over all places; in [−1, 1], 0 by chance.

    """

    overlap: float | None
    shared: float | None
    rank_correlation: float | None


def consistency(first: np.ndarray, second: np.ndarray) -> Consistency:
    """
    Compare two saliency maps, (H, W) float, 0 or more, larger for more salient.

    A top-20 % area has the fifth of the places with the largest values, and never one of value 0,
    so it is smaller where a map is mostly 0. Raises ValueError when the sizes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f'maps of {first.shape} and {second.shape} can not be compared')
    one, other = top_area(first), top_area(second)
    both, either = int((one & other).sum()), int((one | other).sum())
    fewer = min(int(one.sum()), int(other.sum()))
    return Consistency(
        overlap=both / either if fewer else None,
        shared=both / fewer if fewer else None,
        rank_correlation=rank_correlation(first, second),
    )


def top_area(heat: np.ndarray, share: float = TOP_SHARE) -> np.ndarray:
    """Return where the largest values are, (H, W) bool: at most `share` of all, at least one."""
    count = max(1, int(share * heat.size))
    # Of equal values at the edge the first in order of rows; any rule is as good.
    order = np.argsort(-heat, axis=None, kind='stable')[:count]
    area = np.zeros(heat.size, bool)
    area[order] = True
    return area.reshape(heat.shape) & (heat > 0)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return Spearman's rank correlation, equal values sharing a rank; None for a constant map."""
    ranks = np.stack([_ranks(first), _ranks(second)])
    deviations = ranks - ranks.mean(axis=1, keepdims=True)
    norms = np.sqrt((deviations**2).sum(axis=1))
    if not norms.all():
        return None
    return float(deviations[0] @ deviations[1] / norms.prod())


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value, equal ones sharing the mean of theirs."""
    _, inverse, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse.ravel()]


def summarise(results: Iterable[Consistency]) -> dict[str, dict[str, float | int]]:
    """
    Return the agreement over a data set: by field, `mean`, `sd` and `images` that had one.

    A field that no image had is left out.
    """
    rows = [asdict(result) for result in results]
    summary: dict[str, dict[str, float | int]] = {}
    for field in fields(Consistency):
        values = [row[field.name] for row in rows if row[field.name] is not None]
        if values:
            summary[field.name] = {
                'mean': float(np.mean(values)),
                'sd': float(np.std(values)),
                'images': len(values),
            }
    return summary
