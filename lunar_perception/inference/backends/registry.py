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

"""The backends by name, what they are given, and which is tried first on which device."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lunar_perception.inference.backends.pixel_network import PixelNetwork
import torch
from torch import Tensor

Session = Callable[[Tensor], tuple[Tensor, ...]]
"""
A network ready for images of one size.

Called with pixels (1, H, W, 3) uint8 on the network's device; returns its tensors there, float32.
They are the caller's: a later call does not write to them.
"""


class BackendError(RuntimeError):
    """A backend can not be used here; the message says why, and what to do."""


@dataclass(frozen=True)
class Job:
    """
    What a backend shall make a session of.

    Fields:
        network: the network, in evaluation, on the device.
        names: of the tensors that come out.
        size: (height, width) of the images in pixels.
        key: name of the network, its size and precision, for the cache.

    """

    network: PixelNetwork
    names: tuple[str, ...]
    size: tuple[int, int]
    key: str

    @property
    def device(self) -> torch.device:
        return self.network.scale.device

    @property
    def precision(self) -> torch.dtype:
        return self.network.precision


def _torch(job: Job) -> Session:
    return job.network


def _compiled(job: Job) -> Session:
    from lunar_perception.inference.backends.torch_compile import open_compiled

    return open_compiled(job)


def _onnxruntime(job: Job, *, tensorrt: bool = False) -> Session:
    from lunar_perception.inference.backends.onnx_runtime import open_onnxruntime

    return open_onnxruntime(job, tensorrt=tensorrt)


def _openvino(job: Job, *, bf16: bool = False) -> Session:
    from lunar_perception.inference.backends.open_vino import open_openvino

    return open_openvino(job, bf16=bf16)


def _int8(job: Job) -> Session:
    from lunar_perception.inference.backends.int8 import open_int8

    return open_int8(job)


BACKENDS: dict[str, Callable[[Job], Session]] = {
    'torch': _torch,
    'compile': _compiled,
    'onnxruntime': _onnxruntime,
    'tensorrt': partial(_onnxruntime, tensorrt=True),
    'openvino': _openvino,
    'openvino_bf16': partial(_openvino, bf16=True),
    'int8': _int8,
}
"""What makes a session of a job; raises BackendError where it can not."""

OWN_GATE = ('int8',)
"""Backends that check themselves: their sessions' `figures` say how."""

CHOICES = ('auto', *BACKENDS)

AUTO_ORDER = {
    'cpu': ('openvino_bf16', 'onnxruntime', 'openvino', 'torch'),
    'cuda': ('torch',),
}
"""
What `auto` tries, by type of device.

On the CPU by benchmarks/results/backends.json and stages.json: bfloat16 is fastest wherever the
processor has it and passes the same check as the others; ONNX Runtime and OpenVINO in fp32 lie
close together, which of them is faster depends on the processor; `compile` takes thirty times as
long to get ready and needs a C++ compiler. `int8` gives other numbers, so it must be asked for. No
backend was measured on a GPU yet.
"""

ROUNDS = ('openvino_bf16',)
"""Those of AUTO_ORDER that a user who asks for fp32 does not want."""
