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

"""Explanations: against captum, against numbers worked by hand, and where a planted patch is."""

from collections.abc import Callable
from pathlib import Path
import subprocess
import sys

from captum.attr import IntegratedGradients, LayerGradCam
import cv2
from lunar_perception.inference.consistency import (
    Consistency,
    consistency,
    rank_correlation,
    summarise,
    top_area,
)
from lunar_perception.inference.explain import (
    explain,
    Explanation,
    grad_cam,
    integrated_gradients,
    PIXELS_AT_ONCE,
)
from lunar_perception.inference.terrain import TerrainPredictor
from lunar_perception.models import TerrainConfig, TerrainModel, TerrainOutput
import numpy as np
import pytest
import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torchmetrics.functional import spearman_corrcoef

SIZE, PATCH = 96, 24


class TwoLayers(nn.Module):
    """
    A network that can be worked by hand: a = relu(W x + b) at each pixel, logits = V a.

    `seen` has the number of images of each pass.
    """

    def __init__(self, w: list[list[float]], b: list[float], v: list[list[float]]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w).float()[:, :, None, None], requires_grad=False)
        self.b = nn.Parameter(torch.tensor(b), requires_grad=False)
        self.v = nn.Parameter(torch.tensor(v).float()[:, :, None, None], requires_grad=False)
        self.last_map = nn.Identity()
        self.seen: list[int] = []

    def features(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        return self.last_map(F.conv2d(images, self.w, self.b).relu())

    def classify(self, features: Tensor, size: tuple[int, int]) -> TerrainOutput:
        logits = F.conv2d(features, self.v)
        return TerrainOutput(logits.mean(dim=(2, 3)), logits)

    def forward(self, images: Tensor) -> TerrainOutput:
        return self.classify(self.features(images), images.shape[-2:])


@pytest.fixture(scope='module')
def lively() -> TerrainModel:
    """Return a small terrain network of random weights whose classes differ."""
    torch.manual_seed(2)
    config = TerrainConfig(backbone='test_resnet', head_channels=16, input_size=SIZE)
    model = TerrainModel(config)
    with torch.no_grad():
        model.head.refine.weight.mul_(30)
        for _ in range(5):  # BatchNorm's statistics
            model(torch.randn(8, 3, SIZE, SIZE))
    return model.eval().requires_grad_(False)


@pytest.fixture(scope='module')
def image() -> Tensor:
    generator = torch.Generator().manual_seed(4)
    coarse = torch.randn(1, 3, 9, 9, generator=generator)
    return F.interpolate(coarse, size=(SIZE, SIZE), mode='bicubic')


@pytest.fixture(scope='module')
def region() -> Tensor:
    region = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    region[10:60, 40:90] = True
    return region


def number_of(model: nn.Module, region: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return what is explained, written anew: (B, classes)."""

    def number(images: Tensor) -> Tensor:
        output = model(images)
        if region is None:
            return output.class_logits
        mask = region.float()
        return (output.pixel_logits * mask).sum(dim=(2, 3)) / mask.sum()

    return number


@pytest.mark.parametrize('class_id', [0, 5])
@pytest.mark.parametrize('whole', [True, False])
def test_both_agree_with_captum_called_directly(
    lively: TerrainModel, image: Tensor, region: Tensor, class_id: int, whole: bool
) -> None:
    mask = None if whole else region
    number = number_of(lively, mask)
    leaf = image.clone().requires_grad_()
    expected = LayerGradCam(number, lively.last_map).attribute(
        leaf, target=class_id, relu_attributions=True
    )
    with torch.no_grad():
        features = lively.features(image)
    found = grad_cam(lively, features, (SIZE, SIZE), class_id, mask)
    assert found.shape == (3, 3)
    torch.testing.assert_close(found, expected[0, 0].detach(), rtol=1e-4, atol=1e-6)

    found = integrated_gradients(lively, image, class_id, mask, batch=3)
    expected = IntegratedGradients(number).attribute(image, target=class_id, n_steps=found.steps)
    torch.testing.assert_close(found.values, expected[0].float(), rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        ends = number(torch.cat([image, torch.zeros_like(image)]))[:, class_id]
    assert found.difference == pytest.approx(float(ends[0] - ends[1]), rel=1e-4, abs=1e-5)
    assert found.complete
    assert found.error <= max(0.01 * abs(found.difference), 1e-3)


def test_grad_cam_of_some_class_is_not_empty(lively: TerrainModel, image: Tensor) -> None:
    """Or else the comparison above would be of zeros."""
    with torch.no_grad():
        features = lively.features(image)
    maps = [grad_cam(lively, features, (SIZE, SIZE), class_id) for class_id in (0, 5)]
    assert max(float(found.max()) for found in maps) > 0


def test_both_on_two_layers_worked_by_hand() -> None:
    """
    Two pixels; a₀ = relu(x₀ − x₁ − 1), a₁ = relu(x₂); class 0 has 2 a₀ − a₁, class 1 has 4 a₁.

    Pixel p is (3, 0, 2): a = (2, 2). Pixel q is (0, 1, 5): a = (0, 5).
    """
    model = TwoLayers([[1, -1, 0], [0, 0, 1]], [-1.0, 0.0], [[2, -1], [0, 4]])
    image = torch.tensor([[3.0, 0.0], [0.0, 1.0], [2.0, 5.0]]).reshape(1, 3, 1, 2)
    # Class 0's logit is the mean of 2·2 − 2 = 2 and 0 − 5 = −5; its gradient by a₀ is 1 at both
    # pixels (2 over 2 pixels), by a₁ −0.5: p has 1·2 − 0.5·2 = 1, q has 0 − 2.5, cut at 0.
    found = grad_cam(model, model.features(image), (1, 2), 0)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0]]))
    found = grad_cam(model, model.features(image), (1, 2), 1)  # gradient by a₁ 2: 2·2 and 2·5
    torch.testing.assert_close(found, torch.tensor([[4.0, 10.0]]))
    # Of pixel q alone, the gradient by a₁ is 4 at q and 0 at p: 2 on average.
    only_q = torch.tensor([[False, True]])
    found = grad_cam(model, model.features(image), (1, 2), 1, only_q)
    torch.testing.assert_close(found, torch.tensor([[4.0, 10.0]]))

    # Along the path t·x from zero, a₀ of p is 3t − 1, above 0 from t = 1/3 on: x₀ gets
    # 3 · 1 · 2/3 = 2 of class 0's logit, x₂ of p −2 · 0.5 = −1 and of q −5 · 0.5 = −2.5. The
    # bias keeps a₀ of q at 0 throughout.
    found = integrated_gradients(model, image, 0)
    expected = torch.tensor([[2.0, 0.0], [0.0, 0.0], [-1.0, -2.5]]).reshape(3, 1, 2)
    torch.testing.assert_close(found.values, expected, rtol=0.02, atol=1e-5)
    assert found.difference == pytest.approx(-1.5)
    found = integrated_gradients(model, image, 1, only_q)
    expected = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 20.0]]).reshape(3, 1, 2)
    torch.testing.assert_close(found.values, expected)

    # From (3, 0, 0) at both pixels, where class 0's logit is 4: x₀ of p does not change, and a₀ of
    # p is 2 throughout.
    baseline = torch.tensor([3.0, 0.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 1, 2)
    found = integrated_gradients(model, image, 0, baseline=baseline)
    assert found.values[:, 0, 0].tolist() == pytest.approx([0.0, 0.0, -1.0])
    assert found.difference == pytest.approx(-1.5 - 4.0)


def test_steps_are_doubled_until_the_attributions_are_complete() -> None:
    """Explain a number that rises only from t = 0.9 on, which few steps miss."""
    model = TwoLayers([[10, 0, 0]], [-9.0], [[1], [0]])
    image = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    coarse = integrated_gradients(model, image, 0, first_steps=2, most_steps=3)
    assert (coarse.steps, coarse.complete) == (2, False)
    assert coarse.error > coarse.tolerance == pytest.approx(0.01)
    model.seen.clear()
    fine = integrated_gradients(model, image, 0, first_steps=2, batch=1000)
    assert fine.complete and fine.error <= 0.01
    tried = model.seen[2:]  # the first two are the image and the baseline
    assert tried == [2**n for n in range(1, len(tried) + 1)] and len(tried) > 2
    assert fine.steps == tried[-1]
    # Next to no difference: there the tolerance is 1e-3.
    assert integrated_gradients(model, image * 0.9001, 0).tolerance == 1e-3


def test_an_interruption_between_passes_ends_it() -> None:
    model = TwoLayers([[1, 0, 0]], [0.0], [[1], [0]])
    image = torch.ones(1, 3, 2, 2)

    class EndedError(Exception):
        pass

    def end() -> None:
        if len(model.seen) == 5:
            raise EndedError

    with pytest.raises(EndedError):
        integrated_gradients(model, image, 0, batch=4, between=end)
    assert model.seen == [1, 1, 4, 4, 4]


def test_passes_are_small_enough_whatever_the_size() -> None:
    model = TwoLayers([[1, 0, 0]], [0.0], [[1], [0]])
    for side in (16, 224, 512, 1024):
        model.seen.clear()
        integrated_gradients(model, torch.ones(1, 3, side, side), 0, first_steps=10)
        assert sum(model.seen) == 12
        assert max(model.seen) * side**2 <= max(PIXELS_AT_ONCE, side**2)


MEMORY = """
import resource
from lunar_perception.inference.explain import integrated_gradients
import test_explain, torch
model = test_explain.TwoLayers([[1, 0, 0]] * 6, [0.0] * 6, [[1] * 6] * 4)
image = torch.ones(1, 3, 1024, 1024)
for steps in (2, 8):
    integrated_gradients(model, image, 0, first_steps=steps, most_steps=steps)
    assert model.seen == [1] * (2 + steps)
    model.seen.clear()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_at_1024_pixels_does_not_grow_with_the_steps() -> None:
    """Six images more, of 12 MiB each, and of 64 MiB of what the network makes of them."""
    result = subprocess.run(
        [sys.executable, '-c', MEMORY],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    few, many = map(int, result.stdout.split())
    print(f'peak memory in MiB: {few} with 2 steps, {many} with 8')
    assert many - few < 60


def planted_crops(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Return crops (N, S, S, 3) uint8 of blurred noise, and their classes.

    A corner has stripes that run down (0) or across (1), or none (2): without that third class,
    a network may take one of them for what it sees when it sees nothing.
    """
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.uniform(60, 190, (count, 1, 12, 12)))
    crops = F.interpolate(coarse, size=(SIZE, SIZE), mode='bicubic')[:, 0].numpy()
    crops += random.normal(0, 8, crops.shape)
    classes = random.integers(0, 3, count)
    wave = 50 * np.sign(np.sin(np.arange(PATCH) * 2 * np.pi / 8 + random.uniform(0, 6)))
    across = np.broadcast_to(wave, (PATCH, PATCH))
    for crop, label in zip(crops, classes, strict=True):
        if label < 2:
            crop[:PATCH, :PATCH] = 125 + (across if label else across.T)
    grey = crops.clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3), classes


@pytest.fixture(scope='module')
def planted() -> TerrainPredictor:
    """
    Train a small network on crops in which one corner alone tells the class.

    It has no attention: a gate on channels, fed by all places, tells all places what one saw, and
    explanations truly spread.
    """
    torch.manual_seed(0)
    config = TerrainConfig(
        backbone='test_resnet',
        channel_attention=False,
        spatial_attention=False,
        head_channels=16,
        class_names=('down', 'across', 'none'),
        input_size=SIZE,
    )
    model = TerrainModel(config)
    predictor = TerrainPredictor(model, device='cpu')
    model.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    steps = 50
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for step in range(steps):
        crops, classes = planted_crops(24, seed=step)
        inputs = torch.cat([predictor.network_input(crop) for crop in crops])
        loss = F.cross_entropy(model(inputs).class_logits, torch.from_numpy(classes))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval().requires_grad_(False)
    return predictor


def test_both_explanations_point_at_the_patch_that_decides(planted: TerrainPredictor) -> None:
    """Look for a patch that is 1/16 of the crop, of the size of one of Grad-CAM's cells or so."""
    crops, classes = planted_crops(18, seed=1000)
    right = 0
    shares: dict[str, list[float]] = {'grad_cam': [], 'integrated_gradients': []}
    peaks: dict[str, list[bool]] = {'grad_cam': [], 'integrated_gradients': []}
    for crop, label in zip(crops, classes, strict=True):
        found = explain(planted, crop)
        right += found.class_id == label
        assert found.attributions.complete
        if label == 2:
            continue
        # A cell's evidence is spread over its neighbours on the way to the image's size.
        for name, side in (('grad_cam', PATCH + PATCH // 2), ('integrated_gradients', PATCH)):
            heat = getattr(found, name)
            shares[name].append(float(heat[:side, :side].sum() / heat.sum()))
            # Single pixels of Integrated Gradients are noisy; neighbourhoods are not.
            smooth = cv2.blur(heat, (PATCH // 2, PATCH // 2))
            row, column = np.unravel_index(smooth.argmax(), smooth.shape)
            peaks[name].append(max(row, column) < side)
    print(f'{right} of {len(crops)} right; evidence in the patch:', shares)
    assert right >= 0.9 * len(crops)
    # By chance 0.14 and 0.06.
    assert np.median(shares['grad_cam']) > 0.45 and min(shares['grad_cam']) > 0.3
    assert np.median(shares['integrated_gradients']) > 0.3
    assert min(shares['integrated_gradients']) > 0.2
    assert all(peaks['grad_cam'])
    assert np.mean(peaks['integrated_gradients']) > 0.7


def test_explaining_a_region_or_another_class(planted: TerrainPredictor) -> None:
    crop = planted_crops(1, seed=7)[0][0]
    predicted = planted(crop).class_id
    region = np.zeros((SIZE, SIZE), bool)
    region[64:, 64:] = True
    assert predicted < 2
    own, other = explain(planted, crop), explain(planted, crop, 1 - predicted)
    part = explain(planted, crop, region=region)
    assert isinstance(own, Explanation) and own.class_id == part.class_id == predicted
    assert other.class_id == 1 - predicted
    assert own.attributions.difference > other.attributions.difference
    for found in (own, other, part):
        assert found.grad_cam.shape == found.integrated_gradients.shape == (SIZE, SIZE)
        assert found.grad_cam.dtype == found.integrated_gradients.dtype == np.float32
        assert found.grad_cam.min() >= 0 and found.integrated_gradients.min() >= 0
    assert abs(part.attributions.difference) < abs(own.attributions.difference)  # far from it
    with pytest.raises(ValueError, match='there is no class 3'):
        explain(planted, crop, 3)
    with pytest.raises(ValueError, match='the region has no pixel'):
        explain(planted, crop, region=np.zeros((SIZE, SIZE), bool))
    with pytest.raises(ValueError, match='it must be bool'):
        explain(planted, crop, region=np.zeros((9, 9), bool))
    # Regions finer than the network's pixels, and one pixel as the whole image.
    large = np.repeat(np.repeat(crop, 3, axis=0), 3, axis=1)
    fine = np.zeros(large.shape[:2], bool)
    fine[100, 200] = True
    assert explain(planted, large, region=fine).grad_cam.shape == (3 * SIZE, 3 * SIZE)
    assert explain(planted, crop[:1, :1]).integrated_gradients.shape == (1, 1)


def test_consistency_worked_by_hand() -> None:
    """Ten places: the top areas have two."""
    first = np.array([[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]], float)
    assert consistency(first, first) == Consistency(1.0, 1.0, pytest.approx(1.0))
    backwards = consistency(first, first[:, ::-1])
    assert backwards == Consistency(0.0, 0.0, pytest.approx(-1.0))
    half = first.copy()
    half[0, 1], half[0, 2] = 7, 8
    assert consistency(first, half).overlap == pytest.approx(1 / 3)
    assert consistency(first, half).shared == pytest.approx(1 / 2)
    # Two swapped neighbours: 1 − 6 Σd² / (n (n² − 1)).
    assert consistency(first, half).rank_correlation == pytest.approx(1 - 6 * 2 / (10 * 99))
    zeros = np.zeros((1, 10))
    assert consistency(first, zeros) == Consistency(None, None, None)
    lone = zeros.copy()
    lone[0, 1] = 5
    assert top_area(lone).sum() == 1
    assert consistency(first, lone).shared == 1.0
    assert consistency(first, lone).overlap == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match='can not be compared'):
        consistency(first, first.T)


def test_rank_correlation_agrees_with_torchmetrics() -> None:
    random = np.random.default_rng(0)
    for levels in (5, 1000):
        first = random.integers(0, levels, (30, 40)).astype(np.float32)
        second = (first + random.normal(0, levels / 2, first.shape)).round().astype(np.float32)
        expected = spearman_corrcoef(
            torch.from_numpy(first.ravel()), torch.from_numpy(second.ravel())
        )
        assert rank_correlation(first, second) == pytest.approx(float(expected), abs=1e-4)


def test_a_summary_counts_only_images_that_had_a_figure() -> None:
    results = [Consistency(0.2, 0.4, -1.0), Consistency(0.4, 0.8, None)]
    summary = summarise(results)
    assert summary['overlap'] == {
        'mean': pytest.approx(0.3), 'sd': pytest.approx(0.1), 'images': 2
    }  # fmt: skip
    assert summary['rank_correlation'] == {'mean': -1.0, 'sd': 0.0, 'images': 1}
    assert summarise([]) == {}
