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
Measure what costmaps make of one rock on level ground, and of its absence.

    python -m benchmarks.nav2_rock [--scenes N] [--size PX] [--model M] [--output JSON]

Generated scenes with their own light and small relief, level otherwise, with one rock 0.9 m wide
5 m ahead of LuSNAR's camera. Each picture's points/hazards and points/clearing, the node's own
messages, go into the reference costmap of the test folder with config/nav2/obstacle.yaml, once
from true depth and labels and once from the network's; then the same ground without the rock,
three times. The tolerance is one cell (its diagonal) for the truth, and for the network the larger
of two cells and 8 % of the range.

- lethal, off_the_rock: lethal cells; those farther than the tolerance from every cell in which the
  rock is seen.
- front, front_missed: the rock's nearest seen cells, one for each row along the way; those with no
  lethal cell within the tolerance.
- left_behind: cells within the tolerance of the rock that are lethal after it was taken away.
- clean: scenes with none of these three.
- misplaced: scenes in which the median of the rock's depth is off by more than the tolerance's
  share of the range.
"""

from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.nav2 import TOPICS  # which makes the test folder's modules known
from benchmarks.record import write_record
from lunar_perception.commands.synth import scene_seed
from lunar_perception.inference import UnifiedPredictor
from lunar_perception.nodes.outputs import FrameOutputs
from lunar_perception.nodes.unified_parameters import UnifiedParameters
from lunar_perception.synthetic import Moon, MoonConfig
from lunar_perception.synthetic.renderer import Renderer, View
from lunar_perception.synthetic.rocks import Rocks
from lunar_perception.synthetic.rover import camera_pose, draw_silhouette
from lunar_perception.synthetic.terrain import draw_terrain
from lunar_perception.synthetic.trajectory import Pose
from lunar_perception.taxonomy import LUNAR_TERRAIN
import numpy as np
from reference_costmap import LETHAL, ReferenceCostmap, shipped_parameters
from std_msgs.msg import Header
from tqdm import tqdm

RANGE_M, DIAMETER_M = 5.0, 0.9
FRAMES_WITHOUT = 3
ROCK = LUNAR_TERRAIN.id_of('rock')
TOLERANCE = {'truth': (1.5, 0.0), 'network': (2.9, 0.08)}
"""Cells (a diagonal counts 1.4, two 2.8) and share of the range, of which the larger counts."""


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--scenes', type=int, default=8)
    parser.add_argument('--size', type=int, default=512, help='pixels of an image (%(default)s)')
    parser.add_argument('--seed', type=int, default=5)
    parser.add_argument('--model', help='checkpoint; the shipped weights without')
    parser.add_argument(
        '--min-hazard-confidence',
        type=float,
        default=UnifiedParameters.min_hazard_confidence,
        help='the parameter of the node (%(default)s)',
    )
    parser.add_argument('--output', type=Path, help='where the figures go, as JSON')
    arguments = parser.parse_args()

    predictor = UnifiedPredictor.from_pretrained(arguments.model, precision='fp32')
    settings = UnifiedParameters(
        cloud_stride=max(1, round(arguments.size / 256)),
        min_hazard_confidence=arguments.min_hazard_confidence,
    )
    results: dict[str, Any] = {
        'scenes': arguments.scenes,
        'size': arguments.size,
        'min_hazard_confidence': settings.min_hazard_confidence,
    }
    for number in tqdm(range(1, arguments.scenes + 1), disable=None):
        scene = LevelScene(scene_seed(arguments.seed, number), arguments.size)
        for name, figures in scene.figures(predictor, settings):
            total = results.setdefault(name, dict.fromkeys(figures, 0))
            for key, value in figures.items():
                total[key] += value
    for name, figures in results.items():
        print(name, figures)
    if arguments.output:
        write_record(arguments.output, results)


class LevelScene:
    """Level ground, seen with a rock and without it."""

    def __init__(self, seed: int, size: int) -> None:
        self.moon = Moon(MoonConfig(seed, size=size))
        self.eye = camera_pose(self.moon.mount)
        self.transform = np.eye(4)
        self.transform[:3, :3], self.transform[:3, 3] = self.eye.rotation, self.eye.position
        x, y = self.eye.position[:2] + np.array([RANGE_M, 0.0])
        rng = np.random.default_rng((seed, 99))
        path = np.array([[0.0, 0.0], [20.0, 0.0]])
        terrain = draw_terrain(rng, seed, path, keep_clear=3.0).levelled()
        mesh = terrain.mesh((4.0, 0.0), spacing=0.06, growth=0.03)
        silhouette = draw_silhouette(rng, self.moon.mount, self.moon.look.sun)
        rock = np.array([[x, y, DIAMETER_M, *rng.random(4)]])
        self.with_rock, self.without = (
            self._view(Renderer(terrain, mesh, Rocks(rows), silhouette, (4.0, 0.0), seed))
            for rows in (rock, rock[:0])
        )

    def _view(self, renderer: Renderer) -> View:
        level = Pose(np.zeros(3), np.eye(3))
        return renderer.view(self.moon.camera, self.eye, level, self.moon.look, 0)

    def rock_places(self) -> np.ndarray:
        """Return where the picture truly shows the rock, (N, 3) metres in the rover's frame."""
        on_rock = self.moon.camera.back_project(self.with_rock.depth)[self.with_rock.label == ROCK]
        places: np.ndarray = on_rock @ self.eye.rotation.T + self.eye.position
        return places

    def figures(
        self, predictor: UnifiedPredictor, settings: UnifiedParameters
    ) -> Iterator[tuple[str, dict[str, int]]]:
        """Yield counts by origin and costmap."""
        camera, seen = self.moon.camera, self.rock_places()
        true_depth, on_rock = self.with_rock.depth, self.with_rock.label == ROCK
        for origin, limits in TOLERANCE.items():
            views = (self.with_rock, self.without)
            predictions = [
                exact(view) if origin == 'truth' else predictor(view.image, camera)
                for view in views
            ]
            clouds = [
                self._clouds(view, prediction, settings)
                for view, prediction in zip(views, predictions, strict=True)
            ]
            depth_error = np.median(predictions[0].depth[on_rock] / true_depth[on_rock]) - 1
            for name in ('local_costmap', 'global_costmap'):
                costmap = ReferenceCostmap(shipped_parameters(name))
                self._update(costmap, clouds[0])
                rock = np.unique(costmap.cells(seen)[0], axis=0)  # by x, then by y
                front = rock[np.unique(rock[:, 1], return_index=True)[1]]
                lethal = np.argwhere(costmap.cost == LETHAL)[:, ::-1]
                eye, _ = costmap.cells(self.eye.position[None])

                counts = {
                    'lethal': len(lethal),
                    'off_the_rock': int((~within(lethal, rock, eye, limits)).sum()),
                    'front': len(front),
                    'front_missed': int((~within(front, lethal, eye, limits)).sum()),
                }
                for _ in range(FRAMES_WITHOUT):
                    self._update(costmap, clouds[1])
                after = np.argwhere(costmap.cost == LETHAL)[:, ::-1]
                counts['left_behind'] = int(within(after, rock, eye, limits).sum())
                faults = ('off_the_rock', 'front_missed', 'left_behind')
                counts['clean'] = int(not any(counts[fault] for fault in faults))
                counts['misplaced'] = int(abs(depth_error) > limits[1])
                yield f'{origin}, {name}', counts

    def _clouds(self, view: View, prediction: Any, settings: UnifiedParameters) -> dict[str, Any]:
        down = self.eye.rotation.T @ [0.0, 0.0, -1.0]
        outputs = FrameOutputs(Header(), view.image, prediction, self.moon.camera, settings, down)
        return {topic: make(outputs) for topic, make in TOPICS.items()}

    def _update(self, costmap: ReferenceCostmap, clouds: dict[str, Any]) -> None:
        for topic, cloud in clouds.items():
            costmap.receive(topic, cloud, self.transform)
        costmap.update()


def exact(view: View) -> SimpleNamespace:
    """Return the truth in a prediction's form."""
    confidence = np.ones(view.label.shape, np.float32)
    return SimpleNamespace(
        label=view.label, confidence=confidence, depth=view.depth, uncertainty=None
    )


def within(
    chosen: np.ndarray, others: np.ndarray, eye: np.ndarray, limits: tuple[float, float]
) -> np.ndarray:
    """Return which cells of `chosen` (N, 2) have one of `others` within the tolerance."""
    return cells_to(chosen, others) <= np.maximum(limits[0], limits[1] * cells_to(chosen, eye))


def cells_to(chosen: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return from each cell of `chosen` (N, 2) the distance to the nearest of `others`, cells."""
    if not len(others):
        return np.full(len(chosen), np.inf)
    gaps = (chosen[:, None] - others[None]).astype(float)
    return np.hypot(gaps[..., 0], gaps[..., 1]).min(axis=1)


if __name__ == '__main__':
    main()
