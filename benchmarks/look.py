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
Hold generated frames beside LuSNAR's: shares, brightness, edges, spectrum, horizon, depth.

    python -m benchmarks.look FOLDER [--scenes N] [--seed S] [--sets N] [--output JSON]
        [--picture PNG] [--generated-picture PNG]

FOLDER holds LuSNAR's frames, `scene<N>_rgb.png` and `scene<N>_label.png` (ids). Generated frames
are shrunk to their size before anything is measured. Class shares are also taken of further sets
of as many scenes, with the seeds 1 to N. The frames are LuSNAR's: neither they nor
`--picture` belong into this repository.
"""

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
from pathlib import Path
import sys

from benchmarks.record import write_record
import cv2
from lunar_perception.atomic import write_png
from lunar_perception.commands.synth import scene_seed
from lunar_perception.data.image_file import read_image
from lunar_perception.synthetic import Moon, MoonConfig
from lunar_perception.synthetic.richness import richness_in_set
from lunar_perception.taxonomy import LUNAR_TERRAIN, SKY
import numpy as np

LUSNAR_SHARES = (0.687, 0.013, 0.025, 0.032, 0.243)
"""Of the whole data set, by class id."""

SHRINK = 4
"""Generated frames are rendered this many times the reference frames' size, then averaged."""

SET_SHRINK = 2
"""The same for `--sets`, whose labels alone count."""

TILE = (356, 356)
"""Width and height of a scene in `--generated-picture`."""

Example = tuple[np.ndarray, np.ndarray]  # image (H, W, 3) uint8, label (H, W) uint8


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--scenes', type=int, default=9)
    parser.add_argument('--frames', type=int, default=3, help='of each scene, 4 m apart')
    parser.add_argument('--seed', type=int, default=0, help='as of `lunar-perception synth`')
    parser.add_argument('--sets', type=int, default=0, help='whose shares are taken besides')
    parser.add_argument('--output', type=Path, help='where the figures go, as JSON')
    parser.add_argument('--picture', type=Path, help='where all frames and labels go, as PNG')
    parser.add_argument(
        '--generated-picture', type=Path, help='where the generated scenes alone go, as PNG'
    )
    arguments = parser.parse_args()

    references = list(read_references(arguments.folder))
    if not references:
        sys.exit(f'{arguments.folder} has no *_rgb.png')
    side = references[0][0].shape[0]
    # Spawned, not forked: Embree's and OpenCV's threads do not survive a fork.
    pool = ProcessPoolExecutor(max(arguments.sets, 1), multiprocessing.get_context('spawn'))
    sets = {
        seed: pool.submit(set_shares, seed, arguments.scenes, arguments.frames, SET_SHRINK * side)
        for seed in range(1, arguments.sets + 1)
    }
    generated, depths, firsts, scenes = [], [], [], []
    for number in range(1, arguments.scenes + 1):
        moon = scene_of_set(arguments.seed, number, SHRINK * side)
        for index, frame in enumerate(moon.frames(arguments.frames)):
            if index == 0:
                scenes.append(cv2.resize(frame.left, TILE, interpolation=cv2.INTER_AREA))
            image = cv2.resize(frame.left, (side, side), interpolation=cv2.INTER_AREA)
            middle = slice(SHRINK // 2, None, SHRINK)
            generated.append((image, frame.label[middle, middle]))
            depths.append(frame.depth[np.isfinite(frame.depth)])
        firsts.append(generated[-arguments.frames])
    shares = class_shares(generated)
    results = {
        'lusnar': statistics(references),
        'generated': statistics(generated),
        'generated_share_over_lusnars': rounded(
            dict(zip(LUNAR_TERRAIN.names, shares / LUSNAR_SHARES, strict=True))
        ),
        'generated_depth_m': percentiles(np.concatenate(depths)),
    }
    if sets:
        results['share_over_lusnars_by_set'] = {
            str(seed): shares.result() for seed, shares in sets.items()
        }
    for name, value in results.items():
        print(name, value, sep='\n    ')
    if arguments.output:
        write_record(arguments.output, results)
    if arguments.picture:
        write_png(arguments.picture, contact_sheet([*references, *firsts]))
    if arguments.generated_picture:
        write_png(arguments.generated_picture, tiles(scenes))


def scene_of_set(seed: int, number: int, size: int) -> Moon:
    """Return a scene as `lunar-perception synth` makes it, with frames 4 m apart."""
    richness = richness_in_set(seed, number)
    return Moon(
        MoonConfig(scene_seed(seed, number), size=size, frame_interval=2.0, richness=richness)
    )


def set_shares(seed: int, scenes: int, frames: int, size: int) -> dict[str, float]:
    """Return the class shares of a set of scenes over LuSNAR's."""
    examples = [
        (frame.left, frame.label)
        for number in range(1, scenes + 1)
        for frame in scene_of_set(seed, number, size).frames(frames)
    ]
    shares = class_shares(examples) / LUSNAR_SHARES
    return rounded(dict(zip(LUNAR_TERRAIN.names, shares, strict=True)))


def read_references(folder: Path) -> Iterator[Example]:
    """Yield the reference frames."""
    for path in sorted(folder.glob('*_rgb.png')):
        label = cv2.imread(str(path).replace('_rgb', '_label'), cv2.IMREAD_GRAYSCALE)
        yield read_image(path), np.asarray(label)


def class_shares(examples: Sequence[Example]) -> np.ndarray:
    """Return the share of pixels by class id, mean over frames."""
    return np.mean(
        [np.bincount(label.ravel(), minlength=5) / label.size for _, label in examples], 0
    )


def statistics(examples: Sequence[Example]) -> dict[str, object]:
    """Return what can be told from images and labels alone."""
    grey = [image.mean(-1) for image, _ in examples]
    pixels = np.concatenate([g.ravel() for g in grey])
    labels = np.concatenate([label.ravel() for _, label in examples])
    edges = np.concatenate([edge_strength(g).ravel() for g in grey])
    present = [k for k in range(len(LUNAR_TERRAIN)) if (labels == k).any()]
    return {
        'share': rounded(dict(zip(LUNAR_TERRAIN.names, class_shares(examples), strict=True))),
        'brightness': {LUNAR_TERRAIN.names[k]: percentiles(pixels[labels == k]) for k in present},
        'edge_strength': {
            LUNAR_TERRAIN.names[k]: percentiles(edges[labels == k]) for k in present
        },
        'ground_contrast_by_octave': octaves(grey),
        'horizon_row': percentiles(np.concatenate([horizon(label) for _, label in examples])),
    }


def edge_strength(grey: np.ndarray) -> np.ndarray:
    """Return the length of the grey gradient, per pixel."""
    return np.hypot(
        *(cv2.Sobel(grey, cv2.CV_64F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    )


def octaves(grey: Sequence[np.ndarray]) -> dict[str, float]:
    """
    Return the contrast of the ground by scale: the mean over frames of the standard deviation.

    Of differences of Gaussians in the lower half of the image, divided by its mean.
    """
    contrast: dict[str, list[float]] = {}
    for image in grey:
        for sigma in (0.5, 1, 2, 4, 8):
            band = cv2.GaussianBlur(image, (0, 0), sigma) - cv2.GaussianBlur(
                image, (0, 0), 2 * sigma
            )
            middle = len(image) // 2
            share = band[middle:].std() / image[middle:].mean()
            contrast.setdefault(f'{sigma} px', []).append(share)
    return rounded({name: float(np.mean(values)) for name, values in contrast.items()})


def horizon(label: np.ndarray) -> np.ndarray:
    """Return each column's number of sky pixels over the image's height."""
    return (label == SKY).mean(axis=0)


def percentiles(values: np.ndarray) -> dict[str, float]:
    """Return the 5th, 50th and 95th percentile, and the mean."""
    low, middle, high = np.percentile(values, (5, 50, 95)).tolist()
    return rounded({'p5': low, 'p50': middle, 'p95': high, 'mean': float(values.mean())})


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Return the values with three digits after the point."""
    return {name: round(float(value), 3) for name, value in values.items()}


def tiles(images: Sequence[np.ndarray], columns: int = 3) -> np.ndarray:
    """Return images of one size as a table, row by row."""
    images = [*images, *[np.zeros_like(images[0])] * (-len(images) % columns)]
    table = np.stack(images).reshape(-1, columns, *images[0].shape)
    return np.concatenate([np.concatenate(row, 1) for row in table])


def contact_sheet(examples: Sequence[Example], columns: int = 6) -> np.ndarray:
    """Return all images, each above its label, twice their size."""
    cells = [np.concatenate([image, LUNAR_TERRAIN.colorize(label)]) for image, label in examples]
    sheet = tiles(cells, columns)
    return cv2.resize(sheet, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)


if __name__ == '__main__':
    main()
