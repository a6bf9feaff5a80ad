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
Why the terrain network names a class: Grad-CAM and Integrated Gradients, by captum.

Both explain one number: a class's logit, or the mean of its pixel logits over a fixed region.
Grad-CAM (arXiv 1610.02391, equations 1 and 2) weighs the backbone's last map by its gradients and
shows, coarsely, where evidence for the class lies. Integrated Gradients (arXiv 1703.01365,
equation 1) gives every input value its share of the number's difference from a baseline; the
shares add up to that difference as far as the path's steps are fine enough, which is checked.
"""

from collections.abc import Callable
from dataclasses import dataclass

from captum.attr import IntegratedGradients, LayerGradCam
import cv2
from lunar_perception.inference.consistency import Consistency, consistency
from lunar_perception.inference.terrain import TerrainPredictor
from lunar_perception.models.terrain import TerrainModel, TerrainOutput
import numpy as np
import torch
from torch import nn, Tensor
from torch.nn import functional as F

RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 0.01, 1e-3
"""How far attributions may add up to something else than the difference, relative to it or not."""

FIRST_STEPS, MOST_STEPS = 32, 512

PIXELS_AT_ONCE = 8 * 224 * 224
"""Of all images of one forward and backward pass; bounds memory whatever the images' size."""


@dataclass(frozen=True)
class Attributions:
    """
    What Integrated Gradients found for one image.

    Fields:
        values: (3, H, W) float32, the share of each value of the network's input.
        steps: points on the path from the baseline to the image.
        difference: f(image) − f(baseline), f the explained number.
        error: |Σ values − difference|.

    """

    values: Tensor
    steps: int
    difference: float
    error: float

    @property
    def tolerance(self) -> float:
        """The largest error at which the attributions count as complete."""
        return completeness_tolerance(self.difference)

    @property
    def complete(self) -> bool:
        """Whether the attributions add up to the difference, within the tolerance."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Explanation:
    """
    Both explanations of one class in one image.

    Fields:
        class_id: the class that is explained.
        grad_cam: (H, W) float32 at the image's size, evidence for the class; 0 where there is
            none.
        integrated_gradients: likewise, the sum of the three channels' attributions where that is
            evidence for the class, 0 where it is against it.
        attributions: the attributions themselves, at the size of the network's input.
        pixels, cells: how well both agree, pixel by pixel of the network's input, and by the cells
            of the map that Grad-CAM starts from.

    """

    class_id: int
    grad_cam: np.ndarray
    integrated_gradients: np.ndarray
    attributions: Attributions
    pixels: Consistency
    cells: Consistency


def completeness_tolerance(difference: float) -> float:
    """Return how far the sum of attributions may be from f(image) − f(baseline)."""
    return max(RELATIVE_TOLERANCE * abs(difference), ABSOLUTE_TOLERANCE)


def explained_number(output: TerrainOutput, class_id: int, region: Tensor | None) -> Tensor:
    """
    Return what is explained, (B,): the class's logit, or its pixels' mean logit over a region.

    `region` is (H, W) bool, at the size of the network's input.
    """
    if region is None:
        return output.class_logits[:, class_id]
    return output.pixel_logits[:, class_id, region].mean(dim=1)


class _FromFeatures(nn.Module):
    """
    From the backbone's last map to the explained number.

    captum hooks `map`, which is nobody else's: another thread may run the network meanwhile, and
    what comes before the map need not be run again.
    """

    def __init__(
        self, model: TerrainModel, size: tuple[int, int], class_id: int, region: Tensor | None
    ) -> None:
        super().__init__()
        self.map = nn.Identity()
        self._classify = model.classify
        self._size, self._class_id, self._region = size, class_id, region

    def forward(self, features: Tensor) -> Tensor:
        output = self._classify(self.map(features), self._size)
        return explained_number(output, self._class_id, self._region)


def grad_cam(
    model: TerrainModel,
    features: Tensor,
    size: tuple[int, int],
    class_id: int,
    region: Tensor | None = None,
) -> Tensor:
    """
    Return Grad-CAM's map (h, w) float32, at the size of `features`; nowhere below 0.

    `features` is (1, K, h, w), as `TerrainModel.features` makes them of an image of `size`,
    (H, W); `region` is (H, W) bool.
    """
    number = _FromFeatures(model, size, class_id, region)
    leaf = features.detach().float().requires_grad_()
    with torch.enable_grad():
        found = LayerGradCam(number, number.map).attribute(leaf, relu_attributions=True)
    return found[0, 0].detach()


def integrated_gradients(
    model: TerrainModel,
    image: Tensor,
    class_id: int,
    region: Tensor | None = None,
    *,
    baseline: Tensor | None = None,
    first_steps: int = FIRST_STEPS,
    most_steps: int = MOST_STEPS,
    batch: int | None = None,
    between: Callable[[], None] | None = None,
) -> Attributions:
    """
    Return Integrated Gradients of one image as the network sees it, (1, 3, H, W) float32.

    `baseline` is of the same shape; None stands for zeros, ImageNet's mean colour. Steps (of a
    Gauss–Legendre quadrature) are doubled from `first_steps` until the attributions are
    complete, or until there are `most_steps`, when the result says that they are not. `batch`
    images pass through the network at once; None chooses by `PIXELS_AT_ONCE`. `between` is called
    before each such pass, and may wait, or raise to end it all.
    """
    if baseline is None:
        baseline = torch.zeros_like(image)
    if batch is None:
        batch = max(1, PIXELS_AT_ONCE // (image.shape[-2] * image.shape[-1]))

    def number(images: Tensor) -> Tensor:
        if between is not None:
            between()
        return explained_number(model(images), class_id, region)

    method = IntegratedGradients(number)
    with torch.no_grad():
        difference = float(number(image) - number(baseline))
    steps = first_steps
    while True:
        values = method.attribute(
            image, baselines=baseline, n_steps=steps, internal_batch_size=batch
        ).detach()
        error = abs(float(values.double().sum()) - difference)
        found = Attributions(values[0].float(), steps, difference, error)
        if found.complete or 2 * steps > most_steps:
            return found
        steps *= 2


def explain(
    predictor: TerrainPredictor,
    image: np.ndarray,
    class_id: int | None = None,
    region: np.ndarray | None = None,
) -> Explanation:
    """
    Explain why an image (H, W, 3) uint8 RGB, or a region of it, is of a class.

    `class_id` None stands for the class that the network names. `region` is (H, W) bool; None
    stands for the class's logit of the whole image. Raises ValueError for an unknown class, an
    image of another shape or dtype, and a region of another size or without a pixel.
    """
    inputs = predictor.network_input(image)
    prediction = predictor(image)
    chosen = prediction.class_id if class_id is None else class_id
    if not 0 <= chosen < len(predictor.taxonomy):
        raise ValueError(f'there is no class {chosen}; ids are 0 … {len(predictor.taxonomy) - 1}')
    size = (inputs.shape[-2], inputs.shape[-1])
    mask = None if region is None else _at_network_size(region, image.shape[:2], size)
    mask = None if mask is None else mask.to(predictor.device)
    cam = grad_cam(predictor.model, prediction.features, size, chosen, mask)
    found = integrated_gradients(predictor.model, inputs, chosen, mask)
    evidence = evidence_of(found.values)
    cells = F.adaptive_avg_pool2d(evidence[None], (cam.shape[0], cam.shape[1]))[0]
    height, width = image.shape[:2]
    return Explanation(
        class_id=chosen,
        grad_cam=resized(cam, (height, width)),
        integrated_gradients=resized(evidence, (height, width)),
        attributions=found,
        pixels=consistency(resized(cam, size), evidence.cpu().numpy()),
        cells=consistency(cam.cpu().numpy(), cells.cpu().numpy()),
    )


def evidence_of(attributions: Tensor) -> Tensor:
    """Return evidence for the class (H, W) from attributions (3, H, W); 0 where it is against."""
    return attributions.sum(dim=0).clamp_min(0)


def resized(heat: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Return a map (h, w) at another size (H, W), bilinearly; averaged where it shrinks."""
    shrinks = size[0] * size[1] < heat.shape[0] * heat.shape[1]
    mode = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(heat.cpu().numpy(), size[::-1], interpolation=mode)


def _at_network_size(
    region: np.ndarray, image_size: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Return a region at the size of the network's input: pixels that it covers at least half."""
    if region.dtype != bool or region.shape != image_size:
        raise ValueError(
            f'the region is {region.dtype} {region.shape}; it must be bool, {image_size}'
        )
    if not region.any():
        raise ValueError('the region has no pixel')
    share = torch.from_numpy(resized(torch.from_numpy(region.astype(np.float32)), size))
    # Of a region finer than the network's pixels, those that hold most of it.
    return share >= min(0.5, float(share.max()))
