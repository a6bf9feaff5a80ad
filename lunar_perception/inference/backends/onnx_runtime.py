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

"""ONNX Runtime: on the CPU, on CUDA, or through its TensorRT provider."""

from importlib.util import find_spec
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from lunar_perception.inference.backends.cache import cache_folder, cached
from lunar_perception.inference.backends.onnx_export import export_onnx, INPUT
from lunar_perception.inference.backends.registry import BackendError, Job, Session
import torch
from torch import Tensor

TELEMETRY_SWITCHES = ('ORT_DISABLE_TELEMETRY', 'ORT_TELEMETRY_DISABLED')
"""What keeps ONNX Runtime's official builds from reporting to their maker, by version."""

PACKAGES = {'cpu': 'onnxruntime', 'cuda': 'onnxruntime-gpu'}


def open_onnxruntime(job: Job, *, tensorrt: bool = False) -> Session:
    """
    Return a session of ONNX Runtime's for a job, on the provider of its device.

    Raises BackendError when ONNX Runtime or the provider is not installed, or does not compute
    in the job's precision.
    """
    kind = job.device.type
    if tensorrt and kind != 'cuda':
        raise BackendError(f"TensorRT needs a CUDA device, not '{job.device}'")
    if find_spec('onnxruntime') is None:
        raise BackendError(f'{PACKAGES[kind]} is not installed (pip install {PACKAGES[kind]})')
    if job.precision != torch.float32 and not tensorrt:
        raise BackendError(
            f'ONNX Runtime computes in fp32 here, not {_short(job.precision)}: '
            'choose precision fp32'
        )
    return OnnxRuntimeSession(onnx_file(job), job, _providers(job, tensorrt))


def import_onnxruntime() -> ModuleType:
    """
    Return ONNX Runtime, kept from sending anything: this package uses no network unasked.

    Its builds for Linux report sessions and models, from 1.31 on by default. They read the
    switches when they are loaded, so it must not be imported in any other way.
    """
    for name in TELEMETRY_SWITCHES:
        os.environ[name] = '1'
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


def onnx_file(job: Job) -> Path:
    """Return the job's network as an ONNX file, exported unless the cache has it."""
    name = f'{job.key}.onnx'
    try:
        return cached(name, lambda path: export_onnx(job.network, job.names, job.size, path))
    except ValueError as error:
        raise BackendError(str(error)) from None


def _providers(job: Job, tensorrt: bool) -> list[tuple[str, dict[str, str]]]:
    """Return the providers to use, first the one that matters, with their options."""
    onnxruntime = import_onnxruntime()
    device = {'device_id': str(job.device.index or 0)}
    if tensorrt:
        folder = cache_folder() / 'tensorrt'
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        options = {
            **device,
            'trt_fp16_enable': str(int(job.precision == torch.float16)),
            'trt_bf16_enable': str(int(job.precision == torch.bfloat16)),
            'trt_engine_cache_enable': '1',
            'trt_engine_cache_path': str(folder),
            'trt_engine_cache_prefix': job.key,
        }
        wanted = ('TensorrtExecutionProvider', options)
    elif job.device.type == 'cuda':
        # Without TF32: it would be neither fp32 nor a precision that the user can name.
        wanted = ('CUDAExecutionProvider', {**device, 'use_tf32': '0'})
    else:
        wanted = ('CPUExecutionProvider', {})
    available = onnxruntime.get_available_providers()
    if wanted[0] not in available:
        raise BackendError(
            f'this build of ONNX Runtime has no {wanted[0]} (pip install onnxruntime-gpu)'
        )
    others = ('CUDAExecutionProvider', 'CPUExecutionProvider')
    return [wanted, *((name, {}) for name in others if name != wanted[0] and name in available)]


class OnnxRuntimeSession:
    """An ONNX file in ONNX Runtime; torch's memory is read and written in place."""

    def __init__(self, file: Path, job: Job, providers: list[tuple[str, dict[str, str]]]) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that spin between the network's several hundred steps are awake for the next;
        # when it has run they stop, lest they take the cores from the rest of the machine.
        options.add_session_config_entry('session.intra_op.allow_spinning', '1')
        options.add_session_config_entry('session.force_spinning_stop', '1')
        options.log_severity_level = 3
        self._device = job.device
        self._session = onnxruntime.InferenceSession(str(file), options, providers=providers)
        first = providers[0][0]
        if self._session.get_providers()[0] != first:
            raise BackendError(f'ONNX Runtime could not start its {first}')
        self._shapes = {x.name: tuple(x.shape) for x in self._session.get_outputs()}

    def __call__(self, pixels: Tensor) -> tuple[Tensor, ...]:
        binding = self._session.io_binding()
        pixels = pixels.contiguous()
        place = {'device_type': self._device.type, 'device_id': self._device.index or 0}
        binding.bind_input(
            INPUT,
            element_type='uint8',
            shape=tuple(pixels.shape),
            buffer_ptr=pixels.data_ptr(),
            **place,
        )
        outputs = []
        for name, shape in self._shapes.items():
            output = torch.empty(shape, device=self._device)
            outputs.append(output)
            binding.bind_output(
                name,
                element_type='float32',
                shape=shape,
                buffer_ptr=output.data_ptr(),
                **place,
            )
        if pixels.is_cuda:  # ONNX Runtime works on a stream of its own
            torch.cuda.current_stream(self._device).synchronize()
        self._session.run_with_iobinding(binding)
        return tuple(outputs)


def _short(precision: Any) -> str:
    return str(precision).removeprefix('torch.')
