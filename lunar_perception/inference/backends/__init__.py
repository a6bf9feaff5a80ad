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
What runs a network: torch, `torch.compile`, ONNX Runtime, TensorRT, OpenVINO, int8.

Behind one small interface: a `PixelNetwork` (any module, uint8 pixels in, tensors out) becomes,
for one size of image, a session, which is called with pixels and gives the tensors. A session is
used only after it agreed with torch on a test picture.
"""

from lunar_perception.inference.backends.agreement import BackendRefusedError
from lunar_perception.inference.backends.pixel_network import PixelNetwork
from lunar_perception.inference.backends.registry import (
    AUTO_ORDER,
    BackendError,
    BACKENDS,
    CHOICES,
    Job,
    Session,
)
from lunar_perception.inference.backends.runner import NetworkRunner

__all__ = [
    'AUTO_ORDER',
    'BACKENDS',
    'CHOICES',
    'BackendError',
    'BackendRefusedError',
    'Job',
    'NetworkRunner',
    'PixelNetwork',
    'Session',
]
