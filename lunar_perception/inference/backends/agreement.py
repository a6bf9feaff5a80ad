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
from pathlib import Path

import cv2
from lunar_perception.data.image_file import read_image
from lunar_perception.taxonomy import SKY
import numpy as np
import torch
from torch import Tensor

LEAST_AGREEMENT = 0.999
"""Share of labels that must be torch's."""

LARGEST_DIFFERENCE = 0.01
"""Largest relative difference from torch's depth, and of everything else that comes out."""

PICTURE = Path(__file__).with_name('test_picture.png')


class BackendRefusedError(RuntimeError):
    """A backend does not say what torch says; the message holds the figures."""


def check_agreement(
    names: Sequence[str], reference: Sequence[Tensor], outputs: Sequence[Tensor]
) -> str:
    """
    Return the figures of how well a backend's outputs agree with torch's.

    Of logits (names that end so) the classes, along dimension 1, must agree; logs of a scale, as
    scales, and all else must lie within `LARGEST_DIFFERENCE` of torch's values. Depth, its scale
    too, counts where torch's `label_logits`, which come before and are of its size, say anything
    but sky: the sky has none. Raises BackendRefusedError, with the figures, when they do not, or
    are of another number or shape.
    """
    shapes = [[tuple(x.shape) for x in tensors] for tensors in (reference, outputs)]
    if shapes[0] != shapes[1]:
        raise BackendRefusedError(f'its outputs are of shapes {shapes[1]}, not {shapes[0]}')
    ground: Tensor | None = None
    figures, sound = [], True
    for name, truth, output in zip(names, reference, outputs, strict=True):
        truth, output = truth.detach().cpu(), output.detach().cpu()
        if not bool(torch.isfinite(output).all()):
            figures.append(f'{name} is not finite')
            sound = False
        elif name.endswith('logits'):
            classes = truth.max(1, keepdim=True).indices
            agreement = float((classes == output.max(1, keepdim=True).indices).float().mean())
            figures.append(f'{agreement:.3%} of {name} choose the same class')
            sound &= agreement >= LEAST_AGREEMENT
            if name == 'label_logits' and bool((classes != SKY).any()):
                ground = classes != SKY
        else:
            if name.startswith('depth') and ground is not None:
                truth, output = truth[ground], output[ground]
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
    Return a picture (height, width, 3) uint8 RGB that is always the same: generated ground.

    Rocks, craters, mountains and sky, with long shadows; cut from the middle where it is not
    square. (Frame 2 of a Moon of seed 957, images 2 s apart, in grey.)
    """
    picture = read_image(PICTURE)
    side = max(height, width)
    mode = cv2.INTER_AREA if side < len(picture) else cv2.INTER_LINEAR
    picture = cv2.resize(picture, (side, side), interpolation=mode)
    above, left = (side - height) // 2, (side - width) // 2
    rows, columns = slice(above, above + height), slice(left, left + width)
    return np.ascontiguousarray(picture[rows, columns])
