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

"""The predictor: sizes, focal length, calibration, laziness, refusals; the package's doors."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
import subprocess
import sys

from benchmarks.image_shape import middle, middle_camera
from hypothesis import given, settings
from hypothesis import strategies as st
from lunar_perception.camera import LUSNAR_CAMERA, PinholeCamera
from lunar_perception.inference.prediction import Prediction
from lunar_perception.inference.predictor import SHIPPED_WEIGHTS, UnifiedPredictor
from lunar_perception.models import UnifiedConfig, UnifiedModel
from lunar_perception.models.encoders import SamEncoderConfig
from lunar_perception.synthetic import Moon, MoonConfig
from lunar_perception.taxonomy import SKY
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

torch.set_num_threads(1)  # tiny tensors: threads would only wait for one another

ENCODER = SamEncoderConfig(
    hidden_size=16,
    depth=4,
    heads=2,
    global_blocks=(1, 3),
    window_size=3,
    image_size=64,
    taps=(0, 1, 2, 3),
)
CONFIG = UnifiedConfig(ENCODER, decoder_channels=8, detail_channels=(6, 6, 8, 8), input_size=96)


def model_of(config: UnifiedConfig) -> UnifiedModel:
    """Return a network whose labels and depths vary over an image."""
    torch.manual_seed(1)
    model = UnifiedModel(config).eval()
    with torch.no_grad():
        model.segmentation_head[-1].weight.mul_(20)
        model.depth_head.predict.weight.mul_(20)
        # Whatever was drawn, every class shall win somewhere.
        logits = model(torch.randn(1, 3, 96, 96)).label_logits
        model.segmentation_head[-1].bias -= logits.mean((0, 2, 3))
    return model


def predictor_of(config: UnifiedConfig = CONFIG, **options: str) -> UnifiedPredictor:
    return UnifiedPredictor(model_of(config), device='cpu', **options)


@pytest.fixture(scope='module')
def predictor() -> UnifiedPredictor:
    return predictor_of()


@pytest.fixture(scope='module')
def predictor_448() -> UnifiedPredictor:
    return predictor_of(replace(CONFIG, input_size=448))


def picture(height: int, width: int) -> np.ndarray:
    """Return a picture with something coarse and something fine in it."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 200, (4, 4, 3))
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return (coarse[rows][:, columns] + rng.integers(0, 50, (height, width, 3))).astype(np.uint8)


@pytest.mark.parametrize('size', [(96, 96), (70, 130), (301, 200), (1, 1), (2, 40)])
def test_predictions_have_the_images_size(
    predictor: UnifiedPredictor, size: tuple[int, int]
) -> None:
    prediction = predictor(picture(*size))
    label, confidence = prediction.label, prediction.confidence
    depth, uncertainty = prediction.depth, prediction.uncertainty
    assert label.shape == confidence.shape == depth.shape == uncertainty.shape == size
    assert label.dtype == np.uint8
    assert confidence.dtype == depth.dtype == uncertainty.dtype == np.float32
    assert label.max() < 5
    assert (confidence >= 0.2 - 1e-6).all()
    assert (confidence <= 1).all()
    sky = label == SKY
    assert np.isposinf(depth[sky]).all()
    assert np.isnan(uncertainty[sky]).all()
    assert (np.isfinite(depth[~sky]) & (depth[~sky] > 0)).all()
    assert (np.isfinite(uncertainty[~sky]) & (uncertainty[~sky] > 0)).all()


def test_it_says_what_the_network_says_of_an_image_of_its_size(
    predictor: UnifiedPredictor,
) -> None:
    image = picture(96, 96)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised = ((image / 255 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    with torch.no_grad():
        output = predictor.model(torch.from_numpy(normalised))
    label = output.label_logits[0].argmax(0).numpy()
    assert len(np.unique(label)) > 1
    assert 0 < (label == SKY).mean() < 1
    prediction = predictor(image)
    np.testing.assert_array_equal(prediction.label, label)
    probability = output.label_logits[0].softmax(0).max(0).values.numpy()
    np.testing.assert_allclose(prediction.confidence, probability, rtol=1e-4)
    depth = np.where(label == SKY, np.inf, output.depth[0, 0].numpy())
    np.testing.assert_allclose(prediction.depth, depth, rtol=1e-4)
    sigma = np.sqrt(2) * output.depth_log_scale[0, 0].exp().numpy() * depth
    np.testing.assert_allclose(
        prediction.uncertainty, np.where(label == SKY, np.nan, sigma), rtol=1e-4
    )


def test_a_larger_image_is_shrunk_by_area_and_logits_and_log_depth_grow_back(
    predictor: UnifiedPredictor,
) -> None:
    image = picture(192, 192)
    # Each pixel of the network's input is the mean of 2 × 2 of the image's.
    small = image.reshape(96, 2, 96, 2, 3).mean((1, 3))
    below = predictor(np.rint(small).astype(np.uint8))
    above = predictor(image)
    logits = F.interpolate(below._output.label_logits, (192, 192), mode='bilinear')[0]
    assert (above.label == logits.argmax(0).numpy()).mean() > 0.99
    log_depth = F.interpolate(below._output.depth.log(), (192, 192), mode='bilinear')[0, 0]
    ground = above.label != SKY
    np.testing.assert_allclose(above.depth[ground], log_depth.exp().numpy()[ground], rtol=0.05)


def test_depth_scales_with_focal_length_over_width(predictor: UnifiedPredictor) -> None:
    image = picture(60, 100)
    camera = PinholeCamera(100, 60, 80.0, 75.0, 47.0, 33.0)
    base = predictor(image, camera)
    twice = predictor(image, replace(camera, fx=160.0))
    np.testing.assert_allclose(twice.depth, 2 * base.depth, rtol=1e-6)
    np.testing.assert_allclose(twice.uncertainty, 2 * base.uncertainty, rtol=1e-6)
    np.testing.assert_array_equal(twice.label, base.label)
    # The same lens behind twice the pixels sees the same depths.
    finer = np.repeat(np.repeat(image, 2, 0), 2, 1)
    resized = predictor(finer, camera.resized(200, 120)).depth[::2, ::2]
    both = np.isfinite(resized) & np.isfinite(base.depth)
    assert np.median(np.abs(resized[both] / base.depth[both] - 1)) < 0.05
    # Without a camera: LuSNAR's field of view.
    np.testing.assert_array_equal(
        predictor(image).depth, predictor(image, LUSNAR_CAMERA.resized(100, 60)).depth
    )


def test_no_camera_means_lusnars_field_of_view_whatever_the_canonical_one() -> None:
    image = picture(96, 96)
    half = predictor_of(replace(CONFIG, canonical_focal=CONFIG.canonical_focal / 2))
    np.testing.assert_allclose(half(image).depth, 2 * predictor_of()(image).depth, rtol=1e-6)


def test_calibration_changes_confidence_and_uncertainty_only() -> None:
    image = picture(80, 120)
    plain = predictor_of()(image)
    calibrated = predictor_of(replace(CONFIG, temperature=3.0, uncertainty_scale=2.0))(image)
    np.testing.assert_array_equal(calibrated.label, plain.label)
    np.testing.assert_array_equal(calibrated.depth, plain.depth)
    np.testing.assert_allclose(calibrated.uncertainty, 2 * plain.uncertainty, rtol=1e-6)
    logits = F.interpolate(plain._output.label_logits, (80, 120), mode='bilinear')[0]
    expected = (logits / 3).softmax(0).max(0).values.numpy()
    np.testing.assert_allclose(calibrated.confidence, expected, rtol=1e-4)
    assert calibrated.confidence.mean() < plain.confidence.mean()


def test_arrays_are_made_when_asked_for_and_kept(predictor: UnifiedPredictor) -> None:
    prediction = predictor(picture(70, 90))
    made = {'label', 'confidence', 'depth', 'uncertainty'}
    assert not made & vars(prediction).keys()
    confidence = prediction.confidence
    assert made & vars(prediction).keys() == {'confidence'}
    assert prediction.confidence is confidence
    assert prediction.depth is prediction.depth
    assert prediction.label is prediction.label


def test_any_memory_layout_is_read_alike_and_left_alone(predictor: UnifiedPredictor) -> None:
    image = picture(96, 140)
    expected = predictor(image).depth
    views = {
        'reversed channels': np.ascontiguousarray(image[..., ::-1])[..., ::-1],
        'padded rows': np.pad(image, ((0, 0), (3, 5), (0, 0)))[:, 3:-5],
        'column order': np.asfortranarray(image),
        'alpha dropped': np.dstack((image, image[..., 0]))[..., :3],
    }
    frozen = image.copy()
    frozen.setflags(write=False)
    for name, view in {**views, 'read-only': frozen}.items():
        np.testing.assert_array_equal(predictor(view).depth, expected, err_msg=name)
    square = picture(96, 96)  # the network's own size: nothing is resized
    before = square.copy()
    square.setflags(write=False)
    assert predictor(square).depth.shape == (96, 96)
    np.testing.assert_array_equal(square, before)


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (np.zeros((8, 8), np.uint8), r'shape \(8, 8\)'),
        (np.zeros((8, 8, 4), np.uint8), r'shape \(8, 8, 4\)'),
        (np.zeros((0, 8, 3), np.uint8), 'not empty'),
        (np.zeros((8, 8, 3), np.float32), 'float32; it must be uint8'),
        ([[0, 0, 0]], 'list, not a NumPy array'),
        (None, 'NoneType'),
    ],
)
def test_other_images_are_refused(
    predictor: UnifiedPredictor, image: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        predictor(image)


def test_a_camera_of_another_size_is_refused(predictor: UnifiedPredictor) -> None:
    with pytest.raises(ValueError, match='the camera is of 1024×1024 pixels, the image of 20×10'):
        predictor(picture(10, 20), LUSNAR_CAMERA)


@pytest.mark.parametrize(
    ('size', 'expected'),
    [
        ((448, 448), (448, 448)),
        ((1024, 1024), (448, 448)),
        ((143, 143), (448, 448)),
        ((720, 1280), (336, 592)),
        ((1280, 720), (592, 336)),
        ((480, 640), (384, 512)),
    ],
)
def test_network_sizes(
    predictor_448: UnifiedPredictor, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert predictor_448.network_size(*size) == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_network_sizes_keep_their_bounds(
    predictor_448: UnifiedPredictor, height: int, width: int
) -> None:
    rows, columns = predictor_448.network_size(height, width)
    assert rows % 16 == columns % 16 == 0
    assert min(rows, columns) >= 16
    assert rows * columns <= 448**2
    assert (columns, rows) == predictor_448.network_size(width, height)
    if 1 / 3 <= width / height <= 3:
        assert rows * columns > 0.8 * 448**2
        assert columns / rows == pytest.approx(width / height, rel=0.05)


def test_a_network_without_uncertainty_gives_none() -> None:
    encoder = replace(ENCODER, taps=(), neck_channels=16)
    config = replace(UnifiedConfig.paper(), encoder=encoder, decoder_channels=8, input_size=96)
    prediction = predictor_of(config)(picture(50, 60))
    assert prediction.uncertainty is None
    assert prediction.depth.shape == (50, 60)


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_lower_precision_is_close(precision: str) -> None:
    image = picture(120, 90)
    full, lower = predictor_of()(image), predictor_of(precision=precision)(image)
    assert lower.depth.dtype == lower.confidence.dtype == np.float32
    assert (full.label == lower.label).mean() > 0.95
    both = np.isfinite(full.depth) & np.isfinite(lower.depth)
    np.testing.assert_allclose(lower.depth[both], full.depth[both], rtol=0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_cuda_agrees_with_the_cpu() -> None:
    image = picture(120, 90)
    on_cpu, on_cuda = predictor_of()(image), UnifiedPredictor(model_of(CONFIG))(image)
    assert (on_cpu.label == on_cuda.label).mean() > 0.95


def memory(tensor: torch.Tensor) -> int:
    """Return where a tensor's memory begins: a view's is that of the tensor that it views."""
    return tensor.untyped_storage().data_ptr()


class Written(TorchDispatchMode):
    """Counts operations within it, and the bytes of new tensors that they write."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        self.operations[name] += 1
        given = {memory(x) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and memory(x) not in given:
                self.bytes += x.nbytes
        return result


def test_a_frame_costs_one_pass_and_the_same_operations_every_time() -> None:
    predictor = predictor_of()
    calls: list[int] = []
    predictor.model.register_forward_hook(lambda *_: calls.append(1))
    counts = []
    for _ in range(3):
        with Written() as frame:
            prediction = predictor(picture(192, 256))
            _ = prediction.label, prediction.confidence, prediction.depth, prediction.uncertainty
        counts.append(frame.operations)
    assert len(calls) == 3
    assert counts[1] == counts[2]  # the first also computes what is kept
    # Tables are not looked up, and nothing waits for the device before the results are read.
    assert not {'index', 'arange', '_local_scalar_dense', 'upsample_bicubic2d'} & set(counts[1])


def test_an_image_of_the_networks_size_is_finished_in_numpy_behind_another_backend() -> None:
    predictor = predictor_of()
    side = predictor.config.input_size
    truth = predictor(picture(side, side))
    prediction = Prediction(truth._output, (side, side), 1.0, predictor.config, in_numpy=True)
    with Written() as frame:
        arrays = prediction.label, prediction.confidence, prediction.depth, prediction.uncertainty
    assert not frame.bytes
    truths = truth.label, truth.confidence, truth.depth, truth.uncertainty
    for array, expected in zip(arrays, truths, strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5)
        assert array.dtype == expected.dtype


def test_images_are_resized_once_and_little_is_written_behind_the_network() -> None:
    predictor = predictor_of()
    size = (960, 960)
    pixels = 4 * size[0] * size[1]  # the bytes of one float32 image

    def written(*names: str) -> tuple[float, Counter[str]]:
        prediction = predictor(picture(*size))
        with Written() as frame:
            for name in names:
                getattr(prediction, name)
        return frame.bytes / pixels, frame.operations

    # Five logits, the best of them, where each other wins (1 byte), and the label.
    images, operations = written('label')
    assert images < 7.5
    assert operations['upsample_bilinear2d'] == 1
    images, operations = written('label', 'confidence', 'depth', 'uncertainty')
    assert images < 12
    assert operations['upsample_bilinear2d'] == 3
    assert operations['_to_copy'] <= 2
    again, _ = written('label', 'label')
    assert again < 7.5


def test_unknown_devices_precisions_and_backends_are_refused(tmp_path: Path) -> None:
    model_of(CONFIG).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="unknown backend 'tpu'; choose auto, torch, compile"):
        UnifiedPredictor.from_pretrained(tmp_path, backend='tpu')
    for device in ('gpu', 'meta', 'mps', 'cuda:99', ''):
        with pytest.raises(ValueError, match=r'choose auto.*cpu'):
            UnifiedPredictor.from_pretrained(tmp_path, device=device)
    with pytest.raises(ValueError, match="unknown precision 'int8'; choose auto, fp32"):
        UnifiedPredictor.from_pretrained(tmp_path, precision='int8')
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="'cuda' is not on this machine"):
            UnifiedPredictor.from_pretrained(tmp_path, device='cuda')


def test_it_loads_from_a_folder_and_warms_up(tmp_path: Path) -> None:
    model_of(CONFIG).save_pretrained(tmp_path)
    loaded = UnifiedPredictor.from_pretrained(str(tmp_path), device='cpu', backend='torch')
    assert loaded.config == CONFIG
    assert loaded.device == torch.device('cpu')
    assert loaded.precision == torch.float32
    loaded.warm_up(60, 80)
    image = picture(60, 80)
    np.testing.assert_array_equal(loaded(image).depth, predictor_of()(image).depth)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        UnifiedPredictor.from_pretrained(tmp_path / 'nowhere')


@pytest.mark.skipif(
    not (SHIPPED_WEIGHTS / 'model.safetensors').is_file(), reason='no weights are shipped yet'
)
def test_the_shipped_weights_load() -> None:
    predictor = UnifiedPredictor.from_pretrained(device='cpu')
    assert predictor.config.encoder == UnifiedConfig.rover().encoder
    assert (SHIPPED_WEIGHTS / 'model.safetensors').stat().st_size <= 16 * 2**20


@pytest.mark.parametrize(('height', 'width'), [(384, 512), (288, 512), (512, 384)])
def test_depth_is_right_whatever_the_images_shape(height: int, width: int) -> None:
    """The middle of a picture shows the same ground at the same distance, however it was cut."""
    predictor = UnifiedPredictor.from_pretrained(device='cpu', backend='torch')
    (frame,) = Moon(MoonConfig(seed=7, size=512)).frames(1)
    size = (height, width)
    depth = predictor(middle(frame.left, size), middle_camera(frame.camera, size)).depth
    truth = middle(frame.depth, size)
    near = (truth < 10) & np.isfinite(depth)
    assert near.mean() > 0.2
    assert np.median(depth[near] / truth[near]) == pytest.approx(1, abs=0.1)


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_package_opens_lazily() -> None:
    code = (
        'import sys, lunar_perception as lp; lp.PinholeCamera, lp.LUNAR_TERRAIN; '
        "assert 'torch' not in sys.modules; "
        'assert set(lp.__all__) <= set(dir(lp)); '
        'assert all(getattr(lp, name) is not None for name in lp.__all__); '
        "print(*sorted({'torch', 'transformers', 'rclpy', 'train'} & sys.modules.keys()))"
    )
    assert run_python(code) == 'torch'


def test_the_package_refuses_unknown_names() -> None:
    import lunar_perception

    with pytest.raises(AttributeError, match='NoSuchThing'):
        lunar_perception.NoSuchThing  # noqa: B018
