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

"""Crops in memory, and batches of them as a function of seed and step."""

from dataclasses import dataclass
from math import cos, exp, radians, sin
from typing import NamedTuple

import cv2
from lunar_perception.data.hirise import Crop, crop_border, read_image
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm
from train.batches import IMAGENET_MEAN, IMAGENET_STD
from train.terrain_config import CropAugmentConfig


@dataclass(frozen=True)
class CropImages:
    """
    Every crop of a data set, resized to one side S.

    Fields:
        image: (N, S, S, K) uint8, K = 1 where all crops are grey, else RGB.
        trimmed: the same, the map projection's black wedges cut off first.
        label: (N,) int64.
        crops: where each comes from.

    """

    image: np.ndarray
    trimmed: np.ndarray
    label: np.ndarray
    crops: list[Crop]

    @classmethod
    def read(cls, crops: list[Crop], size: int) -> 'CropImages':
        """Read the images; raises what `read_image` raises."""
        images = [read_image(crop.path) for crop in tqdm(crops, desc='reading crops')]
        grey = all((x[..., :1] == x).all() for x in images)
        channels = slice(0, 1 if grey else 3)
        whole = np.stack([resize(x, size)[..., channels] for x in images])
        trimmed = np.stack([resize(crop_border(x), size)[..., channels] for x in images])
        label = np.array([crop.label for crop in crops], np.int64)
        return cls(whole, trimmed, label, crops)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize (H, W, C) uint8 to (size, size, C): by area when it shrinks, else bilinearly."""
    shrinks = min(image.shape[:2]) >= size
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(image, (size, size), interpolation=way)
    return resized.reshape(size, size, image.shape[2])


def normalise(images: np.ndarray) -> Tensor:
    """Return (B, S, S, K) float32 in [0, 1] as (B, 3, S, S), ImageNet-normalised."""
    images = (images - IMAGENET_MEAN) / IMAGENET_STD  # grey is repeated
    return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)


class CropBatch(NamedTuple):
    """
    What a training step sees.

    Fields:
        images: (B, 3, S, S) float32, ImageNet-normalised.
        target: (B, C) float32 class probabilities.
        names: file of each crop.

    """

    images: Tensor
    target: Tensor
    names: list[str]

    def to(self, device: torch.device) -> 'CropBatch':
        """Return the batch on another device."""
        return CropBatch(
            self.images.to(device, non_blocking=True),
            self.target.to(device, non_blocking=True),
            self.names,
        )


class CropBatches(Dataset[CropBatch]):
    """Item k is the batch of step k, of the crops at `indices`."""

    def __init__(
        self,
        images: CropImages,
        indices: np.ndarray,
        *,
        classes: int,
        size: int,
        batch_size: int,
        augmentation: CropAugmentConfig,
        balance: float,
        source_balance: float,
        seed: int,
    ) -> None:
        self.images, self.indices = images, indices
        self.classes, self.size, self.batch_size = classes, size, batch_size
        self.augmentation, self.seed = augmentation, seed
        self.probability = draw_probability(images, indices, balance, source_balance)

    def __getitem__(self, step: int) -> CropBatch:
        cv2.setNumThreads(0)
        rng = np.random.default_rng((self.seed, 5, step))
        chosen = rng.choice(self.indices, self.batch_size, p=self.probability)
        config = self.augmentation
        pictures = []
        for i in chosen:
            kept = self.images.trimmed if rng.random() < config.crop_border else self.images.image
            pictures.append(augment_crop(kept[i], self.size, config, rng))
        x = np.stack(pictures)
        target = np.eye(self.classes, dtype=np.float32)[self.images.label[chosen]]
        x, target = mix(x, target, config, rng)
        names = [self.images.crops[i].path.name for i in chosen]
        return CropBatch(normalise(x), torch.from_numpy(target), names)


def draw_probability(
    images: CropImages, indices: np.ndarray, balance: float, source_balance: float
) -> np.ndarray:
    """Return how likely each of the crops at `indices` is drawn, (n,) summing to 1."""
    label = images.label[indices]
    source = [images.crops[i].source for i in indices]
    _, place, count = np.unique(
        [f'{k} {name}' for k, name in zip(label, source, strict=True)],
        return_inverse=True,
        return_counts=True,
    )
    weight = count[place].astype(float) ** -source_balance
    for k in np.unique(label):
        own = label == k
        weight[own] *= own.sum() ** (1 - balance) / weight[own].sum()
    return weight / weight.sum()


def augment_crop(
    image: np.ndarray, size: int, c: CropAugmentConfig, rng: np.random.Generator
) -> np.ndarray:
    """Return a changed view of a crop (S, S, K) uint8 as (size, size, K) float32 in [0, 1]."""
    side = image.shape[0]
    share = rng.uniform(c.smallest_crop, 1)
    angle = radians(rng.uniform(-c.rotation_deg, c.rotation_deg))
    mirror = -1.0 if rng.random() < c.flip else 1.0
    stretch = exp(rng.uniform(-c.stretch, c.stretch) / 2)
    slack = side * (1 - share) / 2
    centre = side / 2 + rng.uniform(-slack, slack, 2)
    scale = share * side / size
    turn = np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
    linear = scale * turn @ np.diag([mirror * stretch, 1 / stretch])
    # Maps output pixel centres to the crop's: OpenCV puts a pixel's centre at its index.
    offset = centre - 0.5 - linear @ np.full(2, size / 2 - 0.5)
    if scale > 1:  # warpAffine does not average over areas
        image = cv2.GaussianBlur(image, (3, 3), 0.45 * (scale**2 - 1) ** 0.5 + 1e-3)
    warped = cv2.warpAffine(
        image,
        np.column_stack((linear, offset)),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    x = warped.reshape(size, size, -1).astype(np.float32) / 255
    x = np.clip(x, 0, 1) ** np.float32(exp(rng.uniform(-c.gamma, c.gamma)))
    middle = x.mean()
    x = middle + (x - middle) * np.float32(exp(rng.uniform(-c.contrast, c.contrast)))
    x += np.float32(rng.uniform(-c.brightness, c.brightness))
    if rng.random() < c.blur:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.2)).reshape(x.shape)
    if c.noise:
        grain = rng.standard_normal((size, size, 1), np.float32)
        x += grain * np.float32(rng.uniform(0, c.noise))
    if rng.random() < c.erase:
        rows, columns = rectangle(size, rng.uniform(0.02, 0.2), rng)
        x[rows, columns] = rng.uniform(0, 1)
    return np.clip(x, 0, 1)


def mix(
    x: np.ndarray, target: np.ndarray, c: CropAugmentConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mix each batch of crops (B, S, S, K) and targets (B, C) with itself in another order."""
    order = rng.permutation(len(x))
    if rng.random() < c.cutmix:
        size = x.shape[1]
        share = rng.uniform(0.1, 0.5)
        rows, columns = rectangle(size, share, rng)
        x = x.copy()
        x[:, rows, columns] = x[order][:, rows, columns]
        share = len(range(*rows.indices(size))) * len(range(*columns.indices(size))) / size**2
    elif c.mixup:
        share = float(rng.beta(c.mixup, c.mixup))
        x = (1 - share) * x + share * x[order]
    else:
        return x, target
    return x.astype(np.float32), ((1 - share) * target + share * target[order]).astype(np.float32)


def rectangle(size: int, area: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Draw rows and columns of a rectangle that covers about `area` of a square."""
    ratio = exp(rng.uniform(-0.7, 0.7))
    height = min(size, max(1, round(size * (area * ratio) ** 0.5)))
    width = min(size, max(1, round(size * (area / ratio) ** 0.5)))
    top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
    return slice(top, top + height), slice(left, left + width)
