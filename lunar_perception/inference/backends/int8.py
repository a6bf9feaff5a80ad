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
int8 on the CPU: ONNX Runtime's static quantisation, calibrated and judged on generated frames.

Rounded so coarsely a network can't agree with torch pixel by pixel, so it has a gate of its own:
against the truth of generated frames that it was not calibrated on.
"""

from collections.abc import Iterator
from importlib.util import find_spec
import json
import logging
from pathlib import Path
from typing import Any

from lunar_perception.inference.backends.agreement import BackendRefusedError
from lunar_perception.inference.backends.cache import cached
from lunar_perception.inference.backends.onnx_export import INPUT
from lunar_perception.inference.backends.onnx_runtime import (
    import_onnxruntime,
    onnx_file,
    OnnxRuntimeSession,
)
from lunar_perception.inference.backends.registry import BackendError, Job, Session
from lunar_perception.taxonomy import SKY
import numpy as np
import torch

LARGEST_LOSS = 0.005
"""How much mIoU and δ1 may be lost to rounding: half a point."""

CALIBRATION_SEEDS = range(900, 908)
GATE_SEEDS = range(950, 958)
FRAMES_A_SCENE = 2

NEEDED_OUTPUTS = ('label_logits', 'depth')
NEEDED_PACKAGES = ('onnx', 'onnxruntime', 'embreex')


class Int8Session(OnnxRuntimeSession):
    """A quantised network in ONNX Runtime, and how well it did on generated frames."""

    figures = ''


def open_int8(job: Job) -> Session:
    """
    Return a session of the job's network in int8; the first time takes a minute or more.

    Raises BackendError on another device than the CPU, for a network without labels and depth,
    or without what calibrating needs; BackendRefusedError, with the figures, when mIoU or δ1 is
    worse than in fp32 by more than `LARGEST_LOSS`.
    """
    missing = [name for name in NEEDED_PACKAGES if find_spec(name) is None]
    if missing:
        raise BackendError(f'int8 needs {", ".join(missing)} (pip install {" ".join(missing)})')
    if job.device.type != 'cpu' or job.precision != torch.float32:
        raise BackendError('int8 runs on the CPU, from a network of precision fp32')
    if not set(NEEDED_OUTPUTS) <= set(job.names):
        raise BackendError('int8 is calibrated for networks that say labels and depth')
    file = cached(f'{job.key}.int8.onnx', lambda path: _quantise(job, onnx_file(job), path))
    session = Int8Session(file, job, [('CPUExecutionProvider', {})])

    def judge(path: Path) -> None:
        path.write_text(json.dumps(_judge(job, session)))

    figures = json.loads(cached(f'{job.key}.int8.json', judge).read_text())
    session.figures = ', '.join(
        f'{name} {values["int8"]:.4f} (fp32 {values["fp32"]:.4f})'
        for name, values in figures.items()
    )
    losses = {name: values['fp32'] - values['int8'] for name, values in figures.items()}
    if not all(loss <= LARGEST_LOSS for loss in losses.values()):
        raise BackendRefusedError(
            f'it loses too much on generated frames: {session.figures} '
            f'(at most {LARGEST_LOSS} less)'
        )
    return session


def _quantise(job: Job, source: Path, target: Path) -> None:
    """Write the ONNX file `source`, its weights and activations in 8 bits, to `target`."""
    import_onnxruntime()
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        quantize_static,
        QuantType,
    )

    class Frames(CalibrationDataReader):
        """Hands over generated images, one at a time."""

        def __init__(self) -> None:
            self._frames = (image for image, _, _ in generated(job.size, CALIBRATION_SEEDS))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._frames, None)
            return None if image is None else {INPUT: image[None]}

    noise = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it logs a line a node on the root logger
    try:
        quantize_static(
            str(source),
            str(target),
            Frames(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=['Conv', 'Gemm', 'MatMul'],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_last_layers(source),
            calibrate_method=CalibrationMethod.MinMax,
            # Attention's own products have no weights.
            extra_options={'MatMulConstBOnly': True},
        )
    finally:
        logging.getLogger().setLevel(noise)


def _last_layers(source: Path) -> list[str]:
    """Return the nodes behind which nothing but resizing and clamping comes, by name."""
    import onnx

    graph = onnx.load(str(source)).graph
    made_by = {output: node for node in graph.node for output in node.output}
    last = set()
    waiting = [output.name for output in graph.output]
    while waiting:
        node = made_by.get(waiting.pop())
        if node is None:
            continue
        if node.op_type in ('Conv', 'Gemm', 'MatMul'):
            last.add(node.name)
        else:
            waiting += node.input
    return sorted(last)


def generated(
    size: tuple[int, int], seeds: range
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """
    Yield generated frames: image (H, W, 3) uint8 RGB, label (H, W) uint8, depth (H, W) float32.

    Depth is +Inf in the sky. Frames that are not square are cut from the middle of square ones.
    """
    from lunar_perception.synthetic.config import MoonConfig
    from lunar_perception.synthetic.moon import Moon

    height, width = size
    side = max(size)
    rows = slice((side - height) // 2, (side - height) // 2 + height)
    columns = slice((side - width) // 2, (side - width) // 2 + width)
    for seed in seeds:
        # Far apart, so that one frame shows more than the other.
        moon = Moon(MoonConfig(seed=seed, size=side, frame_interval=2.0))
        for frame in moon.frames(FRAMES_A_SCENE):
            parts = (frame.left, frame.label, frame.depth)
            image, label, depth = (np.ascontiguousarray(x[rows, columns]) for x in parts)
            yield image, label, depth


def _judge(job: Job, session: Session) -> dict[str, dict[str, float]]:
    """Return mIoU and δ1 of the network in fp32 and in int8 on generated frames."""
    from lunar_perception.metrics import Evaluation

    evaluations = {'fp32': Evaluation(), 'int8': Evaluation()}
    runs: dict[str, Any] = {'fp32': job.network, 'int8': session}
    for image, label, depth in generated(job.size, GATE_SEEDS):
        for name, run in runs.items():
            with torch.inference_mode():
                outputs = dict(zip(job.names, run(torch.from_numpy(image)[None]), strict=True))
            said = outputs['label_logits'][0].argmax(0).numpy().astype(np.uint8)
            metres = outputs['depth'][0, 0].numpy().copy()
            metres[said == SKY] = np.inf
            evaluations[name].update(said, None, metres, None, label, depth)
    results = {name: evaluation.to_dict() for name, evaluation in evaluations.items()}
    return {
        figure: {name: result[figure] for name, result in results.items()}
        for figure in ('miou', 'delta1')
    }
