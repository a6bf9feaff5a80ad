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

"""OpenVINO on the CPU, in fp32 or with most products in bfloat16."""

from importlib.util import find_spec
from pathlib import Path
import re
import sys
from types import ModuleType
from typing import Any

from lunar_perception.inference.backends.cache import cached
from lunar_perception.inference.backends.onnx_export import INPUT
from lunar_perception.inference.backends.onnx_runtime import onnx_file
from lunar_perception.inference.backends.registry import BackendError, Job, Session
import torch
from torch import Tensor

COMPILED = '.openvino'
"""Suffix of compiled networks in the cache; OpenVINO refuses another version's or processor's."""

BF16_STEPS = re.compile(
    r'/encoder/patch_embed/.*/WithoutBiases$|/encoder/blocks\.\d+/(attn|mlp)/'
    r'|/detail/levels\.1/levels\.1\.1/.*/Conv/WithoutBiases$'
    r'|/decoder/(lateral\.0|refine\.0)/.*Conv/WithoutBiases$|/decoder/reassemble\.0/(MatMul|Add)'
    r'|/decoder/Conv(_1|/WithoutBiases)$'
    r'|/segmentation_head\.0/.*/Conv/WithoutBiases$'
)
"""
Steps of the exported network that bear bfloat16, by name: most of what is multiplied.

The encoder's attention and MLPs, and the large convolutions of the detail stem, the decoder and
the labels. The norms, the sums between blocks, what depth follows from more directly, and what
moved labels for little time stay in fp32.
"""


def open_openvino(job: Job, *, bf16: bool = False) -> Session:
    """
    Return a session of OpenVINO's for a job on the CPU.

    It computes in fp32 or, with `bf16`, `BF16_STEPS` in bfloat16. Raises BackendError when
    OpenVINO is not installed, for another device or precision, and with `bf16` where the processor
    has no instructions for it or the network no such steps.
    """
    if find_spec('openvino') is None:
        raise BackendError('OpenVINO is not installed (pip install openvino)')
    if job.device.type != 'cpu':
        raise BackendError(f"OpenVINO runs on the CPU here, not on '{job.device}'")
    if job.precision != torch.float32:
        raise BackendError('OpenVINO computes in fp32 here: choose precision fp32')
    return OpenVinoSession(job, bf16)


def import_openvino() -> ModuleType:
    """
    Return OpenVINO without its converter of other formats, `openvino.tools.ovc`.

    Nothing here needs it, and importing it, unless something else did, would take longer than all
    the rest, and report so to its maker: this package uses no network unasked.
    """
    converter = 'openvino.tools.ovc'
    hidden = sys.modules.get(converter)
    sys.modules[converter] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        del sys.modules[converter]
        if hidden is not None:
            sys.modules[converter] = hidden
    return openvino


def multiplies_bf16(core: Any) -> bool:
    """Return whether the processor has instructions for bfloat16."""
    # What OpenVINO would compute in by itself.
    default: Any = core.get_property('CPU', 'INFERENCE_PRECISION_HINT')
    return bool(default == import_openvino().Type.bf16)


def round_products(model: Any) -> None:
    """
    Have the `BF16_STEPS` of an OpenVINO model computed in bfloat16, in place.

    What enters them is rounded once, what leaves them is fp32 again. Raises BackendError when
    there are none.
    """
    openvino = import_openvino()
    convert, bf16, fp32 = openvino.opset13.convert, openvino.Type.bf16, openvino.Type.f32
    steps = [
        step
        for step in model.get_ordered_ops()
        if step.get_type_name() != 'Constant' and BF16_STEPS.search(_name(step))
    ]
    if not steps:
        raise BackendError('bfloat16 is for networks with the layers of the unified one')
    inside = {_name(step) for step in steps}
    rounded: dict[tuple[str, int], Any] = {}
    leaving: list[tuple[Any, list[Any]]] = []
    for step in steps:
        for value in step.inputs():
            source = value.get_source_output()
            key = (_name(source.get_node()), source.get_index())
            if key[0] not in inside and source.get_element_type() == fp32:
                if key not in rounded:
                    rounded[key] = convert(source, bf16).output(0)
                value.replace_source_output(rounded[key])
        for output in step.outputs():
            users = [x for x in output.get_target_inputs() if _name(x.get_node()) not in inside]
            if users and output.get_element_type() == fp32:
                leaving.append((output, users))
    for output, users in leaving:
        exact = convert(output, fp32).output(0)
        for user in users:
            user.replace_source_output(exact)
    model.validate_nodes_and_infer_types()


def _name(step: Any) -> str:
    name: str = step.get_friendly_name()
    return name


class OpenVinoSession:
    """The job's network in OpenVINO; torch's memory is read and written in place."""

    def __init__(self, job: Job, bf16: bool = False) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        if bf16 and not multiplies_bf16(core):
            raise BackendError('this processor has no instructions for bfloat16')
        settings = {
            'PERFORMANCE_HINT': 'LATENCY',
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
            # Not tied to cores, its threads would share one while torch's still hold the other.
            'ENABLE_CPU_PINNING': True,
            # It would round everything by itself on CPUs that have bfloat16.
            'INFERENCE_PRECISION_HINT': 'f32',
        }

        def compile_network(path: Path) -> None:
            network = core.read_model(str(onnx_file(job)))
            if bf16:
                round_products(network)
            compiled = core.compile_model(network, 'CPU', settings)
            path.write_bytes(compiled.export_model().getvalue())

        # Compiling takes longer than all the rest of a start.
        kept = cached(f'{job.key}{".bf16" if bf16 else ""}{COMPILED}', compile_network)
        network = core.import_model(kept.read_bytes(), 'CPU', settings)
        self._tensor = openvino.Tensor
        self._request = network.create_infer_request()
        self._shapes = [tuple(output.shape) for output in network.outputs]

    def __call__(self, pixels: Tensor) -> tuple[Tensor, ...]:
        pixels = pixels.contiguous()
        outputs = tuple(torch.empty(shape) for shape in self._shapes)
        self._request.set_tensor(INPUT, self._tensor(pixels.numpy(), shared_memory=True))
        for i, output in enumerate(outputs):
            self._request.set_output_tensor(i, self._tensor(output.numpy(), shared_memory=True))
        self._request.infer()
        return outputs
