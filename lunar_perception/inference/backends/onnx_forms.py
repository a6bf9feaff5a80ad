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
The networks' layers in the forms that ONNX Runtime computes fastest.

Each form is a layer of `lunar_perception.models` with the same parameters and the same values,
written for how ONNX Runtime's CPU provider works: it blocks the channels of convolutions and
undoes that for whatever is not blocked, gives each product of a batch to one thread, and has no
fast kernel for some operations.
"""

from math import gcd
from typing import cast

from lunar_perception.models.heads import (
    LogDepthHead,
    PyramidDecoder,
    Reassemble,
    SegmentationHead,
)
from lunar_perception.models.vit import in_parts, RelativeAttention, RelativePositions
from torch import nn, Tensor
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


def use_onnx_forms(network: nn.Module) -> None:
    """Give the layers of a network that have a form for ONNX Runtime that form, in place."""
    for module in network.modules():
        form = FORMS.get(type(module))
        if form is not None:
            module.__class__ = form


class OnnxAttention(RelativeAttention):
    """Attention by plain products, which are faster than einsum, spread evenly over threads."""

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, positions: RelativePositions
    ) -> Tensor:
        grid = query.unflatten(2, (len(positions.rows), len(positions.columns)))
        rows = grid @ positions.rows.transpose(1, 2)
        columns = (grid.transpose(2, 3) @ positions.columns.transpose(1, 2)).transpose(2, 3)
        return in_parts(attention_by_products, query, key, value, rows, columns)


def attention_by_products(
    query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """Return `biased_attention`; with as few products as heads, some threads would wait."""
    batch, _, tokens, channels = shape = tuple(map(int, query.shape))
    parts = 1 if batch > 1 else gcd(int(rows.shape[2]), 4)
    split = (*shape[:2], parts, tokens // parts, -1)
    bias = rows[..., None] + columns[..., None, :]
    scores = query.reshape(split) @ key.transpose(2, 3)[:, :, None]
    scores = scores * channels**-0.5 + bias.reshape(split)
    return (scores.softmax(-1) @ value[:, :, None]).reshape(shape)


class OnnxReassemble(Reassemble):
    """The resampling as a linear layer where it enlarges; channels blocked at the end."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(self.norm(x.permute(0, 2, 3, 1)))
        if isinstance(self.resample, nn.ConvTranspose2d):
            x = spread_tiles(x, self.resample)
        else:
            x = self.resample(x.permute(0, 3, 1, 2))
        # A pool of one pixel changes nothing, but blocks, for the sums with convolutions' maps.
        return F.max_pool2d(x, 1)


def spread_tiles(x: Tensor, convolution: nn.ConvTranspose2d) -> Tensor:
    """
    Return a transposed convolution of maps (B, h, w, C) as (B, C', H, W), as one linear layer.

    Its kernel must be as wide as its stride. ONNX Runtime's own works on one thread, for a part.
    """
    batch, height, width, _ = map(int, x.shape)
    side = convolution.stride[0]
    weight = convolution.weight.permute(2, 3, 1, 0).flatten(0, 2)
    x = F.linear(x, weight, cast(Tensor, convolution.bias).repeat(side * side))
    x = x.view(batch, height, width, side, side, -1).transpose(2, 3)
    return x.reshape(batch, height * side, width * side, -1).permute(0, 3, 1, 2)


class OnnxPyramidDecoder(PyramidDecoder):
    """The last convolution as two, as one may add to what another wrote: no copy to join them."""

    def join_detail(self, x: Tensor, detail: Tensor) -> Tensor:
        conv = fuse_conv_bn_eval(cast(nn.Conv2d, self.join[0]), cast(nn.BatchNorm2d, self.join[1]))
        left, right = conv.weight.chunk(2, dim=1)
        return F.relu(F.conv2d(x, left, conv.bias, padding=1) + F.conv2d(detail, right, padding=1))


class OnnxSegmentationHead(SegmentationHead):
    """Unblocked by a reshape: the few logits would be resized as a whole block of channels."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits.flatten(2).reshape(tuple(map(int, logits.shape)))


class OnnxLogDepthHead(LogDepthHead):
    """With a softplus of vectorised operations: ONNX Runtime's takes one value at a time."""

    @staticmethod
    def softplus(x: Tensor) -> Tensor:
        return x.clamp_min(0) + (1 + (-4 * x.abs()).exp()).log() / 4


FORMS: dict[type[nn.Module], type[nn.Module]] = {
    RelativeAttention: OnnxAttention,
    Reassemble: OnnxReassemble,
    PyramidDecoder: OnnxPyramidDecoder,
    SegmentationHead: OnnxSegmentationHead,
    LogDepthHead: OnnxLogDepthHead,
}
