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

"""A network behind pixels: what every backend is given."""

import copy

import torch
from torch import nn, Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PixelNetwork(nn.Module):
    """
    Any network of ImageNet-normalised images, taking camera pixels: normalisation is part of it.

    `forward` takes (B, H, W, 3) uint8 RGB and returns a tuple of float32 tensors: those of the
    network's NamedTuple (or its one tensor), without what is None.

    Fields:
        network: the network itself, its weights shared.
        precision: the type that convolutions and products are computed in (autocast).
        names: of the tensors that the last call returned.

    """

    scale: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network = network
        self.precision = precision
        self.names: tuple[str, ...] = ()
        device = next(network.parameters()).device
        mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer('scale', (1 / (255 * std)).to(device), persistent=False)
        self.register_buffer('offset', (-mean / std).to(device), persistent=False)
        self.train(network.training)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        images = pixels.permute(0, 3, 1, 2).float() * self.scale + self.offset
        lower = self.precision != torch.float32
        with torch.autocast(pixels.device.type, self.precision, enabled=lower):
            output = self.network(images)
        if isinstance(output, Tensor):
            self.names = ('output',)
            return (output.float(),)
        fields = zip(output._fields, output, strict=True)
        named = [(name, x) for name, x in fields if x is not None]
        self.names = tuple(name for name, _ in named)
        # What is float32 already would be exported as a copy.
        return tuple(x if x.dtype == torch.float32 else x.float() for _, x in named)

    def of_one_size(self, height: int, width: int) -> 'PixelNetwork':
        """
        Return a network for images of one size only, its tables constants, for compilers.

        It shares its weights with this one.
        """
        shared = {id(x): x for x in (*self.parameters(), *self.buffers())}
        twin = copy.deepcopy(self, shared).eval()
        for module in twin.modules():
            hold = getattr(module, 'hold_size', None)
            if hold is not None:
                hold(height, width)
        return twin
