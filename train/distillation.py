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
Depth distillation from a teacher, section 4.2 and 4.3, literally and with the sign put right.

The teacher's sign: DPT-Large predicts affine-invariant *inverse* depth. Normalised to the
student's mean and spread as the paper writes it, it runs against the student's depth, so the
literal form pulls the wrong way. In the `inverse` form the student's 1 / depth is compared
instead: it differs from a perfect teacher by a scale and a shift, which the normalisation takes
out.

What the paper leaves open, and is chosen here: the student's statistics are detached (else the
loss could be made small by shrinking the student's spread); norms are means, not sums
(λ_KD = 0.05 presumes it); sky has no part in the statistics and, widened by the kernel, none in
the Sobel term; α = 0.5.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from train.config import Form
from train.distributed import mean_over_processes


def normalise_teacher(student: Tensor, teacher: Tensor, mask: Tensor, eps: float = 1e-6) -> Tensor:
    """
    Give the teacher the student's mean and spread: (D_T − μ_T) / (σ_T + ε) · σ_S + μ_S.

    Statistics per sample over `mask` (B, 1, H, W) bool; σ is the population's. No gradient
    flows through the student's. All (B, 1, H, W).
    """
    mean_t, std_t = _statistics(teacher, mask)
    mean_s, std_s = _statistics(student.detach(), mask)
    return (teacher - mean_t) / (std_t + eps) * std_s + mean_s


def sobel(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, 1, H, W) convolved with the horizontal and vertical Sobel kernels."""
    kernel = image.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    kernels = torch.stack((kernel, kernel.T))[:, None]
    gradients = F.conv2d(F.pad(image, (1, 1, 1, 1), mode='replicate'), kernels)
    return gradients[:, :1], gradients[:, 1:]


def gradient_distillation(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """
    L_grad = ‖G_x(D_S) − G_x(D̃_T)‖₁ + ‖G_y(D_S) − G_y(D̃_T)‖₁ of a normalised teacher.

    Reduction: mean over the pixels left in the batch. Mask: pixels whose whole 3×3
    neighbourhood lies inside the image and in `mask`.
    """
    outside = F.pad(1 - mask.to(student.dtype), (1, 1, 1, 1), value=1.0)
    weight = 1 - F.max_pool2d(outside, 3, stride=1)
    # The operator is linear: one pass over the difference gives both terms.
    gradient_x, gradient_y = sobel(torch.where(mask, student - teacher, 0))
    error = (gradient_x.abs() + gradient_y.abs()) * weight
    return error.sum() / mean_over_processes(weight.sum()).clamp(min=1)


def pixel_distillation(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """
    L_pixel = ‖D_S − D̃_T‖₂² of a normalised teacher.

    Reduction: mean over `mask` in the batch.
    """
    error = torch.where(mask, student - teacher, 0).square()
    return error.sum() / mean_over_processes(mask.sum().to(error.dtype)).clamp(min=1)


def distillation(
    depth: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    alpha: float = 0.5,
    form: Form = 'inverse',
) -> Tensor:
    """
    L_KD = α · L_grad + (1 − α) · L_pixel.

    `depth` is the student's, positive; `teacher` whatever the teacher predicts, finite; `mask`
    where both are compared (bool, sky excluded); all (B, 1, H, W). `form`: 'literal' compares
    depth with the teacher's output as the paper writes it, 'inverse' compares 1 / depth.
    Raises ValueError for another form.
    """
    if form not in ('literal', 'inverse'):
        raise ValueError(f"distillation form '{form}' is neither 'literal' nor 'inverse'")
    student = depth if form == 'literal' else 1 / depth.clamp(min=1e-3)
    teacher = normalise_teacher(student, teacher, mask)
    return alpha * gradient_distillation(student, teacher, mask) + (
        1 - alpha
    ) * pixel_distillation(student, teacher, mask)


def _statistics(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return each sample's mean and standard deviation over `mask`, (B, 1, 1, 1)."""
    count = mask.sum((1, 2, 3), keepdim=True).clamp(min=1)
    mean = torch.where(mask, values, 0).sum((1, 2, 3), keepdim=True) / count
    square = torch.where(mask, values - mean, 0).square().sum((1, 2, 3), keepdim=True)
    return mean, (square / count).sqrt()
