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
Generated Mars crops: rough likenesses of the eight landmark classes, to learn from first.

Each is a rough height field with the landmark's form set into it, lit from one side, with the
landmark's darker or brighter material laid over. They teach shapes and textures, not looks.
"""

from math import cos, exp, pi, sin

import cv2
from lunar_perception.taxonomy import HIRISE_LANDMARKS
import numpy as np
import torch
from torch.utils.data import Dataset
from train.terrain_batches import augment_crop, CropBatch, mix, normalise
from train.terrain_config import CropAugmentConfig


class GeneratedBatches(Dataset[CropBatch]):
    """Item k is a batch of crops that no one has seen before, every class equally often."""

    def __init__(
        self, *, size: int, batch_size: int, augmentation: CropAugmentConfig, seed: int
    ) -> None:
        self.size, self.batch_size = size, batch_size
        self.augmentation, self.seed = augmentation, seed

    def __getitem__(self, step: int) -> CropBatch:
        cv2.setNumThreads(0)
        rng = np.random.default_rng((self.seed, 6, step))
        labels = rng.integers(0, len(HIRISE_LANDMARKS), self.batch_size)
        pictures = [
            augment_crop(generate_crop(int(k), self.size, rng), self.size, self.augmentation, rng)
            for k in labels
        ]
        target = np.eye(len(HIRISE_LANDMARKS), dtype=np.float32)[labels]
        x, target = mix(np.stack(pictures), target, self.augmentation, rng)
        names = [f'generated {HIRISE_LANDMARKS.names[k]}' for k in labels]
        return CropBatch(normalise(x), torch.from_numpy(target), names)


def generate_crop(label: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a crop of a class as (size, size, 1) uint8."""
    height = _noise(size, rng.uniform(1.4, 2.6), rng) * exp(rng.uniform(-3.5, -1.2))
    albedo = 0.15 * _noise(size, 2.0, rng)
    if rng.random() < 0.3:  # scattered small craters are everywhere
        for _ in range(rng.integers(1, 6)):
            height += _crater(size, rng.uniform(0.02, 0.07), rng) * 0.5
    draw = _DRAWN.get(HIRISE_LANDMARKS.names[label])
    if draw is not None:
        form, material = draw(size, rng)
        height, albedo = height + form, albedo + material
    elif rng.random() < 0.4:  # grooves and layers are no landmark
        height += rng.uniform(0.2, 1) * _ripples(size, rng.uniform(3, 12), 0.15, rng)
    dy, dx = np.gradient(height * size / 8)
    sun = rng.uniform(0, 2 * pi)
    light = (dx * cos(sun) + dy * sin(sun)) * exp(rng.uniform(-0.8, 0.3))
    ground = rng.uniform(0.2, 0.75)
    image = ground * (1 + 0.5 * np.tanh(light) + 0.5 * np.clip(albedo, -1.2, 1.2))
    image += rng.uniform(0.005, 0.03) * rng.standard_normal(image.shape)
    levels = np.clip(image, 0, 1) * 255
    if rng.random() < 0.2:  # the map projection's wedge
        y, x = _grid(size)
        turn = rng.uniform(0, 2 * pi)
        levels[x * cos(turn) + y * sin(turn) > rng.uniform(0.3, 0.9)] = 0
    return levels.astype(np.uint8)[..., None]


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return y and x in [−1, 1], each (size, size)."""
    steps = np.linspace(-1, 1, size)
    y, x = np.meshgrid(steps, steps, indexing='ij')
    return y, x


def _noise(size: int, power: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise of spectrum f^−power, mean 0 and standard deviation 1, (size, size)."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    f[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * f**-power
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (size, size))
    return field / field.std()


def _crater(size: int, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Return a bowl with a rim; `radius` is a share of the side."""
    y, x = _grid(size)
    cy, cx = rng.uniform(-0.9, 0.9, 2) if radius < 0.1 else rng.uniform(-0.25, 0.25, 2)
    stretch = exp(rng.uniform(-0.15, 0.15))
    r = np.hypot((x - cx) * stretch, (y - cy) / stretch) / (2 * radius)
    if radius > 0.1:
        r *= 1 + 0.06 * _noise(size, 2.0, rng)
    floor = rng.uniform(0.3, 1.0)  # filled craters have flat floors
    bowl = np.maximum(r**2 - 1, -floor) * (r < 1)
    rim = rng.uniform(0.15, 0.4) * np.exp(-(((r - 1) / 0.25) ** 2))
    return (bowl + rim) * radius * 2.5


def _ripples(size: int, waves: float, warp: float, rng: np.random.Generator) -> np.ndarray:
    """Return wavy parallel ridges in [0, 1]."""
    y, x = _grid(size)
    turn = rng.uniform(0, 2 * pi)
    along = x * cos(turn) + y * sin(turn) + warp * _noise(size, 2.0, rng)
    return (0.5 + 0.5 * np.sin(pi * waves * along)) ** rng.uniform(1, 3)


def _draw_crater(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    bowl = _crater(size, rng.uniform(0.18, 0.42), rng) * exp(rng.uniform(-1.0, 0.3))
    return bowl, -rng.uniform(-0.3, 0.5) * (bowl < -0.1)


def _draw_dark_dune(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    patch = 1 / (1 + np.exp(-6 * (_noise(size, 2.4, rng) + rng.uniform(-0.2, 0.7))))
    ridges = _ripples(size, rng.uniform(2, 7), 0.25, rng)
    return patch * ridges * rng.uniform(0.3, 1), -rng.uniform(0.8, 1.6) * patch


def _draw_slope_streak(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((size, size), np.uint8)
    fall, spread = rng.uniform(0, 2 * pi), rng.uniform(0.01, 0.08)
    for _ in range(rng.integers(1, 9)):
        at = rng.uniform(0.0, 1.0, 2) * size
        length = rng.uniform(0.2, 0.9) * size
        turn = fall + rng.normal(0, 0.12)
        along = np.array([cos(turn), sin(turn)])
        across = np.array([-along[1], along[0]])
        wide = length * spread * rng.uniform(0.5, 2)
        bend = across * rng.normal(0, 0.05) * length
        points = [
            at,
            at + along * length * 0.5 + bend + across * wide * 0.7,
            at + along * length + across * wide,
            at + along * length * 1.03,
            at + along * length - across * wide,
            at + along * length * 0.5 + bend - across * wide * 0.7,
        ]
        cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 255)
    soft = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.4, 1.0)).astype(float) / 255
    slope = 0.2 * _grid(size)[0] * rng.uniform(-1, 1)
    return slope, soft * rng.choice([-1.0, -1.0, -1.0, 0.6]) * rng.uniform(0.3, 1.2)


def _draw_bright_dune(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    y, x = _grid(size)
    form = np.zeros((size, size))
    for _ in range(rng.integers(1, 8)):
        cy, cx = rng.uniform(-0.8, 0.8, 2)
        reach, warp = rng.uniform(0.08, 0.22), 0.5 * _noise(size, 2.0, rng)
        form += np.exp(-((np.hypot(x - cx, y - cy) / reach * (1 + 0.4 * warp)) ** 4))
    form = np.minimum(form, 1)
    grain = 0.25 * _noise(size, 0.7, rng)
    spots = np.exp(-(((form - 0.5) / 0.2) ** 2)) * (_noise(size, 1.0, rng) > 0.8)
    return form * rng.uniform(0.3, 1) + 0.05 * grain, form * rng.uniform(0.4, 1) - spots + grain


def _draw_impact_ejecta(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    y, x = _grid(size)
    cy, cx = rng.uniform(-0.3, 0.3, 2)
    r, turn = np.hypot(x - cx, y - cy), np.arctan2(y - cy, x - cx)
    reach = rng.uniform(0.15, 0.6)
    rays = sum(
        rng.uniform(0.2, 1) * np.cos(k * turn + rng.uniform(0, 2 * pi)) for k in range(2, 24)
    )
    edge = reach * (1 + 0.25 * rays + 0.15 * _noise(size, 1.5, rng))
    blanket = np.exp(-((r / np.maximum(edge, 0.05)) ** 2))
    radius = rng.uniform(0.03, 0.1)
    bowl = np.where(r < 2 * radius, (r / (2 * radius)) ** 2 - 1, 0) * radius * 4
    tone = rng.choice([-1.0, -1.0, 0.8]) * rng.uniform(0.5, 1.3)
    return bowl, tone * blanket


def _draw_swiss_cheese(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    field = cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), rng.uniform(3, 10))
    level = np.quantile(field, rng.uniform(0.25, 0.7))
    mesa = 1 / (1 + np.exp(-(field - level) / field.std() * rng.uniform(8, 20)))
    ring = np.exp(-(((field - level) / field.std() / 0.15) ** 2))
    return mesa * rng.uniform(0.2, 0.8), rng.uniform(-0.6, 0.5) * ring + rng.uniform(0, 0.5) * mesa


def _draw_spider(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    canvas = np.zeros((size, size), np.uint8)
    for _ in range(rng.integers(1, 9)):
        centre = rng.uniform(0.15, 0.85, 2) * size
        legs = rng.integers(4, 10)
        wide = max(1, round(size * rng.uniform(0.006, 0.018)))
        for leg in range(legs):
            _walk(canvas, centre, 2 * pi * leg / legs + rng.normal(0, 0.3), wide, size, rng)
    soft = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.5, 1.2)).astype(float) / 255
    return -soft * rng.uniform(0.2, 0.8), soft * rng.uniform(-0.8, 0.8)


def _walk(
    canvas: np.ndarray,
    at: np.ndarray,
    turn: float,
    wide: int,
    size: int,
    rng: np.random.Generator,
) -> None:
    """Draw a branching channel outwards from a place."""
    for _ in range(rng.integers(4, 10)):
        turn += rng.normal(0, 0.35)
        to = at + size * rng.uniform(0.015, 0.04) * np.array([cos(turn), sin(turn)])
        ends = [tuple(int(v) for v in np.rint(p)) for p in (at, to)]
        cv2.line(canvas, *ends, 255, wide, cv2.LINE_AA)
        at = to
        if rng.random() < 0.15:
            _walk(
                canvas,
                at,
                turn + rng.choice([-1, 1]) * rng.uniform(0.4, 1),
                max(1, wide - 1),
                size,
                rng,
            )


_DRAWN = {
    'crater': _draw_crater,
    'dark dune': _draw_dark_dune,
    'slope streak': _draw_slope_streak,
    'bright dune': _draw_bright_dune,
    'impact ejecta': _draw_impact_ejecta,
    'swiss cheese': _draw_swiss_cheese,
    'spider': _draw_spider,
}
