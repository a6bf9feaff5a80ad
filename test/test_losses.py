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

"""Losses against values computed by hand, and their gradients against finite differences."""

from math import exp, log, sqrt

from lunar_perception.taxonomy import UNLABELLED
import pytest
import torch
from train.config import LossConfig
from train.critic import adversarial, DepthCritic
from train.distillation import (
    distillation,
    gradient_distillation,
    normalise_teacher,
    pixel_distillation,
    sobel,
)
from train.losses import (
    affine_gradient_matching,
    affine_invariant,
    cross_entropy,
    gradient_matching,
    l1_depth,
    l2_depth,
    laplace_nll,
    lovasz_softmax,
    near_cross_entropy,
    near_depth,
    near_relief,
    silog,
    upsample_to,
)
from train.objective import depth_terms, label_terms, ROCK

INF, NAN = float('inf'), float('nan')


def image(*rows):
    """Return a (1, 1, H, W) double tensor."""
    return torch.tensor(rows, dtype=torch.float64)[None, None]


def random_depths():
    """Return a prediction that requires gradients and a truth with sky and unknown pixels."""
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(2, 1, 6, 7, generator=generator, dtype=torch.float64) * 9 + 1
    truth = torch.rand(2, 1, 6, 7, generator=generator, dtype=torch.float64) * 9 + 1
    truth[0, 0, :2] = INF
    truth[1, 0, 3, 4] = NAN
    return depth.requires_grad_(), truth


def test_cross_entropy_by_hand():
    # Two labelled pixels: ŷ = 1/4 and 3/4 of the true class; the third is unlabelled.
    logits = torch.tensor([[[[0.0, 0.0, 5.0]], [[log(3), log(3), 0.0]]]])
    label = torch.tensor([[[0, 1, UNLABELLED]]])
    assert cross_entropy(logits, label).item() == pytest.approx((log(4) + log(4 / 3)) / 2)
    weights = torch.tensor([3.0, 1.0])
    expected = (3 * log(4) + log(4 / 3)) / 4
    assert cross_entropy(logits, label, weights).item() == pytest.approx(expected)


def test_near_cross_entropy_by_hand():
    """Of pixels at 1 and 2 m; what is far, of no depth or unlabelled says nothing."""
    logits = torch.tensor([[[[0.0, 0.0, 9.0, 9.0, 9.0]], [[log(3), log(3), 0.0, 0.0, 0.0]]]])
    label = torch.tensor([[[0, 1, 1, 1, UNLABELLED]]])
    truth = image([1, 2, 12, INF, 1])
    by_hand = (1 * log(4) + 4 * log(4 / 3)) / (1 + 4)
    assert near_cross_entropy(logits, label, truth).item() == pytest.approx(by_hand)
    weights = torch.tensor([3.0, 1.0])
    by_hand = (1 * 3 * log(4) + 4 * log(4 / 3)) / (3 + 4)
    assert near_cross_entropy(logits, label, truth, weights).item() == pytest.approx(by_hand)


def test_near_labels_need_depth():
    config = LossConfig(near_labels=2.0)
    logits, label = torch.zeros(1, 5, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
    weights, truth = torch.ones(5), torch.full((1, 1, 4, 4), 3.0)
    terms = label_terms(config, logits, label, weights, truth)
    assert terms['near_labels'].item() == pytest.approx(2.0 * log(5))
    assert 'near_labels' not in label_terms(config, logits, label, weights)


def test_lovasz_by_hand():
    # Class 0 is right everywhere but at the second pixel, where ŷ_0 = 1/4.
    logits = torch.tensor([[[[50.0, 0.0, -50.0]], [[-50.0, log(3), 50.0]]]])
    label = torch.tensor([[[0, 0, 1]]])
    # Class 0: errors (3/4, 0, 0) sorted; the first pixel in takes Jaccard from 1 to 1/2, so
    # 3/4 · 1/2. Class 1: the false alarm of 3/4 makes a union of 2 of 1: 3/4 · 1/2.
    assert lovasz_softmax(logits, label).item() == pytest.approx(3 / 8)


def test_lovasz_of_certain_answers_is_one_minus_the_mean_iou():
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, 3, (2, 8, 8), generator=generator)
    answer = torch.randint(0, 3, (2, 8, 8), generator=generator)
    logits = 100.0 * torch.nn.functional.one_hot(answer, 3).movedim(-1, 1)
    iou = [
        ((label == c) & (answer == c)).sum() / ((label == c) | (answer == c)).sum()
        for c in range(3)
    ]
    expected = 1 - sum(iou).item() / 3
    assert lovasz_softmax(logits, label).item() == pytest.approx(expected, abs=1e-6)


def test_l1_depth_by_hand():
    depth, truth = image([1, 2, 3, 4]), image([2, 4, INF, NAN])
    assert l1_depth(depth, truth).item() == pytest.approx(1.5)


def test_silog_by_hand():
    # g = (log 2, −log 4): mean square (1 + 4)/2 log²2, mean −1/2 log 2.
    depth, truth = image([2, 1, 9]), image([1, 4, INF])
    expected = log(2) * sqrt(2.5 - 0.5 * 0.25)
    assert silog(depth, truth).item() == pytest.approx(expected)
    # An image without truth neither counts nor dilutes.
    both = silog(depth.repeat(2, 1, 1, 1), torch.cat((truth, truth * INF)))
    assert both.item() == pytest.approx(expected)


def test_gradient_matching_by_hand():
    # log-ratio g = log 2 · (0, 1, 3); pairs differ by 1 and 2, at stride 2 by 3.
    depth, truth = image([1, 2, 8]), image([1, 1, 1])
    assert gradient_matching(depth, truth, 1).item() == pytest.approx(1.5 * log(2))
    assert gradient_matching(depth, truth, 2).item() == pytest.approx((1.5 + 3) / 2 * log(2))
    # A scale factor between prediction and truth costs nothing, sky hides both its pairs.
    assert gradient_matching(depth, depth / 7, 2).item() == pytest.approx(0, abs=1e-12)
    assert gradient_matching(depth, image([1, INF, 1]), 1).item() == 0


def test_near_relief_by_hand():
    """Of 200 columns, steps of 2, 4, 8 and 16 pixels; a wrong scale is no wrong shape."""
    column = torch.arange(200.0).expand(1, 1, 200, 200)
    truth = torch.full_like(column, 4.0)
    tilted = truth * torch.exp(0.01 * column)
    by_hand = 0.01 * (2 + 4 + 8 + 16) / 4
    assert near_relief(tilted, truth).item() == pytest.approx(by_hand, rel=1e-4)
    assert near_relief(tilted.mT, truth).item() == pytest.approx(by_hand, rel=1e-4)
    assert near_relief(3 * truth, truth).item() == pytest.approx(0, abs=1e-6)
    # A rock at the left edge that is 10 % too far for its ground, alike from top to bottom.
    rock = torch.zeros(1, 1, 200, 200, dtype=torch.bool)
    rock[..., :2] = True
    adrift = torch.where(rock, truth * exp(0.1), truth)
    assert near_relief(adrift, truth, rock).item() == pytest.approx(0.1, rel=1e-4)
    assert near_relief(adrift, truth).item() < 0.01
    assert near_relief(adrift, truth, rock & False).item() == 0
    # Far ground counts for nothing, nor does its edge.
    far = torch.where(column < 100, truth, 9.0)
    wild = torch.where(column < 100, tilted, 99 + column)
    assert near_relief(wild, far).item() == pytest.approx(by_hand, rel=1e-4)


def test_near_depth_by_hand():
    """Of rocks at 1, 2 and 12 m, the last too far, off by 10, 20 and 90 % of log-depth."""
    truth = image([1, 2, 12, 1, INF])
    error = torch.tensor([0.1, -0.2, 0.9, 0.7, 0.0])
    rock = torch.tensor([True, True, True, False, True]).view(1, 1, 1, -1)
    depth = image([1, 2, 12, 1, 50]) * error.exp()
    by_hand = (1 * 0.1 + 4 * 0.2) / (1 + 4)
    assert near_depth(depth, truth, rock).item() == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize('wrong', ['near_rocks', 'near_ground'])
def test_rocks_and_the_ground_beside_them_have_terms_of_their_own(wrong):
    """Eight columns of rock, eight of ground; the depth of either is 10 % too far."""
    label = torch.zeros(1, 8, 16, dtype=torch.uint8)
    label[..., :8] = ROCK
    truth = torch.full((1, 1, 8, 16), 4.0)
    where = (label == ROCK) == (wrong == 'near_rocks')
    depth = torch.where(where[:, None], truth * exp(0.1), truth)
    config = LossConfig(near_rocks=3.0, near_ground=3.0, rock_relief=2.0)
    terms = depth_terms(config, depth, None, truth, label, 100.0)
    right = {'near_rocks': 'near_ground', 'near_ground': 'near_rocks'}[wrong]
    assert terms[wrong].item() == pytest.approx(3.0 * 0.1, rel=1e-4)
    assert terms[right].item() == pytest.approx(0, abs=1e-6)
    # Of the four pairs in a row that have a rock in them, the one across its side differs.
    assert terms['rock_relief'].item() == pytest.approx(2.0 * 0.1 / 4, rel=1e-4)


def test_laplace_by_hand():
    depth, truth, scale = image([2, 5]), image([1, INF]), image([log(0.5), 7])
    expected = log(2) / 0.5 + log(2 * 0.5)
    assert laplace_nll(depth, scale, truth).item() == pytest.approx(expected)
    # The best scale is the error itself.
    best = image([log(log(2)), 0]).requires_grad_()
    laplace_nll(depth, best, truth).backward()
    assert best.grad.abs().max().item() == pytest.approx(0, abs=1e-12)


def test_l2_depth_by_hand():
    depth, truth = image([1, 2, 3, 4]), image([2, 4, INF, NAN])
    assert l2_depth(depth, truth).item() == pytest.approx((1 + 4) / 2)


def test_affine_invariant_by_hand():
    # Medians 2 and 10, mean distances from them 1 and 2: (−1, 0, 2, 1) and (−1, 0, 1, 2).
    said, truth = image([1, 2, 4, 3, 99]), image([8, 10, 12, 14, 1])
    mask = image([1, 1, 1, 1, 0]).bool()
    expected = torch.tensor([-1, 0, 2, 1]) / 1 - torch.tensor([-2, 0, 2, 4]) / 2
    assert affine_invariant(said, truth, mask).item() == pytest.approx(expected.abs().mean())
    # Neighbours of the residual (0, 0, 1, −1): 0, 1 and 2 apart; the masked pair is left out.
    assert affine_gradient_matching(said, truth, mask, 1).item() == pytest.approx(1)
    # Scale and shift of either cost nothing.
    for loss in (affine_invariant, affine_gradient_matching):
        assert loss(7 * truth + 3, truth, mask).item() == pytest.approx(0, abs=1e-12)
        one = loss(said, truth, mask).item()
        assert loss(5 * said - 1, truth / 9, mask).item() == pytest.approx(one)
    # An image without truth neither counts nor spoils the others' gradients.
    both = said.repeat(2, 1, 1, 1).requires_grad_()
    masks = torch.cat((mask, torch.zeros_like(mask)))
    loss = affine_gradient_matching(both, truth.repeat(2, 1, 1, 1), masks, 1)
    assert loss.item() == pytest.approx(1)
    loss.backward()
    assert torch.isfinite(both.grad).all()


def test_critic_and_depth_pull_apart():
    """One step down the loss: the critic tells better, the depth is told from truth worse."""
    torch.manual_seed(0)
    critic, images = DepthCritic().double(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    truth = torch.rand(2, 1, 16, 16, dtype=torch.float64) * 9 + 1
    truth[:, :, :4] = INF
    depth = torch.full_like(truth, 3).requires_grad_()
    loss = adversarial(critic, images, depth, truth)
    weights = list(critic.parameters())
    *gradients, towards = torch.autograd.grad(loss, [*weights, depth])
    assert not towards[:, :, :4].any()
    with torch.no_grad():
        fooled = adversarial(critic, images, depth - towards / towards.abs().max(), truth)
        assert fooled > loss
        for weight, gradient in zip(weights, gradients, strict=True):
            weight -= 1e-2 * gradient
        assert adversarial(critic, images, depth, truth) < loss
    assert adversarial(critic, images, depth, truth * INF).item() == 0


def test_sobel_by_hand():
    gradient_x, gradient_y = sobel(image([1, 2, 4], [1, 2, 4], [1, 2, 4]))
    assert gradient_x[0, 0, 1].tolist() == [4, 12, 8]  # edges are replicated
    assert not gradient_y.any()
    gradient_x, gradient_y = sobel(image([0, 0, 0], [0, 0, 0], [0, 0, 1]))
    assert gradient_x[0, 0, 1, 1] == gradient_y[0, 0, 1, 1] == 1


def test_teacher_gets_the_students_mean_and_spread_per_sample():
    student = torch.cat((image([1, 3, 50]), image([10, 20, 30])))
    teacher = torch.cat((image([0, 10, -9]), image([5, 5, 8])))
    mask = torch.tensor([[True, True, False], [True, True, True]]).view(2, 1, 1, 3)
    normalised = normalise_teacher(student, teacher, mask)
    # Sample 0: teacher 5 ± 5 becomes student 2 ± 1, the masked pixel follows the same line.
    assert normalised[0].flatten().tolist() == pytest.approx([1, 3, -0.8], abs=1e-5)
    assert normalised[1].mean().item() == pytest.approx(20)
    assert normalised[1].std(correction=0).item() == pytest.approx(sqrt(200 / 3), rel=1e-5)


def test_distillation_terms_by_hand():
    student = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    student[..., 1, 1] = 1
    teacher = torch.zeros_like(student)
    mask = torch.ones_like(student, dtype=torch.bool)
    assert pixel_distillation(student, teacher, mask).item() == pytest.approx(1 / 16)
    # Of the four inner pixels, (1, 1) sees 0 + 0, (1, 2) and (2, 1) see 2, (2, 2) sees 1 + 1.
    expected = (0 + 2 + 2 + 2) / 4
    assert gradient_distillation(student, teacher, mask).item() == pytest.approx(expected)
    # A masked pixel takes its neighbours' gradients with it: only (2, 2) and its kin stay.
    mask[..., 0, 0] = False
    expected = (2 + 2 + 2) / 3
    assert gradient_distillation(student, teacher, mask).item() == pytest.approx(expected)


def test_alpha_weighs_the_two_terms():
    depth, teacher = random_depths()[0].detach(), torch.rand(2, 1, 6, 7, dtype=torch.float64)
    mask = torch.ones_like(depth, dtype=torch.bool)
    aligned = normalise_teacher(depth, teacher, mask)
    pixel = pixel_distillation(depth, aligned, mask)
    gradient = gradient_distillation(depth, aligned, mask)
    for alpha in (0.0, 0.3, 1.0):
        loss = distillation(depth, teacher, mask, alpha=alpha, form='literal')
        assert loss.item() == pytest.approx((alpha * gradient + (1 - alpha) * pixel).item())


def test_sign_of_the_teacher():
    """Inverse depth up to scale and shift is a perfect teacher for one form alone."""
    depth = random_depths()[0].detach()
    mask = torch.ones_like(depth, dtype=torch.bool)
    teacher = 7 / depth + 3
    assert distillation(depth, teacher, mask, form='inverse').item() < 1e-6
    assert distillation(depth, teacher, mask, form='literal').item() > 1
    assert distillation(depth, 7 * depth + 3, mask, form='literal').item() < 1e-6
    # Literally distilled, the student is pulled to where the teacher is near.
    aligned = normalise_teacher(depth, teacher, mask)
    assert torch.corrcoef(torch.stack((aligned[0].flatten(), depth[0].flatten())))[0, 1] < 0
    with pytest.raises(ValueError, match='sideways'):
        distillation(depth, teacher, mask, form='sideways')


def test_students_statistics_carry_no_gradient():
    """Shrinking the student's spread must not pay: the loss pulls towards a fixed target."""
    student = random_depths()[0]
    mask = torch.ones_like(student, dtype=torch.bool)
    teacher = torch.rand_like(student)
    target = normalise_teacher(student, teacher, mask)
    assert not target.requires_grad
    loss = distillation(student, teacher, mask, alpha=0, form='literal')
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.allclose(gradient, 2 * (student - target) / student.numel())


@pytest.mark.parametrize(
    'loss',
    [
        l1_depth,
        l2_depth,
        silog,
        lambda depth, truth: affine_invariant(depth, truth.nan_to_num(2, 2), truth < 9),
        lambda depth, truth: affine_gradient_matching(depth, truth.nan_to_num(2, 2), truth < 9, 2),
        lambda depth, truth: gradient_matching(depth, truth, 2),
        near_relief,
        lambda depth, truth: near_depth(depth, truth, truth < 9),
        lambda depth, truth: laplace_nll(depth, depth.log() / 5, truth),
        lambda depth, truth: gradient_distillation(depth, truth.nan_to_num(2, 2), truth < 9),
        lambda depth, truth: pixel_distillation(depth, truth.nan_to_num(2, 2), truth < 9),
    ],
)
def test_depth_gradients_match_finite_differences(loss):
    depth, truth = random_depths()
    assert torch.autograd.gradcheck(lambda d: loss(d, truth), (depth,))


@pytest.mark.parametrize('loss', [cross_entropy, lovasz_softmax])
def test_label_gradients_match_finite_differences(loss):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    label = torch.randint(0, 5, (2, 3, 4), generator=generator)
    label[0, 0] = UNLABELLED
    assert torch.autograd.gradcheck(lambda x: loss(x, label), (logits.requires_grad_(),))


def test_nothing_to_learn_from_is_zero_with_zero_gradient():
    depth = random_depths()[0]
    truth = torch.full_like(depth, INF)
    logits = torch.randn(1, 5, 2, 2, requires_grad=True)
    label = torch.full((1, 2, 2), UNLABELLED)
    losses = [
        cross_entropy(logits, label),
        lovasz_softmax(logits, label),
        l1_depth(depth, truth),
        l2_depth(depth, truth),
        affine_invariant(depth, depth.detach(), truth < 0),
        affine_gradient_matching(depth, depth.detach(), truth < 0),
        silog(depth, truth),
        gradient_matching(depth, truth),
        near_relief(depth, truth),
        near_depth(depth, truth, truth < 9),
        laplace_nll(depth, depth * 0, truth),
        distillation(depth, depth.detach(), torch.zeros_like(depth, dtype=torch.bool)),
    ]
    sum(losses).backward()
    assert [loss.item() for loss in losses] == [0] * len(losses)
    assert not depth.grad.any()
    assert not logits.grad.any()


def test_predictions_are_upsampled_bilinearly():
    small = image([0, 4])
    assert upsample_to(small, (1, 4)).flatten().tolist() == [0, 1, 3, 4]
    assert upsample_to(small, (1, 2)) is small
