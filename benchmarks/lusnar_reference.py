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
Score a network on LuSNAR's real reference frames: labels only, they come without depth.

    python -m benchmarks.lusnar_reference FOLDER [--model M] [--output JSON] [--picture PNG]

FOLDER holds `scene<N>_rgb.png` and `scene<N>_label.png` (ids). The frames are LuSNAR's: neither
they nor the picture belong into this repository.
"""

from argparse import ArgumentParser
from pathlib import Path
import sys

from benchmarks.record import write_record
import cv2
from lunar_perception import UnifiedPredictor
from lunar_perception.atomic import write_png
from lunar_perception.data.image_file import read_image
from lunar_perception.metrics import Evaluation
from lunar_perception.visualize import overlay_labels, side_by_side
import numpy as np


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--model', help="checkpoint folder; without it, the package's weights")
    parser.add_argument('--output', type=Path, help='where the figures go, as JSON')
    parser.add_argument('--picture', type=Path, help='where truth and prediction go, as PNG')
    arguments = parser.parse_args()

    images = sorted(arguments.folder.glob('*_rgb.png'))
    if not images:
        sys.exit(f'{arguments.folder} has no *_rgb.png')
    predictor = UnifiedPredictor.from_pretrained(arguments.model, precision='fp32')
    pooled, frames, rows = Evaluation(), {}, []
    for path in images:
        image = read_image(path)
        truth = cv2.imread(str(path).replace('_rgb', '_label'), cv2.IMREAD_GRAYSCALE)
        prediction = predictor(image)
        alone = Evaluation()
        alone.update(prediction.label, None, None, None, truth, None)
        pooled.merge(alone)
        frames[path.stem] = labels_only(alone)
        panels = [image, overlay_labels(image, truth), overlay_labels(image, prediction.label)]
        panels = [cv2.resize(panel, (429, 429)) for panel in panels]
        rows.append(side_by_side(panels, [path.stem, 'True labels', 'Labels']))
    result = {**labels_only(pooled), 'by_frame': frames}
    print(result)
    if arguments.output:
        write_record(arguments.output, result)
    if arguments.picture:
        write_png(arguments.picture, np.concatenate(rows))


def labels_only(evaluation: Evaluation) -> dict[str, object]:
    """Return mIoU and IoU a class, of classes that are in truth or prediction."""
    figures = evaluation.to_dict()
    return {'miou': figures['miou'], 'iou': figures['iou']}


if __name__ == '__main__':
    main()
