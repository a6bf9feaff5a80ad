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
Convert a scene to a bag: throughput against what disk and PNG decoding alone allow, and memory.

    python benchmarks/bags.py [--frames N] [--size PX] [--repeats N] [--output JSON]

The bound reads the same files, decodes the same PNGs and writes as many bytes as the bag has.
Both are timed in turn, several times; frames are a few rendered ones over and over.
"""

from argparse import ArgumentParser
from pathlib import Path
import shutil
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.record import write_record
import cv2
from lunar_perception.data.bag_writer import convert_scene
from lunar_perception.data.lusnar import Scene
from lunar_perception.data.lusnar_writer import LusnarSceneWriter
from lunar_perception.nodes.diagnostics import resident_memory
from lunar_perception.synthetic import generate_scene, MoonConfig
import numpy as np
from tqdm import tqdm

RENDERED = 4
INTERVAL_NS = 108_000_000
MIB = 2**20


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--frames', type=int, default=200)
    parser.add_argument('--size', type=int, default=512)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--output', type=Path, help='where the figures go, as JSON')
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with TemporaryDirectory() as folder:
        scene = long_scene(Path(folder), arguments.frames, arguments.size)
        results = measure(scene, Path(folder) / 'bag', arguments.repeats)
    results = {'frames': arguments.frames, 'size': arguments.size, **results}
    print(results)
    if arguments.output:
        write_record(arguments.output, results)


def long_scene(folder: Path, frames: int, size: int) -> Scene:
    """Render a few frames, and write them over and over."""
    generate_scene(folder / 'rendered', MoonConfig(seed=1, size=size), RENDERED)
    rendered = list(Scene(folder / 'rendered'))
    with LusnarSceneWriter(folder / 'scene') as writer:
        for i in tqdm(range(frames), desc='scene', disable=None):
            frame = rendered[i % RENDERED]
            writer.write_frame(
                rendered[0].stamp_ns + i * INTERVAL_NS,
                left=frame.image,
                right=frame.right_image,
                depth=frame.depth,
                label=frame.label,
                pose=frame.pose,
            )
    return Scene(folder / 'scene')


def measure(scene: Scene, bag: Path, repeats: int) -> dict[str, float]:
    """Return medians of both times and their ratio, and the memory during the first conversion."""
    conversions, bounds = [], []
    memory: list[int] = []
    for repeat in range(repeats):
        samples: list[int] = []
        start = perf_counter()
        convert_scene(scene, bag, progress=lambda *_, s=samples: s.append(resident_memory()))
        conversions.append(perf_counter() - start)
        memory = memory or samples
        size = sum(file.stat().st_size for file in bag.iterdir())
        shutil.rmtree(bag)
        bounds.append(bound(scene, bag, size))
        print(f'repeat {repeat}: {conversions[-1]:.2f} s, bound {bounds[-1]:.2f} s')
    start = max(len(memory) // 10, 1) - 1
    after_a_tenth, most_later = memory[start], max(memory[start:])
    return {
        'convert_s': round(median(conversions), 3),
        'bound_s': round(median(bounds), 3),
        'share_of_bound': round(median(bounds) / median(conversions), 3),
        'frames_per_s': round(len(scene) / median(conversions), 1),
        'bag_mib': round(size / MIB, 1),
        'memory_after_a_tenth_mib': round(after_a_tenth / MIB, 1),
        'memory_most_later_mib': round(most_later / MIB, 1),
        'memory_growth_mib': round((most_later - after_a_tenth) / MIB, 1),
    }


def bound(scene: Scene, target: Path, size: int) -> float:
    """Return how long reading, decoding and writing alone take, in seconds."""
    block = np.zeros(size // len(scene), np.uint8).data
    start = perf_counter()
    with target.open('wb') as output:
        for stamp in scene.stamps_ns:
            for folder in (scene.layout.color, scene.layout.right, scene.layout.label):
                data = (scene.path / folder / f'{stamp:019d}.png').read_bytes()
                cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            (scene.path / scene.layout.depth / f'{stamp:019d}.pfm').read_bytes()
            output.write(block)
    seconds = perf_counter() - start
    target.unlink()
    return seconds


if __name__ == '__main__':
    main()
