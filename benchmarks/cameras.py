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
How far off depth is for cameras that are mounted or see otherwise than the weights expect.

    python -m benchmarks.cameras [--scenes N] [--seed S] [--model M] [--output JSON]

The same generated scenes, one frame each, are seen by LuSNAR's camera (1.5 m up, 20° down, 80°
wide), changed in its height, its pitch or its field of view. For each, over what is nearer than
six times its height:

- ratio: depth to true depth, the median over scenes of each one's median.
- ratio_least, ratio_largest: of any scene.
- abs_rel: mean relative error, the mean over scenes.
"""

from argparse import ArgumentParser
from pathlib import Path

from benchmarks.record import write_record
from lunar_perception import UnifiedPredictor
from lunar_perception.commands.synth import scene_seed
from lunar_perception.synthetic import Moon, MoonConfig
from lunar_perception.synthetic.config import CameraMount
import numpy as np
from tqdm import tqdm

CAMERAS = {
    'height': {
        f'{height} m': CameraMount(height=height)
        for height in (0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5)
    },
    'pitch': {f'{pitch}°': CameraMount(pitch_deg=pitch) for pitch in (0, 5, 10, 20, 30, 40, 50)},
    'field of view': {
        f'{fov}°': CameraMount(fov_deg=fov) for fov in (30, 40, 50, 60, 70, 80, 90, 100, 110, 120)
    },
}
NEAR = 6.0
"""Heights of the camera up to which depth is compared; beyond, it is much less sure."""


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--scenes', type=int, default=20)
    parser.add_argument('--seed', type=int, default=30)
    parser.add_argument('--size', type=int, default=512, help='side in pixels (%(default)s)')
    parser.add_argument('--model', help="checkpoint; without it, the package's weights")
    parser.add_argument('--output', type=Path, help='where the figures go, as JSON')
    arguments = parser.parse_args()

    predictor = UnifiedPredictor.from_pretrained(arguments.model, precision='fp32')
    seeds = [scene_seed(arguments.seed, number) for number in range(1, arguments.scenes + 1)]
    results: dict[str, dict[str, dict[str, float]]] = {}
    for kind, mounts in CAMERAS.items():
        results[kind] = {}
        for name, mount in mounts.items():
            ratios = [
                near_ratios(predictor, MoonConfig(seed, arguments.size, mount))
                for seed in tqdm(seeds, desc=f'{kind} {name}', disable=None)
            ]
            medians = [float(np.median(ratio)) for ratio in ratios]
            results[kind][name] = {
                'ratio': float(np.median(medians)),
                'ratio_least': min(medians),
                'ratio_largest': max(medians),
                'abs_rel': float(np.mean([np.abs(ratio - 1).mean() for ratio in ratios])),
            }
            print(kind, name, results[kind][name])
    if arguments.output:
        write_record(arguments.output, {'scenes': arguments.scenes, **results})


def near_ratios(predictor: UnifiedPredictor, config: MoonConfig) -> np.ndarray:
    """Return depth / true depth (N,) of what is near in the first frame of a scene."""
    assert config.mount is not None
    (frame,) = Moon(config).frames(1)
    depth = predictor(frame.left, frame.camera).depth
    near = (frame.depth < NEAR * config.mount.height) & np.isfinite(depth)
    ratios: np.ndarray = depth[near] / frame.depth[near]
    return ratios


if __name__ == '__main__':
    main()
