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

"""Backends: they agree with torch, are refused where they do not, cache, and are bounded."""

from collections.abc import Callable, Iterator
import importlib.util
import logging
import os
from pathlib import Path
import shutil
import subprocess
import sys
from typing import NamedTuple

from lunar_perception.cli import main
from lunar_perception.inference.backends import (
    AUTO_ORDER,
    BackendError,
    BackendRefusedError,
    BACKENDS,
    CHOICES,
    int8,
    NetworkRunner,
    open_vino,
    PixelNetwork,
    registry,
    runner,
)
from lunar_perception.inference.backends.agreement import check_agreement
from lunar_perception.inference.backends.agreement import test_picture as picture
from lunar_perception.inference.backends.cache import cache_folder, cached, fingerprint
from lunar_perception.inference.backends.onnx_export import export_onnx
from lunar_perception.inference.backends.onnx_runtime import import_onnxruntime
from lunar_perception.inference.predictor import UnifiedPredictor
from lunar_perception.models import UnifiedConfig, UnifiedModel, vit
from lunar_perception.models.encoders import SamEncoderConfig
from lunar_perception.models.sam2 import Sam2EncoderConfig
from lunar_perception.taxonomy import SKY
import numpy as np
import pytest
from tiny_network import save_tiny_network
import torch
from torch import nn, Tensor

torch.set_num_threads(1)  # tiny tensors: threads would only wait for one another

CPU = torch.device('cpu')
SIZE = (64, 96)


@pytest.fixture(scope='module')
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_network(tmp_path_factory.mktemp('checkpoint') / 'tiny')


@pytest.fixture(scope='module')
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('cache')


@pytest.fixture(autouse=True)
def _cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(shared_cache))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return cache_folder()


@pytest.fixture
def model(tiny: Path) -> UnifiedModel:
    return UnifiedModel.from_pretrained(tiny)


def needs(library: str) -> None:
    """Skip where a library is not installed; importing it to see would have it report so."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f'needs {library}')


def run(model: nn.Module, backend: str, image: np.ndarray) -> tuple[Tensor, ...]:
    engine = NetworkRunner(model, device=CPU, backend=backend)
    outputs = engine(image)
    assert engine.backend == backend
    return outputs


@pytest.mark.parametrize('backend', ['onnxruntime', 'openvino'])
@pytest.mark.parametrize('size', [(64, 64), (48, 80)])
def test_a_backend_says_what_torch_says(
    model: UnifiedModel, backend: str, size: tuple[int, int]
) -> None:
    needs(backend)
    rng = np.random.default_rng(1)
    for image in (picture(*size), rng.integers(0, 256, (*size, 3), dtype=np.uint8)):
        outputs, truths = run(model, backend, image), run(model, 'torch', image)
        assert len(outputs) == len(truths) == 3
        assert len(truths[0].argmax(1).unique()) > 1
        for output, truth in zip(outputs, truths, strict=True):
            assert output.dtype == torch.float32
            torch.testing.assert_close(output, truth, rtol=1e-3, atol=1e-3)


def test_attention_a_few_rows_at_a_time_is_exported(
    model: UnifiedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs('onnxruntime')
    monkeypatch.setattr(vit, 'BIAS_VALUES', 1)
    image = picture(64, 64)
    outputs, truths = run(model, 'onnxruntime', image), run(model, 'torch', image)
    for output, truth in zip(outputs, truths, strict=True):
        torch.testing.assert_close(output, truth, rtol=1e-3, atol=1e-3)


def test_the_network_of_one_size_is_one_graph(model: UnifiedModel) -> None:
    """Nothing in it is left to Python, so torch.compile and CUDA graphs can take it whole."""
    network = PixelNetwork(model).of_one_size(*SIZE).requires_grad_(False)
    graphs = []

    def keep(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(inputs)
        return graph

    compiled = torch.compile(network, fullgraph=True, dynamic=False, backend=keep)
    image = picture(*SIZE)
    with torch.inference_mode():
        outputs = compiled(torch.from_numpy(image)[None])
    assert len(graphs) == 1
    for output, truth in zip(outputs, run(model, 'torch', image), strict=True):
        torch.testing.assert_close(output, truth, rtol=1e-3, atol=1e-3)
    # The weights are shared, not copied.
    pointers = {x.data_ptr() for x in model.parameters()}
    assert pointers == {x.data_ptr() for x in network.parameters()}


def test_int8_is_calibrated_and_held_to_its_own_gate(
    model: UnifiedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ('onnx', 'onnxruntime', 'embreex'):
        needs(library)
    image = picture(64, 64)
    truths = run(model, 'torch', image)
    asked = []

    def frames(size: tuple[int, int], seeds: range) -> Iterator[tuple[np.ndarray, ...]]:
        asked.append((size, seeds))
        label = truths[0][0].argmax(0).numpy().astype(np.uint8)
        yield image, label, np.where(label == SKY, np.inf, truths[1][0, 0].numpy())

    monkeypatch.setattr(int8, 'generated', frames)
    monkeypatch.setattr(int8, 'LARGEST_LOSS', 1.0)
    engine = NetworkRunner(model, device=CPU, backend='int8')
    outputs = engine(image)
    # Judged on other frames than calibrated on.
    assert asked == [((64, 64), int8.CALIBRATION_SEEDS), ((64, 64), int8.GATE_SEEDS)]
    assert not set(int8.CALIBRATION_SEEDS) & set(int8.GATE_SEEDS)
    assert 'miou' in engine.agreement
    assert 'fp32 1.0000' in engine.agreement  # against what fp32 says itself
    assert [x.shape for x in outputs] == [x.shape for x in truths]
    assert (outputs[0].argmax(1) == truths[0].argmax(1)).float().mean() > 0.5
    assert not torch.equal(outputs[0], truths[0])
    (quantised,) = empty_cache.glob('*.int8.onnx')
    import onnx

    operations = {node.op_type for node in onnx.load(str(quantised)).graph.node}
    assert {'QuantizeLinear', 'DequantizeLinear'} <= operations

    monkeypatch.setattr(int8, 'LARGEST_LOSS', -1.0)
    with pytest.raises(BackendRefusedError, match=r'miou 0\.\d+ \(fp32 1\.0000\), delta1'):
        NetworkRunner(model, device=CPU, backend='int8').prepare(64, 64)
    assert len(asked) == 2  # the figures were kept


def test_generated_frames_have_labels_and_depth() -> None:
    needs('embreex')
    image, label, depth = next(int8.generated((32, 48), range(3, 4)))
    assert image.shape == (32, 48, 3)
    assert image.dtype == label.dtype == np.uint8
    assert label.shape == depth.shape == (32, 48)
    np.testing.assert_array_equal(np.isposinf(depth), label == SKY)


def test_results_are_the_callers_to_keep(model: UnifiedModel) -> None:
    for backend in ('onnxruntime', 'openvino'):
        needs(backend)
        engine = NetworkRunner(model, device=CPU, backend=backend)
        first = engine(picture(64, 64))
        before = [x.clone() for x in first]
        engine(np.zeros((64, 64, 3), np.uint8))
        for kept, truth in zip(first, before, strict=True):
            torch.testing.assert_close(kept, truth, rtol=0, atol=0)


def windowed() -> UnifiedModel:
    """Return a network whose windows do not divide its grid."""
    encoder = SamEncoderConfig(
        hidden_size=16, depth=4, heads=2, global_blocks=(3,), window_size=3, image_size=64,
        taps=(0, 1, 2, 3),
    )  # fmt: skip
    return UnifiedModel(
        UnifiedConfig(encoder, decoder_channels=8, detail_channels=(6, 6, 8, 8), input_size=64)
    )


def paper() -> UnifiedModel:
    """Return the paper's heads on a small encoder; they give no uncertainty."""
    encoder = SamEncoderConfig(
        hidden_size=16, depth=2, heads=2, global_blocks=(1,), window_size=3, image_size=64,
        taps=(), neck_channels=8,
    )  # fmt: skip
    return UnifiedModel(
        UnifiedConfig(
            encoder, decoder='paper', decoder_channels=16, detail_channels=(), input_size=64
        )
    )


def sam2() -> UnifiedModel:
    """Return a network on SAM 2's encoder."""
    encoder = Sam2EncoderConfig(
        channels=(8, 16, 32, 64),
        blocks=(1, 2, 3, 1),
        windows=(8, 4, 6, 3),
        global_blocks=(4,),
    )
    return UnifiedModel(
        UnifiedConfig(encoder, decoder_channels=8, detail_channels=(6,), input_size=64)
    )


@pytest.mark.parametrize('make', [windowed, paper, sam2])
def test_every_kind_of_network_passes_the_gate(make: Callable[[], UnifiedModel]) -> None:
    needs('onnxruntime')
    torch.manual_seed(2)
    engine = NetworkRunner(make().eval(), device=CPU, backend='onnxruntime')
    engine.prepare(96, 64)
    assert engine.agreement


class Output(NamedTuple):
    class_logits: Tensor
    features: Tensor
    more: Tensor | None = None


class Classifier(nn.Module):
    """A network of another kind: logits of the whole image, and a map of features."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, stride=4)
        self.linear = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Output:
        features = self.convolution(images)
        return Output(self.linear(features.mean((2, 3))), features)


@pytest.mark.parametrize('backend', ['onnxruntime', 'openvino'])
def test_any_network_is_served(backend: str) -> None:
    needs(backend)
    torch.manual_seed(0)
    network = Classifier()
    image = picture(32, 48)
    truths, outputs = run(network, 'torch', image), run(network, backend, image)
    assert [x.shape for x in outputs] == [(1, 3), (1, 4, 8, 12)]
    for output, truth in zip(outputs, truths, strict=True):
        torch.testing.assert_close(output, truth, rtol=1e-3, atol=1e-4)


def test_torch_compile_serves_too() -> None:
    if shutil.which('g++') is None:
        pytest.skip('needs a C++ compiler')
    torch.manual_seed(0)
    network = Classifier()
    image = picture(32, 48)
    truths, outputs = run(network, 'torch', image), run(network, 'compile', image)
    for output, truth in zip(outputs, truths, strict=True):
        torch.testing.assert_close(output, truth, rtol=1e-3, atol=1e-4)


def test_pixels_are_normalised_as_imagenets(model: UnifiedModel) -> None:
    image = picture(64, 64)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised = ((image / 255 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    with torch.inference_mode():
        truth = model(torch.from_numpy(normalised))
        outputs = PixelNetwork(model)(torch.from_numpy(image)[None])
    for output, expected in zip(outputs, truth, strict=True):
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)


def liar(factor: float) -> object:
    """Return a backend whose depth is wrong by a factor."""

    def open_session(job: registry.Job) -> registry.Session:
        def session(pixels: Tensor) -> tuple[Tensor, ...]:
            logits, depth, scale = job.network(pixels)
            return logits, depth * factor, scale

        return session

    return open_session


def broken(job: registry.Job) -> registry.Session:
    raise OSError('libfast.so: cannot open shared object file\nsecond line')


def absent(job: registry.Job) -> registry.Session:
    raise BackendError('it is not installed')


def test_one_that_disagrees_is_refused_with_the_figures(
    model: UnifiedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, 'onnxruntime', liar(1.009))
    NetworkRunner(model, device=CPU, backend='onnxruntime').prepare(*SIZE)
    monkeypatch.setitem(BACKENDS, 'onnxruntime', liar(1.02))
    with pytest.raises(BackendRefusedError, match=r"'onnxruntime'.*depth differs by up to 2 %"):
        NetworkRunner(model, device=CPU, backend='onnxruntime').prepare(*SIZE)


def test_auto_takes_the_next_and_says_why(
    model: UnifiedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(AUTO_ORDER, 'cpu', ('int8', 'onnxruntime', 'openvino', 'torch'))
    monkeypatch.setitem(BACKENDS, 'int8', absent)
    monkeypatch.setitem(BACKENDS, 'onnxruntime', broken)
    monkeypatch.setitem(BACKENDS, 'openvino', liar(2.0))
    engine = NetworkRunner(model, device=CPU)
    assert engine.backend == 'auto'
    outputs = engine(picture(*SIZE))
    assert engine.backend == 'torch'
    for output, truth in zip(outputs, run(model, 'torch', picture(*SIZE)), strict=True):
        torch.testing.assert_close(output, truth)
    assert engine.refusals['int8'] == 'it is not installed'
    assert 'libfast.so' in engine.refusals['onnxruntime']
    assert 'second line' not in engine.refusals['onnxruntime']
    assert 'depth differs by up to 1e+02 %' in engine.refusals['openvino']
    warned = [x.getMessage() for x in caplog.records if x.levelno >= logging.WARNING]
    assert len(warned) == 2  # what is not installed is no fault
    assert "'onnxruntime'" in warned[0]
    assert "'openvino'" in warned[1]


def test_the_gate_holds_labels_depth_scale_and_all_else() -> None:
    logits = torch.zeros(1, 3, 100, 100)
    logits[:, 1] = 1
    depth, scale = torch.full((1, 1, 100, 100), 5.0), torch.zeros(1, 1, 100, 100)
    names = ('label_logits', 'depth', 'depth_log_scale')
    text = check_agreement(names, (logits, depth, scale), (logits, 1.005 * depth, scale))
    assert '100.000% of label_logits' in text

    def refused(*outputs: Tensor) -> str:
        with pytest.raises(BackendRefusedError) as refusal:
            check_agreement(names, (logits, depth, scale), outputs)
        return str(refusal.value)

    swapped = logits.clone()
    swapped[:, 0, :, 0] = 2  # 1 % of the pixels
    assert '99.000% of label_logits' in refused(swapped, depth, scale)
    assert 'depth_log_scale differs by up to 2 %' in refused(logits, depth, scale + 0.02)
    far = depth.clone()
    far[0, 0, 3, 4] = torch.nan
    assert 'depth is not finite' in refused(logits, far, scale)
    assert 'shapes' in refused(logits, depth[..., :50], scale)
    far[0, 0, 3, 4] = 9.0
    assert 'depth differs by up to 80 %' in refused(logits, far, scale)
    features = torch.linspace(-1, 1, 50)[None]
    check_agreement(('features',), (features,), (features + 0.005,))
    with pytest.raises(BackendRefusedError):
        check_agreement(('features',), (features,), (features + 0.05,))


def test_the_gate_asks_for_no_depth_of_the_sky_unless_all_is_sky() -> None:
    logits = torch.zeros(1, 5, 10, 10)
    logits[:, SKY, :4] = 1
    depth = torch.full((1, 1, 10, 10), 5.0)
    wrong = depth.clone()
    wrong[..., :4, :] = 9.0
    check_agreement(('label_logits', 'depth'), (logits, depth), (logits, wrong))
    logits[:, SKY] = 1
    with pytest.raises(BackendRefusedError, match='depth differs by up to 80 %'):
        check_agreement(('label_logits', 'depth'), (logits, depth), (logits, wrong))


def test_unknown_and_unfit_backends_are_refused(model: UnifiedModel) -> None:
    with pytest.raises(ValueError, match=r"unknown backend 'tpu'; choose auto, torch"):
        NetworkRunner(model, device=CPU, backend='tpu')
    with pytest.raises(BackendError, match='TensorRT needs a CUDA device'):
        NetworkRunner(model, device=CPU, backend='tensorrt').prepare(*SIZE)
    for backend in ('onnxruntime', 'openvino'):
        needs(backend)
        lower = NetworkRunner(model, device=CPU, precision=torch.bfloat16, backend=backend)
        with pytest.raises(BackendError, match='choose precision fp32'):
            lower.prepare(*SIZE)
    # Auto, though, runs whatever precision torch can.
    lower = NetworkRunner(model, device=CPU, precision=torch.bfloat16)
    assert all(x.dtype == torch.float32 for x in lower(picture(*SIZE)))
    assert lower.backend == 'torch'


def test_what_was_exported_is_used_again_and_never_half_written(
    tiny: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs('onnxruntime')
    image = picture(*SIZE)
    first = run(UnifiedModel.from_pretrained(tiny), 'onnxruntime', image)
    assert {path.suffix for path in empty_cache.iterdir()} == {'.onnx', '.safetensors'}
    assert empty_cache.stat().st_mode & 0o077 == 0
    stamps = {path: path.stat().st_ino for path in empty_cache.iterdir()}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError('exported again')

    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, 'export', refuse)
        again = run(UnifiedModel.from_pretrained(tiny), 'onnxruntime', image)
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert {path: path.stat().st_ino for path in empty_cache.iterdir()} == stamps

    # A file that was damaged since is made anew.
    (file,) = empty_cache.glob('*.onnx')
    file.write_bytes(b'not a network')
    run(UnifiedModel.from_pretrained(tiny), 'onnxruntime', image)
    assert file.stat().st_size > 1000

    # Other weights, another file.
    other = UnifiedModel.from_pretrained(tiny)
    with torch.no_grad():
        other.encoder.pos_embed += 0.1
    run(other, 'onnxruntime', image)
    assert len(list(empty_cache.glob('*.onnx'))) == 2


def test_what_was_compiled_is_used_again_unless_it_was_damaged(
    tiny: Path, empty_cache: Path
) -> None:
    needs('openvino')
    image = picture(*SIZE)
    first = run(UnifiedModel.from_pretrained(tiny), 'openvino', image)
    (file,) = empty_cache.glob('*.openvino')
    inode = file.stat().st_ino
    again = run(UnifiedModel.from_pretrained(tiny), 'openvino', image)
    assert file.stat().st_ino == inode
    file.write_bytes(b'not a network')
    anew = run(UnifiedModel.from_pretrained(tiny), 'openvino', image)
    assert file.stat().st_size > 1000
    for one, other, third in zip(first, again, anew, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
        torch.testing.assert_close(one, third, rtol=0, atol=0)


def test_a_cache_that_cannot_be_written_costs_speed_only(
    model: UnifiedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    engine = NetworkRunner(model, device=CPU)
    engine(picture(*SIZE))
    assert engine.backend == 'torch'
    assert 'file' in engine.refusals['onnxruntime']


def test_an_interrupted_write_leaves_nothing(empty_cache: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b'half')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached('name.onnx', fail)
    assert list(empty_cache.iterdir()) == []


def test_the_cache_does_not_grow_without_end(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lunar_perception.inference.backends.cache as cache

    monkeypatch.setattr(cache, 'KEPT_BYTES', 250)
    for i in range(5):
        cached(f'{i}.onnx', lambda path: path.write_bytes(bytes(100)))
        cached('0.onnx', lambda path: path.write_bytes(bytes(100)))  # used again and again
    assert sorted(path.name for path in empty_cache.iterdir()) == ['0.onnx', '4.onnx']


def test_the_fingerprint_tells_weights_shapes_and_details_apart() -> None:
    torch.manual_seed(0)
    network = Classifier()
    name = fingerprint(network, 'fp32')
    assert name == fingerprint(network, 'fp32')
    assert name != fingerprint(network, 'bf16')
    with torch.no_grad():
        network.linear.bias[0] += 1
    assert name != fingerprint(network, 'fp32')


def test_sizes_are_bounded(model: UnifiedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def open_session(job: registry.Job) -> registry.Session:
        opened.append(job.size)
        return job.network

    monkeypatch.setitem(BACKENDS, 'onnxruntime', open_session)
    engine = NetworkRunner(model, device=CPU, backend='onnxruntime')
    sizes = [(32, 32 + 16 * i) for i in range(runner.MOST_SESSIONS + 3)]
    for size in sizes * 2:
        logits, *_ = engine(picture(*size))
        assert logits.shape[-2:] == size
    assert opened == sizes[: runner.MOST_SESSIONS]


def test_one_forward_of_the_network_a_frame(model: UnifiedModel) -> None:
    for backend in ('torch', 'onnxruntime'):
        engine = NetworkRunner(model, device=CPU, backend=backend)
        engine.prepare(*SIZE)
        calls = []
        handle = model.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        for _ in range(3):
            engine(picture(*SIZE))
        handle.remove()
        assert len(calls) == (3 if backend == 'torch' else 0)


def test_the_predictor_says_the_same_through_every_backend(tiny: Path) -> None:
    image = picture(120, 160)
    truth = UnifiedPredictor.from_pretrained(tiny, device='cpu', backend='torch')(image)
    for backend in ('auto', 'onnxruntime', 'openvino'):
        if backend != 'auto':
            needs(backend)
        predictor = UnifiedPredictor.from_pretrained(tiny, device='cpu', backend=backend)
        assert predictor.backend == backend
        prediction = predictor(image)
        assert predictor.backend in BACKENDS
        assert (prediction.label == truth.label).mean() > 0.999
        np.testing.assert_allclose(prediction.confidence, truth.confidence, atol=1e-3)
        finite = np.isfinite(truth.depth) & np.isfinite(prediction.depth)
        assert finite.mean() > 0.1
        np.testing.assert_allclose(prediction.depth[finite], truth.depth[finite], rtol=1e-2)


def test_auto_in_fp32_takes_onnx_runtime_where_it_is_installed(tiny: Path) -> None:
    needs('onnxruntime')
    predictor = UnifiedPredictor.from_pretrained(tiny, device='cpu', precision='fp32')
    predictor.warm_up(64, 64)
    assert predictor.backend == 'onnxruntime'
    assert predictor.refusals == {}


def test_auto_rounds_to_bfloat16_where_the_network_bears_it(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Which is asked on the picture; that it does not is no fault, nor is another processor."""
    fitting = NetworkRunner(UnifiedModel.from_pretrained(tiny), device=CPU, may_round=True)
    monkeypatch.setitem(BACKENDS, 'openvino_bf16', liar(1.009))
    fitting.prepare(*SIZE)
    assert fitting.backend == 'openvino_bf16'
    unfit = NetworkRunner(UnifiedModel.from_pretrained(tiny), device=CPU, may_round=True)
    monkeypatch.setitem(BACKENDS, 'openvino_bf16', liar(1.02))
    unfit.prepare(*SIZE)
    assert unfit.backend != 'openvino_bf16'
    assert 'depth differs by up to 2 %' in unfit.refusals['openvino_bf16']
    assert not [x for x in caplog.records if x.levelno >= logging.WARNING]


def test_another_processor_is_told_from_one_with_bfloat16(
    model: UnifiedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs('openvino')
    monkeypatch.setattr(open_vino, 'multiplies_bf16', lambda core: False)
    with pytest.raises(BackendError, match='this processor has no instructions for bfloat16'):
        NetworkRunner(model, device=CPU, backend='openvino_bf16').prepare(*SIZE)


def test_the_shipped_weights_bear_bfloat16() -> None:
    needs('openvino')
    if not open_vino.multiplies_bf16(open_vino.import_openvino().Core()):
        pytest.skip('needs a processor with instructions for bfloat16')
    rounded = UnifiedPredictor.from_pretrained(device='cpu')
    exact = UnifiedPredictor.from_pretrained(device='cpu', backend='torch')
    image = np.ascontiguousarray(picture(448, 448)[:, ::-1])  # not the one it is checked on
    prediction, truth = rounded(image), exact(image)
    assert rounded.backend == 'openvino_bf16'
    assert (prediction.label == truth.label).mean() > 0.999
    ground = np.isfinite(truth.depth) & np.isfinite(prediction.depth)
    np.testing.assert_allclose(prediction.depth[ground], truth.depth[ground], rtol=0.02)
    assert not np.array_equal(prediction.confidence, truth.confidence)


def test_products_are_rounded_and_depth_sums_and_norms_are_not(
    model: UnifiedModel, tmp_path: Path
) -> None:
    needs('openvino')
    file = tmp_path / 'network.onnx'
    export_onnx(PixelNetwork(model), ('label_logits', 'depth', 'depth_log_scale'), SIZE, file)
    network = open_vino.import_openvino().Core().read_model(str(file))
    open_vino.round_products(network)
    products = {}
    for step in network.get_ordered_ops():
        type_name = step.get_output_element_type(0).get_type_name() if step.outputs() else ''
        if step.get_type_name() in ('MatMul', 'Convolution'):
            products[step.get_friendly_name()] = type_name
        elif step.get_type_name() in ('LayerNormalization', 'Exp', 'Interpolate', 'Result'):
            assert type_name == 'f32', step.get_friendly_name()
    rounded = {name for name, type_name in products.items() if type_name == 'bf16'}
    blocks = {name for name in products if '/encoder/blocks.' in name}
    assert blocks and blocks <= rounded
    assert [name for name in rounded if '/segmentation_head.0/' in name]
    assert [name for name in rounded if '/decoder/refine.0/' in name]
    assert not [name for name in rounded if 'depth_head' in name]
    # Of the stem, the one residual at stride 4.
    assert all('/levels.1.1/' in name for name in rounded if '/detail/' in name)
    assert len(network.outputs) == 3


def test_only_networks_like_the_unified_one_are_rounded(tmp_path: Path) -> None:
    needs('openvino')
    file = tmp_path / 'network.onnx'
    export_onnx(PixelNetwork(Classifier()), ('logits', 'features'), (32, 48), file)
    network = open_vino.import_openvino().Core().read_model(str(file))
    with pytest.raises(BackendError, match='layers of the unified one'):
        open_vino.round_products(network)


def test_openvino_comes_without_its_converter_which_reports_to_its_maker() -> None:
    needs('openvino')
    program = """
import sys
from lunar_perception.inference.backends.open_vino import import_openvino
import_openvino().Core()
assert not [name for name in sys.modules if name.startswith(('openvino.tools', 'openvino_tele'))]
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_the_extra_everything_runs_on_torch(tiny: Path, empty_cache: Path) -> None:
    """In a process where neither ONNX Runtime nor OpenVINO can be found."""
    program = f"""
import importlib.util, sys
find = importlib.util.find_spec
hidden = ('onnx', 'onnxruntime', 'onnxscript', 'openvino')
importlib.util.find_spec = lambda name, *a: None if name in hidden else find(name, *a)
for name in hidden:
    sys.modules[name] = None
import numpy as np
from lunar_perception import UnifiedPredictor
predictor = UnifiedPredictor.from_pretrained({str(tiny)!r}, device='cpu')
predictor(np.zeros((64, 64, 3), np.uint8)).label
assert predictor.backend == 'torch', predictor.backend
assert set(predictor.refusals) == {{'openvino_bf16', 'onnxruntime', 'openvino'}}
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('backend', ['onnxruntime', 'openvino'])
def test_nothing_is_reported_to_anybody(tiny: Path, tmp_path: Path, backend: str) -> None:
    """Both libraries would number the machine, and report how they are used to their makers."""
    needs(backend)
    program = f"""
import socket
def refuse(*_):
    raise AssertionError('the network was used')
socket.getaddrinfo = socket.socket.connect = refuse
import numpy as np
from lunar_perception import UnifiedPredictor
options = {{'device': 'cpu', 'backend': {backend!r}}}
predictor = UnifiedPredictor.from_pretrained({str(tiny)!r}, **options)
predictor(np.zeros((64, 64, 3), np.uint8)).label
"""
    environment = {'HOME': str(tmp_path), 'PATH': os.environ['PATH'], 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['.cache']
    assert [path.name for path in (tmp_path / '.cache').iterdir()] == ['lunar_perception']


def test_export_writes_a_network_that_others_can_run(tiny: Path, tmp_path: Path) -> None:
    needs('onnxruntime')
    onnxruntime = import_onnxruntime()
    target = tmp_path / 'new' / 'network.onnx'
    arguments = ['--format', 'onnx', '--output', str(target), '--model', str(tiny)]
    assert main(['export', *arguments]) == 0
    session = onnxruntime.InferenceSession(str(target), providers=['CPUExecutionProvider'])
    model = UnifiedModel.from_pretrained(tiny)
    about = session.get_modelmeta().custom_metadata_map
    assert about['classes'] == 'regolith, crater, rock, mountain, sky'
    assert float(about['canonical_focal']) == model.config.canonical_focal
    image = picture(64, 64)
    outputs = session.run(['label_logits', 'depth', 'depth_log_scale'], {'pixels': image[None]})
    for output, truth in zip(outputs, run(model, 'torch', image), strict=True):
        np.testing.assert_allclose(output, truth.numpy(), rtol=1e-3, atol=1e-3)
    assert [path.name for path in target.parent.iterdir()] == ['network.onnx']


def test_export_refuses_in_one_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for output, model, reason in (
        (tmp_path, tiny, 'is a folder'),
        (tmp_path / 'x.onnx', tmp_path / 'nowhere', 'there is no folder'),
    ):
        arguments = ['--format', 'onnx', '--output', str(output), '--model', str(model)]
        assert main(['export', *arguments]) == 1
        error = capsys.readouterr().err
        assert reason in error
        assert error.count('\n') == 1


def test_every_choice_is_the_nodes_too() -> None:
    pytest.importorskip('rclpy', reason='needs ROS 2')
    from lunar_perception.nodes.parameters import metadata_of
    from lunar_perception.nodes.unified_parameters import UnifiedParameters

    assert metadata_of(UnifiedParameters)['backend']['choices'] == CHOICES
