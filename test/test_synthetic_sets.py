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
"""The scenes of a set: how much of the rare classes they show is spread evenly over them."""

from lunar_perception.synthetic import Moon, MoonConfig
from lunar_perception.synthetic.outlook import Outlook
from lunar_perception.synthetic.richness import choose, Richness, richness_in_set, STRATA
from lunar_perception.taxonomy import LUNAR_TERRAIN
import numpy as np
import pytest


def test_any_nine_scenes_in_a_row_hold_each_ninth_once() -> None:
    for seed in range(3):
        drawn = [richness_in_set(seed, number) for number in range(1, 24)]
        values = np.array([(r.craters, r.rocks, r.mountains) for r in drawn])
        for start in range(len(values) - STRATA + 1):
            ninths = (values[start : start + STRATA] * STRATA).astype(int)
            assert np.array_equal(np.sort(ninths, 0), np.arange(STRATA)[:, None].repeat(3, 1))
    assert richness_in_set(1, 5) != richness_in_set(2, 5)


def test_chosen_candidates_are_distributed_as_single_ones_are() -> None:
    """Over uniform quantiles, whatever the shape of the distribution."""
    rng = np.random.default_rng(1)
    chosen = [
        choose(rng, lambda r: r.exponential(), lambda value: value, quantile)
        for quantile in rng.random(800)
    ]
    at = np.sort(chosen)
    assert np.abs(1 - np.exp(-at) - np.linspace(0, 1, len(at))).max() < 0.06  # Kolmogorov
    low, high = (choose(rng, lambda r: r.random(), lambda v: v, q) for q in (0.05, 0.95))
    assert low < 0.3 < 0.7 < high


def test_rich_scenes_show_more_than_poor_ones() -> None:
    """In rendered labels, of the same seed; and unset richness is left to chance."""
    shares = []
    for quantile in (0.1, 0.9):
        config = MoonConfig(3, 64, frame_interval=3.0, richness=Richness(*[quantile] * 3))
        labels = np.stack([frame.label for frame in Moon(config).frames(2)])
        shares.append(np.bincount(labels.ravel(), minlength=5) / labels.size)
    poor, rich = shares
    for name in ('crater', 'rock', 'mountain'):
        k = LUNAR_TERRAIN.id_of(name)
        assert rich[k] > 2 * poor[k]
        assert rich[k] > 0.005
    with pytest.raises(ValueError, match=r'richness 1\.0 is no quantile'):
        Richness(0.2, 1.0, 0.3)


def test_outlook_by_hand() -> None:
    """A bowl of 5 m at 20 m, seen from 1.5 m: above, hidden by a wall, and out of the view."""
    ahead = Outlook(np.array([[0.0, 0.0, 0.0]]), height=1.5, half_width=0.7)
    bowl = np.array([[20.0, 0.0, 5.0, 0.0]])
    level = np.zeros_like
    # An ellipse as wide as the bowl, between 1.5 m below the eye at 15 m and at 25 m.
    by_hand = np.pi / 2 * np.arctan(0.25) * (1.5 / 15 - 1.5 / 25)
    assert ahead.of_craters(bowl, lambda x, y: level(x)) == pytest.approx(by_hand)
    assert ahead.of_craters(bowl, lambda x, y: 3.0 * ((x > 5) & (x < 13))) == 0
    behind = bowl * [-1, 1, 1, 1]
    assert ahead.of_craters(behind, lambda x, y: level(x)) == 0
    rocks = np.array([[10.0, 0.0, 1.0], [-10.0, 0.0, 9.0], [0.5, 0.0, 9.0], [80.0, 0.0, 9.0]])
    assert ahead.of_rocks(rocks) == pytest.approx(0.01)
    assert ahead.of_mountains(lambda x, y: 0.1 * np.hypot(x, y)) == pytest.approx(0.1)
