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

"""The unified network on one camera image: resizing, normalising, focal length, device."""

from math import sqrt
from pathlib import Path
from typing import Any

import cv2
from lunar_perception.camera import LUSNAR_CAMERA, PinholeCamera
from lunar_perception.inference.backends.runner import NetworkRunner
from lunar_perception.inference.prediction import Prediction
from lunar_perception.models import UnifiedModel, UnifiedOutput
import numpy as np
import torch

SHIPPED_WEIGHTS = Path(__file__).resolve().parents[1] / 'weights' / 'rover'
"""The checkpoint folder inside the package that is loaded when no other is named."""

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


class UnifiedPredictor:
    """
    The unified network, from a camera image to a `Prediction` at the image's size.

    Fields:
        model: the network, in evaluation, on `device`.
        config: the network's configuration.
        device: where it runs.
        precision: the type that its convolutions and products are computed in.

    """

    def __init__(
        self,
        model: UnifiedModel,
        *,
        device: str = 'auto',
        precision: str = 'auto',
        backend: str = 'torch',
    ) -> None:
        """
        Take a network onto a device.

        `device` is 'auto' (CUDA where there is one), 'cpu', 'cuda' or 'cuda:<n>'; `precision`
        'auto' (bf16 on CUDA; fp32 on the CPU, where `backend` 'auto' may still choose to round
        what bears it), 'fp32', 'bf16' or 'fp16'; `backend` 'auto' (the fastest that is installed
        and agrees with torch) or one of BACKENDS, which all but torch keep a copy of the weights.
        Raises ValueError for any other, and for a device that this machine lacks.
        """
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self._runner = NetworkRunner(
            model,
            device=self.device,
            precision=self.precision,
            backend=backend,
            may_round=precision == 'auto',
        )
        self.model = model
        self.config = model.config

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        device: str = 'auto',
        precision: str = 'auto',
        backend: str = 'auto',
        download: bool = False,
    ) -> 'UnifiedPredictor':
        """
        Load a checkpoint: a folder, a Hub id, or None for the weights that ship with the package.

        A Hub id is fetched only with `download`. Raises OSError when the checkpoint is not found,
        ValueError when it is damaged, pickled or not of one piece, and for a bad device, precision
        or backend.
        """
        choose_precision(precision, choose_device(device))
        source = SHIPPED_WEIGHTS if model is None else model
        network = UnifiedModel.from_pretrained(source, download=download)
        return cls(network, device=device, precision=precision, backend=backend)

    @property
    def backend(self) -> str:
        """What runs the network; 'auto' as long as nothing was predicted."""
        return self._runner.backend

    @property
    def refusals(self) -> dict[str, str]:
        """Why backends that were tried are not used, by name."""
        return self._runner.refusals

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """
        Return the (height, width) that an image is resized to for the network.

        Its area is at most input_size², its sides are multiples of the network's `multiple`, and
        its aspect is the image's, as nearly as these allow.
        """
        area, step = self.config.input_size**2, self.model.multiple
        near, far = sorted((height, width))
        # Rounding weighs more on the shorter side, so the longer one follows from it.
        short = max(int(sqrt(area * near / far) / step + 1e-9), 1) * step
        long = max(min(round(short * far / near / step), area // short // step), 1) * step
        return (short, long) if height <= width else (long, short)

    def __call__(self, image: np.ndarray, camera: PinholeCamera | None = None) -> Prediction:
        """
        Predict for one image.

        `image` is (H, W, 3) uint8 RGB, `camera` the camera that took it; None stands for one with
        LuSNAR's field of view. On CUDA the network may still be running when this returns; the
        prediction's arrays wait for it. Raises ValueError for another shape or dtype, and for a
        camera of another size than the image's; BackendError or BackendRefusedError where the
        chosen backend can not be used.
        """
        check_image(image)
        height, width = image.shape[:2]
        focal = LUSNAR_CAMERA.fx / LUSNAR_CAMERA.width
        if camera is not None:
            if (camera.height, camera.width) != (height, width):
                raise ValueError(
                    f'the camera is of {camera.width}×{camera.height} pixels, '
                    f'the image of {width}×{height}'
                )
            focal = camera.fx / camera.width
        output = UnifiedOutput(*self._runner(self._resize(image)))
        return Prediction(
            output,
            (height, width),
            focal / self.config.canonical_focal,
            self.config,
            in_numpy=self.device.type == 'cpu' and self.backend != 'torch',
        )

    def warm_up(self, height: int, width: int) -> None:
        """
        Make ready for images of this size, so that the first takes no longer than later ones.

        Raises as a call does where the chosen backend can not be used.
        """
        self._runner.prepare(*self.network_size(height, width))
        if self.backend == 'torch':  # the others ran already, when they were checked
            prediction = self(np.zeros((height, width, 3), np.uint8))
            _ = prediction.confidence, prediction.uncertainty

    def _resize(self, image: np.ndarray) -> np.ndarray:
        height, width = self.network_size(*image.shape[:2])
        if image.shape[:2] == (height, width):
            return np.require(image, requirements=('C', 'W'))  # torch wants to own it
        shrinks = height * width < image.shape[0] * image.shape[1]
        mode = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=mode)


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; ValueError when there is none such on this machine."""
    cuda = torch.cuda.is_available()
    if name == 'auto':
        return torch.device('cuda' if cuda else 'cpu')
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ('cpu', 'cuda'):
        raise ValueError(f"unknown device '{name}'; choose auto, cpu, cuda or cuda:<number>")
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device '{name}' is not on this machine; choose auto or cpu")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of precision `name` on a device; ValueError for an unknown one."""
    if name == 'auto':
        name = 'bf16' if device.type == 'cuda' else 'fp32'
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision '{name}'; choose auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def check_image(image: Any) -> None:
    """Raise ValueError unless `image` is a (H, W, 3) uint8 array with at least one pixel."""
    if not isinstance(image, np.ndarray):
        raise ValueError(f'the image is a {type(image).__name__}, not a NumPy array')
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f'the image has shape {image.shape}; it must be (H, W, 3), not empty')
    if image.dtype != np.uint8:
        raise ValueError(f'the image is of {image.dtype}; it must be uint8')
