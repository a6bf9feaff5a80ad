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
LuSNAR scenes read once into memory-mapped arrays of one working size.

Decoding a megapixel PNG at every step would cost more than a small network's training step.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import json
import os
from pathlib import Path
import re
import shutil
from tempfile import TemporaryDirectory
from typing import Any

import cv2
from lunar_perception.atomic import write_json
from lunar_perception.data.lusnar import Frame, LusnarDataset, Scene
from lunar_perception.taxonomy import LUNAR_TERRAIN, UNLABELLED
import numpy as np
from tqdm import tqdm


@dataclass(frozen=True)
class Frames:
    """
    N square frames of side S, memory-mapped.

    Fields:
        image: (N, S, S, 3) uint8 RGB.
        label: (N, S, S) uint8 ids, 255 = unlabelled.
        depth: (N, S, S) float16 metres along Z, +Inf for sky.
        focal: (N,) float32, focal length over image width.
        share: (N, 5) float32, share of each class among the pixels.
        names: scene/stamp of each frame.

    """

    image: np.ndarray
    label: np.ndarray
    depth: np.ndarray
    focal: np.ndarray
    share: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> int:
        """Side in pixels."""
        return int(self.image.shape[1])

    def split(
        self, held_out: Sequence[str], left_out: Sequence[str] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the indices of the frames to train on and of those held out, by scene.

        `held_out` names scenes; empty means about every tenth scene, the last one at least: of
        each twenty the 10th and the 19th, so that even and odd ones are among them (`synth
        --vary-camera` draws every second scene's camera). `left_out` names scenes that are on
        neither side. Raises ValueError for an unknown scene, and when
        either side would be empty.
        """
        scene = np.array([name.split('/')[0] for name in self.names])
        scenes = sorted(set(scene), key=_natural)
        unknown = sorted({*held_out, *left_out} - set(scenes))
        if unknown:
            raise ValueError(
                f'held-out scene {unknown[0]} is not in the data; it has {", ".join(scenes)}'
            )
        kept = [name for name in scenes if name not in left_out]
        chosen = list(held_out) or kept[9::20] + kept[18::20] or kept[-1:]
        test = np.isin(scene, chosen)
        train = np.isin(scene, kept) & ~test
        if not train.any() or not test.any():
            raise ValueError(
                f'all of {", ".join(scenes)} would be held out; training needs scenes besides'
            )
        return np.flatnonzero(train), np.flatnonzero(test)


def load_frames(data: Path, size: int, cache: Path | None = None) -> Frames:
    """
    Read the data set at `data`, through a cache that is built when absent or out of date.

    `cache` is a folder for it, by default `<data>_cache_<size>` beside the data.
    Raises FileNotFoundError or ValueError when `data` has no frame.
    """
    data = data.resolve()
    cache = cache or data.with_name(f'{data.name}_cache_{size}')
    dataset = LusnarDataset(data)
    frames = [(scene, i) for scene in dataset for i in range(len(scene))]
    names = [f'{scene.name}/{stamp}' for scene in dataset for stamp in scene.stamps_ns]
    if not frames:
        raise ValueError(f'{data} has no frame')
    # A folder's time changes whenever a file appears in it.
    folders = [f for scene in dataset for f in sorted((data / scene.name).glob('image*/*'))]
    stamps = [f.stat().st_mtime_ns for f in folders if f.is_dir()]
    key = {'size': size, 'names': names, 'modified': stamps}
    index = cache / 'index.json'
    if not index.exists() or json.loads(index.read_text()) != key:
        _build(frames, size, cache, key)
    arrays = {
        name: np.load(cache / f'{name}.npy', mmap_mode='r')
        for name in ('image', 'label', 'depth', 'focal', 'share')
    }
    return Frames(**arrays, names=tuple(names))


def _build(frames: list[tuple[Scene, int]], size: int, cache: Path, key: dict[str, Any]) -> None:
    """Write the cache under a temporary name beside it, then put it in its place."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f'.{cache.name}.', dir=cache.parent) as temporary:
        building = Path(temporary) / cache.name
        building.mkdir()
        _fill(frames, size, building)
        write_json(building / 'index.json', key)
        shutil.rmtree(cache, ignore_errors=True)
        building.rename(cache)


def _fill(frames: list[tuple[Scene, int]], size: int, folder: Path) -> None:
    count, side = len(frames), (size, size)

    def new(name: str, shape: tuple[int, ...], dtype: type) -> np.memmap:
        path = folder / f'{name}.npy'
        return np.lib.format.open_memmap(path, 'w+', dtype, (count, *shape))

    image, label = new('image', (*side, 3), np.uint8), new('label', side, np.uint8)
    depth, focal = new('depth', side, np.float16), new('focal', (), np.float32)
    share = new('share', (len(LUNAR_TERRAIN),), np.float32)

    def read(i: int) -> None:
        scene, place = frames[i]
        image[i], label[i], depth[i], focal[i] = resize_frame(scene[place], size)
        share[i] = np.bincount(label[i].ravel(), minlength=256)[: len(LUNAR_TERRAIN)] / size**2

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in tqdm(pool.map(read, range(count)), 'frames into the cache', count):
            pass
    for array in (image, label, depth, focal, share):
        array.flush()


def resize_frame(frame: Frame, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """
    Return a frame's central square at `size`: image, label, depth, focal length over width.

    The image is averaged over areas, a label is the most frequent one of its area, a depth is
    its nearest pixel's (an average across an edge is the depth of nothing).
    """
    height, width = frame.label.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = slice(top, top + side), slice(left, left + side)
    image, label, depth = frame.image[square], frame.label[square], frame.depth[square]
    focal = frame.camera.fx / side
    if side != size:
        way = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        image = cv2.resize(image, (size, size), interpolation=way)
        label = _vote(label, size)
        depth = cv2.resize(depth, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    return image, label, depth.astype(np.float16), focal


def _vote(label: np.ndarray, size: int) -> np.ndarray:
    ids = [*range(len(LUNAR_TERRAIN)), UNLABELLED]
    area = [
        cv2.resize((label == i).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
        for i in ids
    ]
    return np.array(ids, np.uint8)[np.argmax(area, axis=0)]


def _natural(name: str) -> list[tuple[int, str]]:
    return [
        (int(part or -1), part) if part.isdigit() else (-1, part)
        for part in re.split(r'(\d+)', name)
    ]
