# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""
Time `lunar-perception synth` against bare Embree casting of the same rays, in one run.

    python -m benchmarks.synth [--scenes N] [--frames N] [--size PX] [--seed S] [--output JSON]

The first figure is the whole command, with one worker: start, landscape, left and right image,
depth, label, LiDAR, poses, inertial samples, written. The second casts again the very rays that
those frames cast, into the same Embree scenes, which stand ready: primary and shadow rays of both
images, and nothing else.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
import subprocess
import sys
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.record import write_record
from lunar_perception.commands.synth import scene_seed
from lunar_perception.synthetic import Moon, MoonConfig


class Stopwatch:
    """Stands in for an Embree scene; casts each bundle of rays a second time, timed."""

    def __init__(self, scene: Any) -> None:
        self.scene = scene
        self.seconds = 0.0
        self.rays = 0

    def run(self, *rays: np.ndarray, **kind: Any) -> Any:
        """Cast rays as the scene does."""
        result = self.scene.run(*rays, **kind)
        start = perf_counter()
        self.scene.run(*rays, **kind)
        self.seconds += perf_counter() - start
        self.rays += len(rays[0])
        return result


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--scenes', type=int, default=2)
    parser.add_argument('--frames', type=int, default=10)
    parser.add_argument('--size', type=int, default=1024)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--output', type=Path, help='where the figures go, as JSON')
    arguments = parser.parse_args()
    frames = arguments.scenes * arguments.frames

    with TemporaryDirectory() as folder:
        command = [sys.executable, '-m', 'lunar_perception.cli', 'synth', '--output', folder]
        for name in ('scenes', 'frames', 'size', 'seed'):
            command += [f'--{name}', str(getattr(arguments, name))]
        start = perf_counter()
        subprocess.run(command, check=True)
        whole = perf_counter() - start

    bare, rays = bare_casting(arguments)
    results = {
        'frames': frames,
        'size': arguments.size,
        'synth_frames_per_second': round(frames / whole, 3),
        'bare_frames_per_second': round(frames / bare, 3),
        'synth_over_bare': round(bare / whole, 3),
        'rays_per_frame': round(rays / frames),
    }
    print(results)
    if arguments.output:
        write_record(arguments.output, results)


def bare_casting(arguments: Namespace) -> tuple[float, int]:
    """Return the seconds that Embree alone takes for all frames' rays, and their number."""
    watches: list[Stopwatch] = []
    for number in range(1, arguments.scenes + 1):
        moon = Moon(MoonConfig(scene_seed(arguments.seed, number), size=arguments.size))
        for frame in moon.frames(arguments.frames):
            renderer = frame._view.args[0]
            for name in ('_scene', '_silhouette'):
                scene = getattr(renderer, name)
                if not isinstance(scene, Stopwatch):
                    watches.append(Stopwatch(scene))
                    vars(renderer)[name] = watches[-1]  # where a cached property is looked up
            _ = frame.left, frame.right
    return sum(w.seconds for w in watches), sum(w.rays for w in watches)


if __name__ == '__main__':
    main()
