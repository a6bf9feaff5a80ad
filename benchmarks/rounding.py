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
Measure what rounding costs: the CPU's bfloat16 and int8 beside torch's fp32.

    python -m benchmarks.rounding [--reference FOLDER] [--output JSON]

On generated frames that nothing was trained, calibrated or checked on: the share of labels that
are torch's, how far depth lies from torch's where both see ground, and mIoU and δ1 against the
truth. With `--reference`, without the latter, also on LuSNAR's real frames: a folder as
`benchmarks.lusnar_reference` takes it.
"""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from benchmarks.record import write_record
from benchmarks.setting import SIDE
from lunar_perception import UnifiedPredictor
from lunar_perception.data.image_file import read_image
from lunar_perception.inference import Prediction
from lunar_perception.inference.backends import BackendError, BackendRefusedError
from lunar_perception.inference.backends.int8 import generated
from lunar_perception.metrics import Evaluation
import numpy as np
from tqdm import tqdm

SEEDS = range(970, 986)
BACKENDS = ('openvino_bf16', 'int8')


class Difference:
    """Collects how far predictions lie from torch's."""

    def __init__(self) -> None:
        self._agreement: list[float] = []
        self._depth: list[np.ndarray] = []

    def add(self, prediction: Prediction, truth: Prediction) -> None:
        """Take one frame's."""
        self._agreement.append(float((prediction.label == truth.label).mean()))
        ground = np.isfinite(prediction.depth) & np.isfinite(truth.depth)
        depth = truth.depth[ground]
        self._depth.append(np.abs(prediction.depth[ground] - depth) / depth)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures over all frames; depth's are shares of torch's."""
        depth = np.concatenate(self._depth)
        quantiles = np.quantile(depth, [0.5, 0.999])
        return {
            'frames': len(self._agreement),
            'labels_as_torch': round(float(np.mean(self._agreement)), 6),
            'labels_as_torch_least': round(min(self._agreement), 6),
            'depth_median': round(float(quantiles[0]), 6),
            'depth_99.9_percent': round(float(quantiles[1]), 6),
            'depth_most': round(float(depth.max()), 6),
        }


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--reference', type=Path, metavar='FOLDER', help="LuSNAR's real frames")
    parser.add_argument('--output', type=Path, help='where the figures go, as JSON')
    arguments = parser.parse_args()
    exact = UnifiedPredictor.from_pretrained(device='cpu', backend='torch')
    predictors, refused = {'torch': exact}, {}
    for name in BACKENDS:
        predictor = UnifiedPredictor.from_pretrained(device='cpu', backend=name)
        try:
            predictor.warm_up(SIDE, SIDE)
        except (BackendError, BackendRefusedError) as error:
            refused[name] = str(error)
        else:
            predictors[name] = predictor

    differences = {name: Difference() for name in predictors}
    evaluations = {name: Evaluation() for name in predictors}
    frames = list(tqdm(generated((SIDE, SIDE), SEEDS), desc='generate'))
    for image, label, depth in tqdm(frames, desc='predict'):
        predictions = {name: predictor(image) for name, predictor in predictors.items()}
        for name, said in predictions.items():
            differences[name].add(said, predictions['torch'])
            evaluations[name].update(said.label, None, said.depth, None, label, depth)
    scores = {name: evaluation.to_dict() for name, evaluation in evaluations.items()}
    results: dict[str, Any] = {
        'refused': refused,
        'generated': {
            name: differences[name].to_dict()
            | {key: scores[name][key] for key in ('miou', 'delta1')}
            for name in predictors
        },
    }
    if arguments.reference:
        differences = {name: Difference() for name in predictors}
        for path in sorted(arguments.reference.glob('*_rgb.png')):
            image = read_image(path)
            truth = exact(image)
            for name, predictor in predictors.items():
                differences[name].add(predictor(image), truth)
        results['lusnar_reference'] = {
            name: difference.to_dict() for name, difference in differences.items()
        }
    print(results)
    if arguments.output:
        write_record(arguments.output, results)


if __name__ == '__main__':
    main()
