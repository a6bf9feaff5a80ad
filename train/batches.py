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

"""Batches as a function of seed and step: nothing to save, any number of workers, any resume."""

from typing import NamedTuple

import cv2
from lunar_perception.taxonomy import LUNAR_TERRAIN
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from train.augment import augment, augment_teacher, AugmentConfig
from train.distributed import processes, rank
from train.frames import Frames

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)

RARE = LUNAR_TERRAIN.ids_of(('crater', 'rock'))


class Batch(NamedTuple):
    """
    What a training step sees.

    Fields:
        images: (B, 3, S, S) float32 RGB, ImageNet-normalised.
        label: (B, S, S) int64, 255 = unlabelled.
        depth: (B, 1, S, S) float32 metres for the canonical camera, +Inf sky, NaN unknown.
        names: scene/stamp of each frame.
        teacher: (B, 1, S, S) float32, what a teacher says, NaN unknown; None without one.

    """

    images: Tensor
    label: Tensor
    depth: Tensor
    names: list[str]
    teacher: Tensor | None = None

    def to(self, device: torch.device) -> 'Batch':
        """Return the batch on another device."""
        return Batch(
            self.images.to(device, non_blocking=True),
            self.label.to(device, non_blocking=True),
            self.depth.to(device, non_blocking=True),
            self.names,
            None if self.teacher is None else self.teacher.to(device, non_blocking=True),
        )


class TrainingBatches(Dataset[Batch]):
    """
    Item k is the batch of step k, `batch_size` frames of it for each process that trains along.

    Without `rare_sampling` every epoch is a permutation of the frames, else each place in a
    batch is drawn with weight 1 + rare_sampling · min(4, share / mean share), averaged over the
    rare classes. `teacher` (N, S', S') holds a teacher's map of every frame of `frames`.
    """

    def __init__(
        self,
        frames: Frames,
        indices: np.ndarray,
        *,
        size: int,
        batch_size: int,
        canonical_focal: float,
        augmentation: AugmentConfig,
        rare_sampling: float,
        seed: int,
        teacher: np.ndarray | None = None,
    ) -> None:
        self.frames, self.indices = frames, indices
        self.size, self.batch_size = size, batch_size
        self.canonical_focal, self.augmentation = canonical_focal, augmentation
        self.seed, self.teacher = seed, teacher
        # Asked here: a worker process does not know.
        self.processes, self.rank = processes(), rank()
        share = frames.share[indices][:, list(RARE)]
        wanted = np.minimum(4, share / np.maximum(share.mean(0), 1e-9)).mean(1)
        weight = 1 + rare_sampling * wanted
        self.probability = weight / weight.sum() if rare_sampling else None

    def frame_index(self, place: int) -> int:
        """Return which frame stands at a place in the endless sequence of samples."""
        count = len(self.indices)
        if self.probability is not None:
            draw = np.random.default_rng((self.seed, 1, place))
            return int(self.indices[draw.choice(count, p=self.probability)])
        epoch, position = divmod(place, count)
        order = np.random.default_rng((self.seed, 2, epoch)).permutation(count)
        return int(self.indices[order[position]])

    def __getitem__(self, step: int) -> Batch:
        cv2.setNumThreads(0)  # a worker has one core; elsewhere the network wants the others
        samples = []
        first = (step * self.processes + self.rank) * self.batch_size
        places = range(first, first + self.batch_size)
        chosen = [self.frame_index(place) for place in places]
        for place, i in zip(places, chosen, strict=True):
            image, label, depth, focal = augment(
                self.frames.image[i],
                self.frames.label[i],
                self.frames.depth[i],
                float(self.frames.focal[i]),
                self.size,
                self.augmentation,
                np.random.default_rng((self.seed, 3, place)),
            )
            samples.append((image, label, depth * (self.canonical_focal / focal)))
        batch = collate(samples, [self.frames.names[i] for i in chosen])
        if self.teacher is None:
            return batch
        maps = [
            augment_teacher(
                self.teacher[i],
                self.size,
                self.augmentation,
                np.random.default_rng((self.seed, 3, place)),
            )
            for place, i in zip(places, chosen, strict=True)
        ]
        return batch._replace(teacher=torch.from_numpy(np.stack(maps)[:, None]))


def collate(samples: list[tuple[np.ndarray, np.ndarray, np.ndarray]], names: list[str]) -> Batch:
    """Join (image in [0, 1], label, canonical depth) samples into a batch."""
    images, labels, depths = (np.stack(part) for part in zip(*samples, strict=True))
    images = (images - IMAGENET_MEAN) / IMAGENET_STD
    return Batch(
        torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(labels.astype(np.int64)),
        torch.from_numpy(depths.astype(np.float32))[:, None],
        names,
    )
