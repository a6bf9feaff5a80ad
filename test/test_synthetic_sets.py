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

import cv2
from lunar_perception.synthetic import Moon, MoonConfig
from lunar_perception.synthetic.outlook import Outlook
from lunar_perception.synthetic.richness import (
    choose,
    CRATERS,
    MOUNTAINS,
    Richness,
    richness_in_set,
    ROCKS,
    STRATA,
)
from lunar_perception.synthetic.rocks import (
    add_boulder,
    ALONE,
    BOULDER,
    draw_rock_field,
    rock_clusters,
)
from lunar_perception.synthetic.terrain import draw_terrain
from lunar_perception.taxonomy import LUNAR_TERRAIN
import numpy as np
import pytest


def test_any_nine_scenes_in_a_row_hold_each_ninth_once() -> None:
    """So that sums over them, and with these a set's class shares, hardly scatter."""
    tables = (CRATERS, ROCKS, MOUNTAINS)
    for seed in range(3):
        drawn = [richness_in_set(seed, number) for number in range(1, 24)]
        values = np.array([(r.craters, r.rocks, r.mountains) for r in drawn])
        places = [
            np.interp(v, table, np.arange(STRATA))
            for v, table in zip(values.T, tables, strict=True)
        ]
        for start in range(len(values) - STRATA + 1):
            stop = start + STRATA
            for place, column, table in zip(places, values.T, tables, strict=True):
                assert np.abs(np.sort(place[start:stop]) - np.arange(STRATA)).max() <= 0.5
                assert column[start:stop].sum() == pytest.approx(sum(table), rel=0.25)
    assert richness_in_set(1, 5) != richness_in_set(2, 5)


def test_what_shows_nearest_to_the_target_is_chosen() -> None:
    rng = np.random.default_rng(1)
    for target in (0.2, 0.5, 0.9):
        chosen = choose(rng, lambda r: r.random(), lambda value: value, target)
        assert chosen == pytest.approx(target, abs=0.1)
    by_chance = [choose(rng, lambda r: r.random(), lambda value: value, None) for _ in range(99)]
    assert np.ptp(by_chance) > 0.8


def test_rich_scenes_show_more_than_poor_ones() -> None:
    """In rendered labels of the same seed."""
    shares = []
    for ninth in (1, 7):
        richness = Richness(CRATERS[ninth], ROCKS[ninth], MOUNTAINS[ninth])
        config = MoonConfig(3, 64, frame_interval=3.0, richness=richness)
        labels = np.stack([frame.label for frame in Moon(config).frames(2)])
        shares.append(np.bincount(labels.ravel(), minlength=5) / labels.size)
    poor, rich = shares
    for name in ('crater', 'rock', 'mountain'):
        k = LUNAR_TERRAIN.id_of(name)
        assert rich[k] > 2 * poor[k]
        assert rich[k] > 0.005


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


@pytest.mark.parametrize('relief', [0.75, 1.0, 1.2])
def test_ground_between_craters_is_as_even_as_rovers_drive_on(relief: float) -> None:
    """By planes through half a metre of the relief that a wheel feels."""
    cell = 0.1
    x, y = np.meshgrid(np.arange(0, 30, cell), np.arange(0, 30, cell), indexing='ij')
    medians, steep = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        terrain = draw_terrain(rng, seed, np.array([[0.0, 0.0], [30.0, 0.0]]), 3.5, relief=relief)
        height = sum(
            band.noise.at(x.ravel(), y.ravel()) * band.height
            for band in (terrain.undulation, *terrain.roughness[:2])
        ).reshape(x.shape)
        smooth = cv2.blur(height, (5, 5))
        slope = np.degrees(np.arctan(np.hypot(*np.gradient(smooth, cell))))
        medians.append(np.median(slope))
        steep.append((slope > 20).mean())
    print(f'relief {relief}: medians {np.round(medians, 1)}°, {np.mean(steep):.2%} over 20°')
    assert min(medians) > 3 and max(medians) < 11
    assert np.mean(steep) < 0.05


def test_level_ground_is_the_same_scene_without_its_hazards() -> None:
    """What rises out of the plane of the wheels is a rock or a mountain."""
    crater = LUNAR_TERRAIN.id_of('crater')
    uneven, level = (
        next(Moon(MoonConfig(3, size=96, level=flat)).frames(1)) for flat in (False, True)
    )
    assert (uneven.label == crater).any() and not (level.label == crater).any()
    assert abs(level.body.position[2]) < 0.01 and abs(level.body.rotation[2, 0]) < 0.01


def test_relief_makes_the_same_scene_steeper() -> None:
    """Twice the height of its small relief is twice its slope, and nothing else of it."""
    cell = 0.1
    x = np.arange(-6.0, 6.0, cell)
    columns, rows = (axis.ravel() for axis in np.meshgrid(x, x))
    slopes = []
    for relief in (1.0, 2.0):
        moon = Moon(MoonConfig(3, size=96, level=True, relief=relief))
        mesh = next(moon.frames(1)).renderer.mesh
        height = mesh.height_at(columns, rows).reshape(len(x), len(x))
        slopes.append(np.median(np.hypot(*np.gradient(height, cell))))
    assert slopes[1] == pytest.approx(2 * slopes[0], rel=0.05)


def test_a_boulder_lies_close_ahead_of_where_the_drive_ends() -> None:
    """In sight of most last frames (an edge or a mountain's foot may hide it), large and near."""
    rock = LUNAR_TERRAIN.id_of('rock')
    widths, suns = [], []
    for seed in range(8):
        moon = Moon(MoonConfig(seed, size=96, mount=None, boulder=True))
        *_, last = moon.frames(2)
        near = (last.label == rock) & (last.depth < 9.5)
        widths.append(near.any(0).mean())
        suns.append(moon.look.sun[0])
    assert np.median(widths) > 0.1, widths
    assert min(suns) < -0.3 and max(suns) > 0.3, suns


def test_most_boulders_are_the_only_rock() -> None:
    rocks = draw_rock_field(np.random.default_rng(1), rock_clusters(1))
    drawn = [
        add_boulder(rocks, np.random.default_rng(seed), np.zeros(3), 0.6) for seed in range(300)
    ]
    alone = [field for field in drawn if field.abundance == 0]
    assert len(alone) / len(drawn) == pytest.approx(ALONE, abs=0.1)
    bare = [field for field in alone if field.pebble_abundance == 0]
    assert len(bare) / len(alone) == pytest.approx(0.5, abs=0.1)
    diameters = [field.boulders[0, 2] for field in drawn]
    assert min(diameters) >= BOULDER[0] and max(diameters) <= BOULDER[1]
