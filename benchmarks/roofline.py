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

"""The rate that this machine multiplies at: what a network's time is held against."""

from collections.abc import Callable

import torch
from torch import Tensor

SIDE = {'cpu': 4096, 'cuda': 8192}


def matrix_product(
    device: torch.device, precision: torch.dtype = torch.float32
) -> tuple[Callable[[], Tensor], int]:
    """Return one large matrix product to be timed, and its operations: 2 × multiply-adds."""
    side = SIDE[device.type]
    matrix = torch.randn(side, side, device=device, dtype=precision)

    @torch.inference_mode()
    def product() -> Tensor:
        return matrix @ matrix

    return product, 2 * side**3
