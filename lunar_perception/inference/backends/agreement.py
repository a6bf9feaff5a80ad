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

"""The gate: a backend is used only where it says what torch says of a test picture."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

LEAST_AGREEMENT = 0.999
"""Share of labels that must be torch's."""

LARGEST_DIFFERENCE = 0.01
"""Largest relative difference from torch's depth, and of everything else that comes out."""


class BackendRefusedError(RuntimeError):
    """A backend does not say what torch says; the message holds the figures."""


def check_agreement(
    names: Sequence[str], reference: Sequence[Tensor], outputs: Sequence[Tensor]
) -> str:
    """
    Return the figures of how well a backend's outputs agree with torch's.

    Of logits (names that end so) the classes, along dimension 1, must agree; logs of a scale, as
    scales, and all else must lie within `LARGEST_DIFFERENCE` of torch's values. Raises
    BackendRefusedError, with the figures, when they do not, or are of another number or shape.
    """
    shapes = [[tuple(x.shape) for x in tensors] for tensors in (reference, outputs)]
    if shapes[0] != shapes[1]:
        raise BackendRefusedError(f'its outputs are of shapes {shapes[1]}, not {shapes[0]}')
    figures, sound = [], True
    for name, truth, output in zip(names, reference, outputs, strict=True):
        truth, output = truth.detach().cpu(), output.detach().cpu()
        if not bool(torch.isfinite(output).all()):
            figures.append(f'{name} is not finite')
            sound = False
        elif name.endswith('logits'):
            agreement = float((truth.argmax(1) == output.argmax(1)).float().mean())
            figures.append(f'{agreement:.3%} of {name} choose the same class')
            sound &= agreement >= LEAST_AGREEMENT
        else:
            difference = (output - truth).abs()
            if not name.endswith('log_scale'):
                # Of positive values such as depth, each by itself; zeros by the largest there is.
                positive = bool((truth > 0).all())
                difference /= truth if positive else truth.abs().max().clamp_min(1e-6)
            largest = float(difference.max())
            figures.append(f'{name} differs by up to {100 * largest:.2g} %')
            sound &= largest <= LARGEST_DIFFERENCE
    text = ', '.join(figures)
    if not sound:
        raise BackendRefusedError(
            f'it disagrees with torch: {text} '
            f'(needed: {LEAST_AGREEMENT:.1%} and {LARGEST_DIFFERENCE:.0%})'
        )
    return text


def test_picture(height: int, width: int) -> np.ndarray:
    """
    Return a picture (height, width, 3) uint8 RGB that is always the same.

    Ground, rough at every scale, with bowls, blocks and their shadows, under a black sky: enough
    for a network to say several things.
    """
    rng = np.random.default_rng(20)
    ground: np.ndarray = np.zeros((height, width), np.float32)
    for cells in (2, 4, 8, 16, 32, 64, 128):
        noise = rng.standard_normal((cells, cells)).astype(np.float32)
        ground += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) / cells**0.7
    picture = np.clip(120 + 30 * ground, 20, 255)
    for _ in range(24):
        u, v = rng.uniform(0, width), rng.uniform(0.35 * height, height)
        radius = (0.01 + 0.08 * rng.random() * v / height) * width
        axes = (max(round(radius), 1), max(round(radius * 0.5), 1))
        shade = 60 if rng.random() < 0.5 else 200
        centre = (round(u), round(v))
        cv2.ellipse(picture, centre, axes, 0, 0, 360, float(shade), -1)
        shadow = (round(u - 0.4 * radius), round(v + 0.1 * radius))
        cv2.ellipse(picture, shadow, (axes[0] // 2, axes[1] // 2), 0, 0, 360, 25.0, -1)
    horizon = 0.3 * height + 0.05 * height * ground[0]
    picture[np.arange(height)[:, None] < horizon] = 2
    return np.repeat(picture.astype(np.uint8)[..., None], 3, axis=2)
