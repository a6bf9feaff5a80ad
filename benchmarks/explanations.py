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
Measure how well Grad-CAM and Integrated Gradients agree over a data set of HiRISE crops.

    python -m benchmarks.explanations DIR [--crops N] [--model M] [--device D] [--output JSON]

DIR has crops in any layout that `lunar_perception.data.hirise` reads. N crops are drawn, as evenly
over the classes as there are crops, always the same; explained is the class that the network
names. Given are the paper's consistency analysis as numbers, for all crops and by named class, and
how many explanations are complete, with how many steps.
"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from benchmarks.record import write_record
from benchmarks.setting import arguments, prepare
from lunar_perception.data.hirise import Crop, read_crops, read_image
from lunar_perception.inference.consistency import Consistency, summarise
from lunar_perception.inference.explain import explain
from lunar_perception.inference.terrain import TerrainPredictor
import numpy as np
from tqdm import tqdm


def main() -> None:
    parser = arguments(__doc__.splitlines()[1], repeats=1)
    parser.add_argument('data', type=Path, metavar='DIR')
    parser.add_argument('--crops', type=int, default=80, help='(%(default)s)')
    parser.add_argument('--model', help='checkpoint folder (the shipped weights)')
    options = parser.parse_args()
    prepare(options)
    predictor = TerrainPredictor.from_pretrained(options.model, device=options.device)
    results = measure(predictor, draw(read_crops(options.data), options.crops))
    print(results)
    if options.output:
        write_record(options.output, results)


def draw(crops: list[Crop], count: int) -> list[Crop]:
    """Return so many crops, one of each class in turn, until the class has no more."""
    by_class: dict[int, list[Crop]] = defaultdict(list)
    for index in np.random.default_rng(0).permutation(len(crops)):
        by_class[crops[index].label].append(crops[index])
    rounds = max(len(waiting) for waiting in by_class.values())
    in_turn = [
        waiting[number]
        for number in range(rounds)
        for _, waiting in sorted(by_class.items())
        if number < len(waiting)
    ]
    return in_turn[:count]


def measure(predictor: TerrainPredictor, crops: list[Crop]) -> dict[str, Any]:
    """Return agreement, completeness and steps over the crops."""
    names = predictor.taxonomy.names
    pixels: dict[str, list[Consistency]] = defaultdict(list)
    cells: dict[str, list[Consistency]] = defaultdict(list)
    steps: Counter[int] = Counter()
    errors: list[float] = []
    right = complete = 0
    for crop in tqdm(crops, desc='explanations', disable=None):
        found = explain(predictor, read_image(crop.path))
        right += found.class_id == crop.label
        for key in ('all', names[found.class_id]):
            pixels[key].append(found.pixels)
            cells[key].append(found.cells)
        attributions = found.attributions
        complete += attributions.complete
        steps[attributions.steps] += 1
        errors.append(attributions.error / attributions.tolerance)
    return {
        'crops': len(crops),
        'named_right': right,
        'integrated_gradients': {
            'complete': complete,
            'images_by_steps': {str(n): steps[n] for n in sorted(steps)},
            'largest_error_over_tolerance': round(max(errors), 3),
        },
        'consistency': {
            key: {'pixels': summarise(pixels[key]), 'cells': summarise(cells[key])}
            for key in sorted(pixels)
        },
    }


if __name__ == '__main__':
    main()
