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
Time the work of `lunar-perception synth` against bare Embree casting of the same rays.

    python -m benchmarks.synth [--scenes N] [--frames N] [--size PX] [--seed S] [--output JSON]

The first figure is the whole work of one worker: landscape, left and right image, depth, label,
LiDAR, poses, inertial samples, written; only the interpreter's start is left out. While that
runs, each bundle of rays is cast once more into the same Embree scene, and only this second cast
makes the other figure. So both see the same machine at the same time, whoever shares it.
"""

from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks.record import write_record
from embreex.rtcore_scene import EmbreeScene
from lunar_perception.commands.synth import scene_seed
from lunar_perception.synthetic import generate_scene, MoonConfig, renderer
from lunar_perception.synthetic.richness import richness_in_set
import numpy as np


class EchoingScene(EmbreeScene):
    """An Embree scene that casts everything twice and times the second cast."""

    seconds = 0.0
    rays = 0

    def run(self, *rays: np.ndarray, **kind: Any) -> Any:
        """Cast rays as the scene does."""
        result = super().run(*rays, **kind)  # the very first one builds Embree's tree
        start = perf_counter()
        super().run(*rays, **kind)
        EchoingScene.seconds += perf_counter() - start
        EchoingScene.rays += len(rays[0])
        return result


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--scenes', type=int, default=2)
    parser.add_argument('--frames', type=int, default=10)
    parser.add_argument('--size', type=int, default=1024)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--output', type=Path, help='where the figures go, as JSON')
    arguments = parser.parse_args()

    renderer.EmbreeScene = EchoingScene
    start = perf_counter()
    with TemporaryDirectory() as folder:
        for number in range(1, arguments.scenes + 1):
            config = MoonConfig(
                scene_seed(arguments.seed, number),
                size=arguments.size,
                richness=richness_in_set(arguments.seed, number),
            )
            generate_scene(Path(folder, f'Moon_{number}'), config, arguments.frames)
        whole = perf_counter() - start - EchoingScene.seconds
    frames = arguments.scenes * arguments.frames
    results = {
        'frames': frames,
        'size': arguments.size,
        'synth_frames_per_second': round(frames / whole, 3),
        'bare_frames_per_second': round(frames / EchoingScene.seconds, 3),
        'synth_over_bare': round(EchoingScene.seconds / whole, 3),
        'rays_per_frame': round(EchoingScene.rays / frames),
    }
    print(results)
    if arguments.output:
        write_record(arguments.output, results)


if __name__ == '__main__':
    main()
