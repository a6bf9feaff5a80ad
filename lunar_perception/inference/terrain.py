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

"""The Mars terrain network on one image: resizing, normalising, device, calibration."""

from colorsys import hsv_to_rgb
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
from lunar_perception.inference.backends.pixel_network import IMAGENET_MEAN, IMAGENET_STD
from lunar_perception.inference.backends.runner import NetworkRunner
from lunar_perception.inference.predictor import check_image, choose_device, choose_precision
from lunar_perception.models.terrain import TerrainModel, TerrainOutput
from lunar_perception.taxonomy import HIRISE_LANDMARKS, Taxonomy
import numpy as np
import torch
from torch import nn, Tensor
from torch.nn import functional as F

SHIPPED_WEIGHTS = Path(__file__).resolve().parents[1] / 'weights' / 'terrain'
"""The checkpoint folder inside the package that is loaded when no other is named."""


class TerrainPrediction:
    """
    What the network says of one image; each array is made when first asked for, then kept.

    For one thread at a time.

    Fields:
        features: the backbone's last map (1, K, h, w), which Grad-CAM starts from.

    """

    def __init__(
        self,
        output: TerrainOutput,
        features: Tensor,
        size: tuple[int, int],
        taxonomy: Taxonomy,
        temperature: float,
    ) -> None:
        """Wrap the network's output for one image of `size`, (height, width)."""
        self.features = features
        self._output = output
        self._size = size
        self._taxonomy = taxonomy
        self._temperature = temperature

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Calibrated probabilities of the classes, (C,) float32; they add up to 1."""
        return _array((self._output.class_logits[0] / self._temperature).softmax(dim=0))

    @property
    def class_id(self) -> int:
        """The class with the largest probability."""
        return int(self.probabilities.argmax())

    @property
    def class_name(self) -> str:
        """The name of `class_id`."""
        return self._taxonomy.names[self.class_id]

    @property
    def probability(self) -> float:
        """The probability of `class_id`."""
        return float(self.probabilities.max())

    @cached_property
    @torch.no_grad()
    def _logits(self) -> Tensor:
        """Pixel logits (C, H, W) at the image's size."""
        logits = self._output.pixel_logits
        if logits.shape[-2:] == self._size:
            return logits[0]
        return F.interpolate(logits, size=self._size, mode='bilinear', align_corners=False)[0]

    @cached_property
    def label(self) -> np.ndarray:
        """Label ids (H, W) uint8: each pixel's class with the largest logit."""
        return _array(self._logits.argmax(dim=0).to(torch.uint8))

    @cached_property
    def confidence(self) -> np.ndarray:
        """
        Probability of `label`, (H, W) float32 in [0, 1].

        The temperature is the one of whole images: nothing calibrates single pixels.
        """
        above = (self._logits - self._logits.amax(dim=0)) / self._temperature
        return _array(1 / above.exp().sum(dim=0))


class FeaturesAndOutput(NamedTuple):
    """`TerrainOutput`, and the backbone's last map (B, K, h, w)."""

    class_logits: Tensor
    pixel_logits: Tensor
    features: Tensor


class _WithFeatures(nn.Module):
    """A terrain network that hands out what explanations start from."""

    def __init__(self, model: TerrainModel) -> None:
        super().__init__()
        self.model = model
        self.config = model.config

    def forward(self, images: Tensor) -> FeaturesAndOutput:
        features = self.model.features(images)
        return FeaturesAndOutput(*self.model.classify(features, images.shape[-2:]), features)


class TerrainPredictor:
    """
    The Mars terrain network, from an image to a `TerrainPrediction`.

    Fields:
        model: the network, in evaluation, its weights fixed, on `device`.
        config: the network's configuration.
        taxonomy: its classes.
        device: where it runs.
        precision: the type that its convolutions and products are computed in.

    """

    def __init__(
        self,
        model: TerrainModel,
        *,
        device: str = 'auto',
        precision: str = 'auto',
        backend: str = 'torch',
    ) -> None:
        """
        Take a network onto a device.

        `device` is 'auto' (CUDA where there is one), 'cpu', 'cuda' or 'cuda:<n>'; `precision`
        'auto' (bf16 on CUDA, fp32 on the CPU), 'fp32', 'bf16' or 'fp16'; `backend` 'auto' or one
        of BACKENDS, for predictions: explanations need gradients, and are torch's. Raises
        ValueError for any other, and for a device that this machine lacks.
        """
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        # No gradients of weights, so explanations keep only what gradients of inputs need.
        self.model = model.to(self.device).eval().requires_grad_(False)
        self._runner = NetworkRunner(
            _WithFeatures(self.model),
            device=self.device,
            precision=self.precision,
            backend=backend,
        )
        self.config = model.config
        self.taxonomy = taxonomy_of(self.config.class_names)
        self._mean = 255 * torch.tensor(IMAGENET_MEAN, device=self.device).view(1, 3, 1, 1)
        self._std = 255 * torch.tensor(IMAGENET_STD, device=self.device).view(1, 3, 1, 1)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        device: str = 'auto',
        precision: str = 'auto',
        backend: str = 'auto',
        download: bool = False,
    ) -> 'TerrainPredictor':
        """
        Load a checkpoint: a folder, a Hub id, or None for the weights that ship with the package.

        A Hub id is fetched only with `download`. Raises OSError when the checkpoint is not found,
        ValueError when it is damaged, pickled or not of one piece, and for a bad device, precision
        or backend.
        """
        choose_precision(precision, choose_device(device))
        source = SHIPPED_WEIGHTS if model is None else model
        network = TerrainModel.from_pretrained(source, download=download)
        return cls(network, device=device, precision=precision, backend=backend)

    @property
    def backend(self) -> str:
        """What runs the network; 'auto' as long as nothing was predicted."""
        return self._runner.backend

    @property
    def refusals(self) -> dict[str, str]:
        """Why backends that were tried are not used, by name."""
        return self._runner.refusals

    def __call__(self, image: np.ndarray) -> TerrainPrediction:
        """
        Predict for one image, (H, W, 3) uint8 RGB; grey crops have three equal channels.

        Raises ValueError for another shape or dtype; BackendError or BackendRefusedError where
        the chosen backend can not be used.
        """
        said = FeaturesAndOutput(*self._runner(self._resized(image)))
        output = TerrainOutput(said.class_logits, said.pixel_logits)
        # A copy: explanations differentiate what follows, which inference_mode forbids.
        features = said.features.clone()
        return TerrainPrediction(
            output, features, image.shape[:2], self.taxonomy, self.config.temperature
        )

    def network_input(self, image: np.ndarray) -> Tensor:
        """
        Return an image (H, W, 3) uint8 RGB as the network sees it: (1, 3, S, S) float32.

        S is the configuration's `input_size`. Raises ValueError for another shape or dtype.
        """
        pixels = torch.from_numpy(self._resized(image)).to(self.device).permute(2, 0, 1)[None]
        return (pixels.float() - self._mean) / self._std

    def _resized(self, image: np.ndarray) -> np.ndarray:
        check_image(image)
        size = self.config.input_size
        if image.shape[:2] != (size, size):
            shrinks = size * size < image.shape[0] * image.shape[1]
            mode = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=mode)
        return np.require(image, requirements=('C', 'W'))  # torch wants to own it

    def warm_up(self, height: int, width: int) -> None:
        """Predict once for a black image, so that later ones of its size take no longer."""
        prediction = self(np.zeros((height, width, 3), np.uint8))
        _ = prediction.probabilities, prediction.confidence


def taxonomy_of(names: tuple[str, ...]) -> Taxonomy:
    """Return a taxonomy of these classes: HiRISE's colours for its own, other hues for others."""
    if names == HIRISE_LANDMARKS.names:
        return HIRISE_LANDMARKS
    known = dict(zip(HIRISE_LANDMARKS.names, HIRISE_LANDMARKS.colors, strict=True))
    hues = (hsv_to_rgb(i / len(names), 0.75, 0.9) for i in range(len(names)))
    wheel = [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues]
    colors = tuple(known.get(name, color) for name, color in zip(names, wheel, strict=True))
    return Taxonomy('terrain', names, colors)


def _array(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()
