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

"""What the speed benchmarks share: their arguments, the input image and the device."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
import os
from pathlib import Path

import cv2
from lunar_perception.inference.backends.agreement import test_picture
import numpy as np
import torch

SIDE = 448
"""Side in pixels of the rover weights' input, and of the images that they are timed on."""


def arguments(summary: str, *, repeats: int) -> ArgumentParser:
    """Return a parser with what every benchmark knows."""
    parser = ArgumentParser(description=summary)
    parser.add_argument('--repeats', type=int, default=repeats, help='(%(default)s)')
    parser.add_argument(
        '--threads',
        type=int,
        default=len(os.sched_getaffinity(0)),
        help='threads on the CPU (%(default)s)',
    )
    parser.add_argument('--device', default='cpu', help='cpu or cuda (%(default)s)')
    parser.add_argument('--output', type=Path, help='where the figures go, as JSON')
    return parser


def prepare(options: Namespace) -> Callable[[], None]:
    """Set the number of threads, and return what waits for the device to have finished."""
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    os.environ['OMP_NUM_THREADS'] = str(options.threads)  # for the processes that it starts
    if torch.device(options.device).type == 'cpu':
        return lambda: None
    return partial(torch.cuda.synchronize, options.device)


def camera_image(height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """Return an image (height, width, 3) uint8 RGB of generated ground, always the same."""
    return test_picture(height, width)
