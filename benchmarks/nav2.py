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
Measure what a costmap makes of the unified node's clouds, against the generated ground itself.

    python -m benchmarks.nav2 [--scenes N] [--frames N] [--model M] [--output JSON]
    python -m benchmarks.nav2 --table JSON                    # docs/nav2.md's, of an earlier run

A rover drives over generated scenes. Each frame's points/hazards and points/clearing are the
node's own messages, made once from true depth and labels and once from the network's, and go into
the reference costmap of the test folder with the shipped config/nav2/obstacle.yaml (its global
costmap: 0.1 m cells, rolling). Gravity is the rover's true attitude, as TF tells it.

After every frame the costmap's lethal cells are held against `nav2_truth.GroundTruth`, within 8 m
of the camera along the ground and inside its horizontal field of view:

- recall: of the hazardous cells that this frame sees (a point of the cloud, at true depth, lies in
  them), those with a lethal cell within the tolerance. Of this frame: what a frame sees is
  cleared and marked anew.
- recall_seen_whole: the same of those hazardous cells whose hazard is not partly hidden: what
  rises, and slopes of whose square's cells each is hit by a pixel. What a plane through all of
  them is like can not be told from some of them, as at a crest or behind a ridge.
- recall_raised: the same of what rises more than 0.2 m, without slopes.
- precision: of the lethal cells, those with a hazardous cell within the tolerance, seen or not.
- precision_of_named: the same, where a cell that shows a labelled rock or crater is right as
  well. Hazards by class mark these even where they are lower and flatter than the limits.
- false_per_m2: lethal cells without (a hazardous or, for sources with class, named one) within
  the tolerance, over the area of ground in view.

Slopes are taken over squares of `--slope-window` metres, by the node and for the truth alike. The
node's own is 1.1 m, about the footprint of config/nav2 (1.4 × 1.0 m).

The tolerance is one cell (diagonals included) for true depth. For the network it is the larger of
two cells and 8 % of the range; its figures at one cell are given too.
"""

from argparse import ArgumentParser
from collections import defaultdict
from dataclasses import replace
import json
from pathlib import Path
import sys
from types import SimpleNamespace
from typing import Any

from benchmarks.nav2_truth import CELL_M, cells_across, ground_truth, GroundTruth
from benchmarks.record import write_record
import cv2
from lunar_perception.commands.synth import scene_seed
from lunar_perception.inference import UnifiedPredictor
from lunar_perception.nodes.outputs import FrameOutputs
from lunar_perception.nodes.unified_parameters import UnifiedParameters
from lunar_perception.synthetic import Moon, MoonConfig, MoonFrame
from lunar_perception.synthetic.rover import camera_pose
from lunar_perception.synthetic.trajectory import Pose
import numpy as np
from std_msgs.msg import Header
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'test'))

from reference_costmap import LETHAL, ReferenceCostmap, shipped_parameters  # noqa

BINS_M = ((0.0, 3.0), (3.0, 5.0), (5.0, 8.0), (0.0, 5.0), (0.0, 8.0))
SOURCES = ('class', 'geometry', 'both')
TOLERANCES = {'one cell': (1.5, 0.0), 'two cells or 8 % of range': (2.9, 0.08)}
"""Cells (a diagonal counts 1.4, two 2.8) and share of the range, of which the larger counts."""

TOPICS = {
    '/perception/points/hazards': FrameOutputs.hazards,
    '/perception/points/clearing': FrameOutputs.clearing,
}


class Tally:
    """Counts of cells by range, from which recall and precision follow."""

    def __init__(self) -> None:
        self._counts: dict[tuple[float, float], dict[str, float]] = {
            span: defaultdict(float) for span in BINS_M
        }

    def add(self, distance: np.ndarray, **chosen: np.ndarray) -> None:
        """Count the cells of each mask by their distance."""
        for (near, far), counts in self._counts.items():
            inside = (distance >= near) & (distance < far)
            for name, mask in chosen.items():
                counts[name] += int((mask & inside).sum())

    def results(self, by_class: bool) -> dict[str, Any]:
        """Return the figures by range."""
        return {
            f'{near:g}-{far:g} m': _figures(counts, by_class)
            for (near, far), counts in self._counts.items()
        }


def _figures(counts: dict[str, float], by_class: bool) -> dict[str, Any]:
    def share(part: str, whole: str) -> float | None:
        return round(counts[part] / counts[whole], 4) if counts[whole] else None

    wrong = counts['lethal'] - counts['right_or_named' if by_class else 'right']
    return {
        'recall': share('found', 'hazardous'),
        'recall_seen_whole': share('found_whole', 'whole'),
        'recall_raised': share('found_raised', 'raised'),
        'precision': share('right', 'lethal'),
        **({'precision_of_named': share('right_or_named', 'lethal')} if by_class else {}),
        'false_per_m2': round(wrong / (counts['ground'] * CELL_M**2), 4),
        'hazardous_cells': int(counts['hazardous']),
        'hazardous_cells_seen_whole': int(counts['whole']),
        'hazardous_cells_raised': int(counts['raised']),
        'lethal_cells': int(counts['lethal']),
        'area_m2': round(counts['ground'] * CELL_M**2),
    }


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--scenes', type=int, default=4)
    parser.add_argument('--frames', type=int, default=10, help='a scene (%(default)s)')
    parser.add_argument('--spacing', type=float, default=0.6, help='metres between frames')
    parser.add_argument('--size', type=int, default=512, help='pixels of an image (%(default)s)')
    parser.add_argument('--seed', type=int, default=808)
    parser.add_argument('--model', help='checkpoint; the shipped weights without')
    parser.add_argument(
        '--min-hazard-confidence',
        type=float,
        default=UnifiedParameters.min_hazard_confidence,
        help='the parameter of the node (%(default)s)',
    )
    parser.add_argument(
        '--slope-window',
        type=float,
        default=UnifiedParameters.slope_window,
        help='the parameter of the node, and the same for the truth (%(default)s)',
    )
    parser.add_argument('--output', type=Path, help='where the figures go, as JSON')
    parser.add_argument('--table', type=Path, help='print these figures, and measure nothing')
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())['results']))
        return

    model = [arguments.model] if arguments.model else []
    predictor = UnifiedPredictor.from_pretrained(*model, precision='fp32')
    settings = UnifiedParameters(
        cloud_stride=max(1, round(arguments.size / 256)),
        min_hazard_confidence=arguments.min_hazard_confidence,
        slope_window=arguments.slope_window,
    )
    tallies: dict[tuple[str, str, str], Tally] = defaultdict(Tally)
    for number in range(1, arguments.scenes + 1):
        config = MoonConfig(
            scene_seed(arguments.seed, number),
            size=arguments.size,
            speed=2.0,
            frame_interval=arguments.spacing / 2.0,
        )
        drive(config, arguments.frames, predictor, settings, tallies)
        results = {
            'scenes': number,
            'frames': number * arguments.frames,
            'cloud_points': (arguments.size // settings.cloud_stride) ** 2,
            'hazard_classes': list(settings.hazard_classes),
            'min_hazard_confidence': settings.min_hazard_confidence,
            'min_hazard_points': settings.min_hazard_points,
            'slope_window': settings.slope_window,
            **{
                f'{origin}, {sources}, {tolerance}': tally.results(sources != 'geometry')
                for (origin, sources, tolerance), tally in tallies.items()
            },
        }
        if arguments.output:  # after each scene: the whole takes long
            write_record(arguments.output, results)
    print(table(results))


def table(results: dict[str, Any]) -> str:
    """Return rows in Markdown, a row for each origin and source, at its tolerance."""
    rows = []
    for origin, name, tolerance in zip(
        ('truth', 'network'), ('true depth and labels', 'shipped weights'), TOLERANCES, strict=True
    ):
        for sources in SOURCES:
            spans = results[f'{origin}, {sources}, {tolerance}']
            cells = [f'{name}, `{sources}`']
            for span in ('0-5 m', '5-8 m'):
                figures = spans[span]
                named = figures.get('precision_of_named')
                parts = (figures[f'recall_{part}'] for part in ('seen_whole', 'raised'))
                cells += [
                    f'{figures["recall"]:.3f} ({", ".join(f"{part:.3f}" for part in parts)})',
                    f'{figures["precision"]:.3f}' + (f' ({named:.3f})' if named else ''),
                    f'{figures["false_per_m2"]:.2f}',
                ]
            rows.append(f'| {" | ".join(cells)} |')
    return '\n'.join(rows)


def drive(
    config: MoonConfig,
    frames: int,
    predictor: UnifiedPredictor,
    settings: UnifiedParameters,
    tallies: dict[tuple[str, str, str], Tally],
) -> None:
    """Drive through one scene and count."""
    parameters = shipped_parameters('global_costmap')
    costmaps: dict[tuple[str, str], ReferenceCostmap] = defaultdict(
        lambda: ReferenceCostmap(parameters)
    )
    moon, truth, tile = Moon(config), None, None
    for frame in tqdm(moon.frames(frames), total=frames, desc=f'scene {config.seed}'):
        if truth is None or frame.renderer is not tile:
            tile, truth = frame.renderer, ground_truth(frame.renderer, settings.slope_window)
        eye = frame.body.then(camera_pose(moon.mount))
        exact = SimpleNamespace(
            label=frame.label,
            confidence=np.ones(frame.label.shape, np.float32),
            depth=frame.depth,
            uncertainty=None,
        )
        predictions = {'truth': exact, 'network': predictor(frame.left, frame.camera)}
        for origin, prediction in predictions.items():
            for sources in SOURCES:
                costmap = costmaps[origin, sources]
                chosen = replace(settings, hazard_sources=sources)
                _update(costmap, frame, eye, prediction, chosen)
                for tolerance, limits in TOLERANCES.items():
                    if origin == 'network' or tolerance == 'one cell':
                        tally = tallies[origin, sources, tolerance]
                        _count(tally, costmap, truth, eye, frame, settings, limits)


def _seen(costmap: ReferenceCostmap, frame: MoonFrame, eye: Pose, stride: int) -> np.ndarray:
    """Return which of the costmap's cells hold a point of every stride-th pixel, truly."""
    points = frame.camera.back_project(frame.depth, stride).reshape(-1, 3)
    places = points[np.isfinite(points[:, 2])] @ eye.rotation.T + eye.position
    cells, inside = costmap.cells(places)
    seen = np.zeros(costmap.cost.shape, bool)
    seen[cells[inside, 1], cells[inside, 0]] = True
    return seen


def _update(
    costmap: ReferenceCostmap,
    frame: MoonFrame,
    eye: Pose,
    prediction: Any,
    settings: UnifiedParameters,
) -> None:
    down = eye.rotation.T @ [0.0, 0.0, -1.0]
    outputs = FrameOutputs(Header(), frame.left, prediction, frame.camera, settings, down)
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = eye.rotation, eye.position
    for topic, make in TOPICS.items():
        costmap.receive(topic, make(outputs), transform)
    ahead = frame.body.rotation[:, 0]
    x, y, _ = frame.body.position
    costmap.update(x, y, np.arctan2(ahead[1], ahead[0]))


def _count(
    tally: Tally,
    costmap: ReferenceCostmap,
    truth: GroundTruth,
    eye: Pose,
    frame: MoonFrame,
    settings: UnifiedParameters,
    limits: tuple[float, float],
) -> None:
    # Both on the costmap's cells.
    shape = costmap.cost.shape
    row, column = np.indices(shape)
    centres = costmap.origin + np.stack([column, row], -1) * CELL_M + CELL_M / 2
    x, y = np.moveaxis(truth.cells(centres.reshape(-1, 2)).reshape(*shape, 2), -1, 0)
    size = len(truth.hazard)
    known = (x >= 0) & (y >= 0) & (x < size) & (y < size)
    x, y = np.clip(x, 0, size - 1), np.clip(y, 0, size - 1)
    hazard, raised, named = (m[y, x] & known for m in (truth.hazard, truth.raised, truth.named))

    offset = centres - eye.position[:2]
    distance = np.hypot(offset[..., 0], offset[..., 1])
    half = np.arctan(frame.camera.width / 2 / frame.camera.fx)
    ahead = eye.rotation[:2, 2] / np.linalg.norm(eye.rotation[:2, 2])
    bearing = np.arctan2(offset @ [-ahead[1], ahead[0]], offset @ ahead)
    in_view = known & (np.abs(bearing) < half)
    lethal = (costmap.cost == LETHAL) & in_view
    tolerance = np.maximum(limits[0], limits[1] * distance / CELL_M)
    hazardous = hazard & _seen(costmap, frame, eye, settings.cloud_stride) & in_view
    square = np.ones((cells_across(settings.slope_window),) * 2, np.uint8)
    whole = cv2.erode(_seen(costmap, frame, eye, 1).astype(np.uint8), square) > 0
    whole = hazardous & (whole | raised)
    found = _cells_to(lethal) <= tolerance
    tally.add(
        distance,
        ground=in_view,
        hazardous=hazardous,
        found=hazardous & found,
        whole=whole,
        found_whole=whole & found,
        raised=hazardous & raised,
        found_raised=hazardous & raised & found,
        lethal=lethal,
        right=lethal & (_cells_to(hazard) <= tolerance),
        right_or_named=lethal & (_cells_to(hazard | named) <= tolerance),
    )


def _cells_to(chosen: np.ndarray) -> np.ndarray:
    """Return each cell's distance to the nearest chosen one, in cells."""
    if not chosen.any():
        return np.full(chosen.shape, np.inf)
    return cv2.distanceTransform((~chosen).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


if __name__ == '__main__':
    main()
