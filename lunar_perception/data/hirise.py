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
HiRISE landmark crops on disk, in any of the layouts that they come in.

- v3 and v3.2 (Zenodo 2538136, 4002935): `labels-map-proj…txt` (filename, id, and in the split
  file the set), `landmarks_map-proj…classmap.csv` (id, name), crops in `map-proj…/`;
- Mars-Bench: `annotation.csv` (file_id, feature_name, label, split), crops in
  `data/<split>/<feature_name>/<file_id>`;
- one folder a class.

Classes are read by name: ids differ between copies. A crop's name, such as
`ESP_011623_2100_RED-0069-r90.jpg`, says which observation it was cut from (the source), which
landmark of it, and which augmentation, if any, it is.
"""

from collections.abc import Sequence
import csv
from dataclasses import dataclass
from pathlib import Path
import re
import warnings

import cv2
from lunar_perception.data import image_file
from lunar_perception.taxonomy import HIRISE_LANDMARKS, Taxonomy
import numpy as np

IMAGE_SUFFIXES = frozenset({'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff'})

SETS = {'train': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test'}
"""How the published splits spell their sets."""

LEAST_SIDE = 8
"""Crops with fewer pixels a side show no terrain."""

_NAME = re.compile(
    r'(?P<landmark>(?P<source>[A-Z]{3}_\d{6}_\d{4})_[A-Z]+-\d+)'
    r'(?:-(?:r90|r180|r270|fh|fv|brt))?'
)


@dataclass(frozen=True)
class Crop:
    """
    One labelled crop.

    Fields:
        path: its image.
        label: id in HIRISE_LANDMARKS.
        source: the observation that it was cut from (`ESP_011623_2100`).
        landmark: the place that it shows, shared by its augmentations.
        split: 'train', 'val' or 'test' where the data set says so.

    """

    path: Path
    label: int
    source: str
    landmark: str
    split: str | None = None


def read_crops(folder: Path, taxonomy: Taxonomy = HIRISE_LANDMARKS) -> list[Crop]:
    """
    Return every crop of the data set in `folder`, or in its only subfolder, in order of name.

    Raises FileNotFoundError when there is none or when a label names a crop that is missing, and
    ValueError for an unknown class, a class without crops and a damaged label file.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} is no folder')
    labels = _label_file(folder)
    inside = [path for path in folder.iterdir() if path.is_dir()]
    if labels is None and not (folder / 'annotation.csv').is_file() and len(inside) == 1:
        folder = inside[0]
        labels = _label_file(folder)
    if labels is not None:
        crops = _read_map_projected(folder, labels, taxonomy)
    elif (folder / 'annotation.csv').is_file():
        crops = _read_mars_bench(folder, taxonomy)
    else:
        crops = _read_class_folders(folder, taxonomy)
    strange = [crop.path.name for crop in crops if crop.source == crop.path.stem]
    if strange:
        warnings.warn(
            f'{len(strange)} crops (such as {strange[0]}) are not named like HiRISE crops; each '
            'is taken for a source of its own, so that siblings may leak across a split',
            stacklevel=2,
        )
    return sorted(crops, key=lambda crop: crop.path.stem)


def class_id(name: str, taxonomy: Taxonomy = HIRISE_LANDMARKS) -> int:
    """
    Return the id of a class by name, however spelt ('Dark Dune', 'dark_dune').

    Raises ValueError for a class that the taxonomy does not have.
    """
    return taxonomy.id_of(re.sub(r'[\s_-]+', ' ', name.strip().lower()))


def read_image(path: Path) -> np.ndarray:
    """
    Return a crop's image as `image_file.read_image` does.

    Raises what that raises, and ValueError when it is too small to show anything.
    """
    image = image_file.read_image(path)
    height, width = image.shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise ValueError(
            f'{path} has {width} × {height} pixels; a crop needs {LEAST_SIDE} × {LEAST_SIDE}'
        )
    return image


def crop_border(image: np.ndarray, level: int = 4) -> np.ndarray:
    """
    Return a view of an image (H, W, 3) uint8 without the black wedges of its map projection.

    Sides are peeled off, the blackest first, until none is more than a tenth border, or half of
    the image's side is gone. Border is what is at most `level` and joined to the image's edge;
    shadows within the image stay.
    """
    dark = (image.max(axis=2) <= level).astype(np.uint8)
    if not dark.any():
        return image
    # A black frame of one pixel joins everything that touches the edge.
    framed = np.pad(dark, 1, constant_values=1)
    _, parts = cv2.connectedComponents(framed, connectivity=4)
    border = (parts == parts[0, 0])[1:-1, 1:-1]
    top, bottom, left, right = 0, image.shape[0], 0, image.shape[1]
    while bottom - top > image.shape[0] // 2 and right - left > image.shape[1] // 2:
        window = border[top:bottom, left:right]
        shares = [
            window[0].mean(),
            window[-1].mean(),
            window[:, 0].mean(),
            window[:, -1].mean(),
        ]
        side = int(np.argmax(shares))
        if shares[side] <= 0.1:
            break
        top, bottom = top + (side == 0), bottom - (side == 1)
        left, right = left + (side == 2), right - (side == 3)
    return image[top:bottom, left:right]


def source_folds(crops: Sequence[Crop], folds: int, seed: int = 0) -> np.ndarray:
    """
    Return a fold in [0, folds) for each crop, (N,) int64; crops of one source share theirs.

    Sources are dealt out one by one, those with most of a rare class first, each to the fold
    that brings the classes' shares nearest to equal. Raises ValueError when there are fewer
    sources than folds.
    """
    sources = sorted({crop.source for crop in crops})
    if not 2 <= folds <= len(sources):
        raise ValueError(f'{len(sources)} sources can not make {folds} folds')
    place = {source: i for i, source in enumerate(sources)}
    counts = np.zeros((len(sources), max(crop.label for crop in crops) + 1))
    for crop in crops:
        counts[place[crop.source], crop.label] += 1
    counts /= np.maximum(counts.sum(axis=0), 1)  # each source's share of every class
    rng = np.random.default_rng((seed, 7))
    weight = (counts**2).sum(axis=1) + 1e-9 * rng.random(len(sources))
    held = np.zeros((folds, counts.shape[1]))
    fold = np.zeros(len(sources), np.int64)
    first = rng.permutation(folds)  # who wins a tie
    for source in np.argsort(-weight):
        after = ((held + counts[source]) ** 2 - held**2).sum(axis=1)
        fold[source] = first[np.argmin(after[first])]
        held[fold[source]] += counts[source]
    return fold[[place[crop.source] for crop in crops]]


def split_by_source(
    crops: Sequence[Crop], held_out: float = 0.2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return indices of crops to train on and to test on, no source on both sides.

    `held_out` is about the share of every class that is tested on. Raises ValueError when there
    are too few sources.
    """
    folds = source_folds(crops, max(2, round(1 / held_out)), seed)
    return np.flatnonzero(folds != 0), np.flatnonzero(folds == 0)


def split_at_random(
    crops: Sequence[Crop], held_out: float = 0.2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return indices to train on and to test on, drawn by file as the paper does it (80/20).

    Warns: a crop's siblings and its source stand on both sides, and figures come out too good.
    """
    order = np.random.default_rng((seed, 8)).permutation(len(crops))
    tested = round(held_out * len(crops))
    test, train = np.sort(order[:tested]), np.sort(order[tested:])
    known = {crops[i].landmark for i in train}
    leaked = sum(crops[i].landmark in known for i in test)
    shared = {crops[i].source for i in train}
    same_source = sum(crops[i].source in shared for i in test)
    warnings.warn(
        f'a random split leaks: of {len(test)} test crops, {leaked} show a landmark that is also '
        f'trained on, {same_source} come from a source that is',
        stacklevel=2,
    )
    return train, test


def _label_file(folder: Path) -> Path | None:
    """Return v3's or v3.2's label file, the one with the official split before others."""
    found = sorted(folder.glob('labels-map-proj*.txt'))
    split = [path for path in found if 'train_val_test' in path.name]
    return next(iter(split or found), None)


def _read_map_projected(folder: Path, labels: Path, taxonomy: Taxonomy) -> list[Crop]:
    ids = _class_map(folder, taxonomy)
    images = sorted(path for path in folder.glob('map-proj*') if path.is_dir())
    if len(images) != 1:
        found = ', '.join(path.name for path in images) or 'none'
        raise FileNotFoundError(f'{folder} needs one folder map-proj… of crops; found: {found}')
    crops = []
    present = {path.name for path in images[0].iterdir()}
    for number, line in enumerate(labels.read_text().splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) not in (2, 3) or not words[1].isdigit():
            raise ValueError(f"{labels}:{number}: '{line}' is not 'filename id' or with a set")
        name, label = words[0], int(words[1])
        if label not in ids:
            raise ValueError(f'{labels}:{number}: class {label} is not in the class map')
        split = None
        if len(words) == 3:
            split = SETS.get(words[2].lower())
            if split is None:
                raise ValueError(f"{labels}:{number}: unknown set '{words[2]}'")
        if name not in present:
            raise FileNotFoundError(f'{labels}:{number} names {name}, which is not in {images[0]}')
        crops.append(_crop(images[0] / name, ids[label], split))
    if not crops:
        raise ValueError(f'{labels} names no crops')
    return crops


def _class_map(folder: Path, taxonomy: Taxonomy) -> dict[int, int]:
    """Return the taxonomy's id for each id of the data set's own class map."""
    found = sorted(folder.glob('landmarks_map-proj*classmap.csv'))
    if not found:
        raise FileNotFoundError(f'{folder} has no landmarks_map-proj…classmap.csv')
    ids = {}
    with found[0].open(newline='') as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row or row[0].strip().lower() in ('id', 'class'):
                continue
            if len(row) < 2 or not row[0].strip().isdigit():
                raise ValueError(f"{found[0]}:{number}: '{','.join(row)}' is not 'id,name'")
            ids[int(row[0])] = _named(row[1], f'{found[0]}:{number}', taxonomy)
    return ids


def _read_mars_bench(folder: Path, taxonomy: Taxonomy) -> list[Crop]:
    table = folder / 'annotation.csv'
    crops = []
    with table.open(newline='') as file:
        reader = csv.DictReader(file)
        wanted = ('file_id', 'feature_name', 'split')
        missing = [name for name in wanted if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f'{table} has no column {", ".join(missing)}')
        for number, row in enumerate(reader, 2):
            split = SETS.get(row['split'].lower())
            if split is None:
                raise ValueError(f"{table}:{number}: unknown set '{row['split']}'")
            path = folder / 'data' / row['split'] / row['feature_name'] / row['file_id']
            if not path.is_file():
                raise FileNotFoundError(f'{table}:{number} names {path}, which does not exist')
            label = _named(row['feature_name'], f'{table}:{number}', taxonomy)
            crops.append(_crop(path, label, split))
    if not crops:
        raise ValueError(f'{table} names no crops')
    return crops


def _read_class_folders(folder: Path, taxonomy: Taxonomy) -> list[Crop]:
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    if not classes:
        raise FileNotFoundError(
            f'{folder} is no data set: no labels-map-proj…txt, no annotation.csv, and no folder '
            f'named for a class ({", ".join(taxonomy.names)})'
        )
    crops = []
    for inside in classes:
        label = _named(inside.name, str(inside), taxonomy)
        images = [path for path in inside.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
        if not images:
            raise ValueError(f'{inside} holds no crops; fill it or take it away')
        crops += [_crop(path, label, None) for path in images]
    return crops


def _crop(path: Path, label: int, split: str | None) -> Crop:
    name = _NAME.fullmatch(path.stem)
    if name is None:
        return Crop(path, label, path.stem, path.stem, split)
    return Crop(path, label, name['source'], name['landmark'], split)


def _named(name: str, where: str, taxonomy: Taxonomy) -> int:
    try:
        return class_id(name, taxonomy)
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from None
