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

"""OpenVINO on the CPU."""

from importlib.util import find_spec
import sys
from types import ModuleType

from lunar_perception.inference.backends.onnx_export import INPUT
from lunar_perception.inference.backends.onnx_runtime import onnx_file
from lunar_perception.inference.backends.registry import BackendError, Job, Session
import torch
from torch import Tensor


def open_openvino(job: Job) -> Session:
    """
    Return a session of OpenVINO's for a job on the CPU, in fp32.

    Raises BackendError when OpenVINO is not installed, or for another device or precision.
    """
    if find_spec('openvino') is None:
        raise BackendError('OpenVINO is not installed (pip install openvino)')
    if job.device.type != 'cpu':
        raise BackendError(f"OpenVINO runs on the CPU here, not on '{job.device}'")
    if job.precision != torch.float32:
        raise BackendError('OpenVINO computes in fp32 here: choose precision fp32')
    return OpenVinoSession(job)


def import_openvino() -> ModuleType:
    """
    Return OpenVINO, kept from sending anything: this package uses no network unasked.

    Merely imported, its Python package reports so to its maker; without the module that sends,
    it does without.
    """
    sender = 'openvino_telemetry'
    hidden = sys.modules.get(sender)
    sys.modules[sender] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        del sys.modules[sender]
        if hidden is not None:
            sys.modules[sender] = hidden
    return openvino


class OpenVinoSession:
    """The job's ONNX file in OpenVINO; torch's memory is read and written in place."""

    def __init__(self, job: Job) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        compiled = core.compile_model(
            core.read_model(str(onnx_file(job))),
            'CPU',
            {
                'PERFORMANCE_HINT': 'LATENCY',
                'INFERENCE_NUM_THREADS': torch.get_num_threads(),
                # It would choose bf16 by itself on CPUs that have it.
                'INFERENCE_PRECISION_HINT': 'f32',
            },
        )
        self._tensor = openvino.Tensor
        self._request = compiled.create_infer_request()
        self._shapes = [tuple(output.shape) for output in compiled.outputs]

    def __call__(self, pixels: Tensor) -> tuple[Tensor, ...]:
        pixels = pixels.contiguous()
        outputs = tuple(torch.empty(shape) for shape in self._shapes)
        self._request.set_tensor(INPUT, self._tensor(pixels.numpy(), shared_memory=True))
        for i, output in enumerate(outputs):
            self._request.set_output_tensor(i, self._tensor(output.numpy(), shared_memory=True))
        self._request.infer()
        return outputs
