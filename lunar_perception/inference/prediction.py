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

"""What the unified network says of one image, at the image's size."""

from functools import cached_property
from math import sqrt
from typing import Any

from lunar_perception.models import UnifiedConfig, UnifiedOutput
from lunar_perception.taxonomy import SKY
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Values = Any
"""A torch Tensor or a NumPy array."""


class Prediction:
    """
    What the network says of one image; each array is made when first asked for, then kept.

    For one thread at a time. `label`, `confidence`, `depth` and `uncertainty` have the image's
    size, (H, W).
    """

    def __init__(
        self,
        output: UnifiedOutput,
        size: tuple[int, int],
        depth_scale: float,
        config: UnifiedConfig,
        *,
        in_numpy: bool = False,
    ) -> None:
        """
        Wrap the network's output for one image.

        `size` is the image's (height, width) and `depth_scale` the ratio of its camera's focal
        length to the canonical one. With `in_numpy`, maps on the CPU that are of the image's size
        already go to NumPy: torch's threads, once woken, keep their cores busy for milliseconds,
        waiting for more, and a backend that is not torch would find them so in its next run.
        """
        self._output = output
        self._size = size
        self._depth_scale = depth_scale
        self._config = config
        self._in_numpy = in_numpy

    @cached_property
    @torch.inference_mode()
    def _logits(self) -> Values:
        """Logits (5, H, W) at the image's size."""
        return self._resized(self._output.label_logits)

    @cached_property
    @torch.inference_mode()
    def _best(self) -> tuple[Values, Values]:
        """Logit and label of the likeliest class, each (H, W)."""
        first, *others = self._logits
        library = _library(first)
        best = first * 1  # a copy
        label = library.zeros_like(first, dtype=library.uint8)
        # Class by class: torch's max over a dimension that is not the last takes 8 times as long.
        for number, logit in enumerate(others, start=1):
            wins = (logit > best).view(library.uint8)
            wins *= number
            library.maximum(label, wins, out=label)  # of two that win, the later is the larger
            library.maximum(best, logit, out=best)
        return best, label

    @cached_property
    @torch.inference_mode()
    def label(self) -> np.ndarray:
        """Label ids (H, W) uint8: the class with the largest logit."""
        return _array(self._best[1])

    @cached_property
    @torch.inference_mode()
    def confidence(self) -> np.ndarray:
        """Calibrated probability of `label`, (H, W) float32 in [0, 1]."""
        best, _ = self._best
        # In place, unless they are the network's own: nothing else asks for the logits again.
        logits = self._logits
        library = _library(logits)
        above = library.subtract(logits, best, out=None if self._same_size else logits)
        del self._logits
        above *= 1 / self._config.temperature
        total = library.exp(above, out=above).sum(0)
        return _array(library.reciprocal(total, out=total))

    @cached_property
    @torch.inference_mode()
    def depth(self) -> np.ndarray:
        """Depth along Z, (H, W) float32 metres; +Inf where the label is sky."""
        if self._same_size:
            depth = self._resized(self._output.depth)[0]
            depth = _library(depth).clip(depth, 1e-6, None)
        else:
            # The logs are interpolated: linearly mixed, a near pixel's far neighbour would win.
            depth = self._resized(self._output.depth.clamp_min(1e-6).log())[0].exp_()
        depth *= self._depth_scale
        depth[self._best[1] == SKY] = torch.inf
        return _array(depth)

    @cached_property
    @torch.inference_mode()
    def uncertainty(self) -> np.ndarray | None:
        """One sigma of depth, (H, W) float32 metres, NaN where depth is +Inf; or None."""
        if self._output.depth_log_scale is None:
            return None
        log_scale = self._resized(self._output.depth_log_scale)[0]
        sigma = _array(_library(log_scale).exp(log_scale))
        # The standard deviation of a Laplace distribution of scale b is √2 · b.
        sigma *= sqrt(2) * self._config.uncertainty_scale
        depth = self.depth
        sigma *= depth
        sigma[np.isposinf(depth)] = np.nan
        return sigma

    @property
    def _same_size(self) -> bool:
        """Whether the network's maps are of the image's size already."""
        return self._output.depth.shape[-2:] == self._size

    def _resized(self, maps: Tensor) -> Values:
        """Resize maps (1, C, h, w) to (C, H, W)."""
        if not self._same_size:
            return F.interpolate(maps, size=self._size, mode='bilinear', align_corners=False)[0]
        return maps[0].numpy() if self._in_numpy else maps[0]


def _library(values: Values) -> Any:
    """Return the library of an array's functions, which torch and NumPy call alike."""
    return torch if isinstance(values, Tensor) else np


def _array(values: Values) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, Tensor) else values
