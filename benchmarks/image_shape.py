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
How labels and depth depend on the image's shape: the weights are trained on squares.

    python -m benchmarks.image_shape [--scenes N] [--seed S] [--model M] [--output JSON]

The first frames of generated scenes, each once from LuSNAR's camera and once from a drawn one, and
what is left of them when rows or columns are cut off at both sides. All shapes are compared over
the middle that all of them show. By shape:

- network_size: height and width that the image is resized to for the network.
- ratio: depth to true depth of what is nearer than 10 m, the median over frames of each one's
  median.
- abs_rel: mean relative error of the same pixels, miou: of all, those of all frames together.
"""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from benchmarks.record import write_record
from lunar_perception import PinholeCamera, UnifiedPredictor
from lunar_perception.commands.synth import scene_seed
from lunar_perception.metrics import Evaluation
from lunar_perception.synthetic import Moon, MoonConfig
from lunar_perception.synthetic.config import CameraMount
import numpy as np
from tqdm import tqdm

SIZE = 1024
SHAPES = {'1:1': (1024, 1024), '4:3': (768, 1024), '16:9': (576, 1024), '3:4': (1024, 768)}
"""Heights and widths of what is cut out of each frame."""

MIDDLE = (576, 768)
"""Height and width of what all shapes show."""

NEAR_M = 10.0


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--scenes', type=int, default=20)
    parser.add_argument('--seed', type=int, default=50)
    parser.add_argument('--model', help="checkpoint; without it, the package's weights")
    parser.add_argument('--output', type=Path, help='where the figures go, as JSON')
    arguments = parser.parse_args()

    predictor = UnifiedPredictor.from_pretrained(arguments.model, precision='fp32')
    scores = {shape: Evaluation() for shape in SHAPES}
    ratios: dict[str, list[float]] = {shape: [] for shape in SHAPES}
    for number in tqdm(range(1, arguments.scenes + 1), disable=None):
        for mount in (CameraMount(), None):
            config = MoonConfig(scene_seed(arguments.seed, number), SIZE, mount)
            (frame,) = Moon(config).frames(1)
            truth_depth = middle(frame.depth)
            truth_depth[truth_depth >= NEAR_M] = np.nan
            for shape, size in SHAPES.items():
                camera = middle_camera(frame.camera, size)
                prediction = predictor(middle(frame.left, size), camera)
                label, depth = middle(prediction.label), middle(prediction.depth)
                scores[shape].update(label, None, depth, None, middle(frame.label), truth_depth)
                ratios[shape].append(float(np.nanmedian(depth / truth_depth)))
    results: dict[str, Any] = {
        shape: {
            'network_size': list(predictor.network_size(*SHAPES[shape])),
            'ratio': float(np.median(ratios[shape])),
            'abs_rel': score.depth_metrics()['abs_rel'],
            'miou': float(np.nanmean(score.iou())),
        }
        for shape, score in scores.items()
    }
    for shape, figures in results.items():
        print(shape, figures)
    if arguments.output:
        write_record(arguments.output, {'frames': 2 * arguments.scenes, **results})


def middle(image: np.ndarray, size: tuple[int, int] = MIDDLE) -> np.ndarray:
    """Return a copy of an image's middle, of height and width `size`."""
    top, left = ((whole - part) // 2 for whole, part in zip(image.shape, size, strict=False))
    rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
    return image[rows, columns].copy()


def middle_camera(camera: PinholeCamera, size: tuple[int, int]) -> PinholeCamera:
    """Return the camera of an image's middle."""
    height, width = size
    return PinholeCamera(
        width,
        height,
        camera.fx,
        camera.fy,
        camera.cx - (camera.width - width) // 2,
        camera.cy - (camera.height - height) // 2,
    )


if __name__ == '__main__':
    main()
