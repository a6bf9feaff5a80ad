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

"""From an image to a class, its probability and a label for every pixel."""

from pathlib import Path
import subprocess
import sys

import lunar_perception
from lunar_perception.inference.explain import grad_cam
from lunar_perception.inference.terrain import SHIPPED_WEIGHTS, taxonomy_of, TerrainPredictor
from lunar_perception.models import TerrainModel
from lunar_perception.taxonomy import HIRISE_LANDMARKS
import numpy as np
import pytest
from tiny_terrain import save_tiny_terrain, SIZE
import torch
from torch.nn import functional as F


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_terrain(tmp_path_factory.mktemp('terrain'), temperature=1.7)


@pytest.fixture(scope='module')
def predictor(folder: Path) -> TerrainPredictor:
    return TerrainPredictor.from_pretrained(folder, device='cpu', backend='torch')


def crop(height: int = SIZE, width: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_it_says_what_the_network_says(predictor: TerrainPredictor, folder: Path) -> None:
    """Compare with the network itself, at its own size, where nothing is resized."""
    image = crop()
    model = TerrainModel.from_pretrained(folder)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    inputs = torch.from_numpy((image / 255 - mean) / std).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        output = model(inputs)
    prediction = predictor(image)
    expected = (output.class_logits[0] / 1.7).softmax(dim=0).numpy()
    np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-5)
    assert prediction.probabilities.dtype == np.float32
    assert prediction.class_id == expected.argmax()
    assert prediction.class_name == HIRISE_LANDMARKS.names[prediction.class_id]
    assert prediction.probability == pytest.approx(expected.max(), abs=1e-5)
    pixels = (output.pixel_logits[0] / 1.7).softmax(dim=0)
    np.testing.assert_allclose(prediction.confidence, pixels.amax(dim=0), atol=1e-5)
    differs = prediction.label != pixels.argmax(dim=0).numpy()
    assert differs.mean() < 1e-3  # where two are as likely
    assert prediction.label.dtype == np.uint8 and prediction.confidence.dtype == np.float32
    assert len(np.unique(prediction.label)) > 1


def test_a_fast_backend_says_the_same_and_explanations_start_from_it(
    predictor: TerrainPredictor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('onnxruntime', reason='needs ONNX Runtime')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    fast = TerrainPredictor.from_pretrained(folder, device='cpu', backend='onnxruntime')
    assert (predictor.backend, fast.backend) == ('torch', 'onnxruntime')
    slow_says, fast_says = predictor(crop(90, 70)), fast(crop(90, 70))
    assert 'features differs by' in fast._runner.agreement
    np.testing.assert_allclose(fast_says.probabilities, slow_says.probabilities, atol=1e-4)
    assert (fast_says.label == slow_says.label).mean() > 0.999
    slow_maps, fast_maps = (
        torch.stack(
            [
                torch.as_tensor(grad_cam(predictor.model, said.features, (SIZE, SIZE), i))
                for i in range(8)
            ]
        )
        for said in (slow_says, fast_says)
    )
    assert slow_maps.max() > 0
    np.testing.assert_allclose(fast_maps, slow_maps, atol=1e-3 * float(slow_maps.max()))


@pytest.mark.parametrize('shape', [(227, 227), (40, 90), (1, 1), (1, 300)])
def test_answers_have_the_images_size(predictor: TerrainPredictor, shape: tuple[int, int]) -> None:
    prediction = predictor(crop(*shape))
    assert prediction.label.shape == prediction.confidence.shape == shape
    assert prediction.label.max() < 8
    assert prediction.confidence.min() >= 1 / 8 - 1e-6
    assert prediction.confidence.max() <= 1 + 1e-6
    assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_larger_images_are_averaged_down(predictor: TerrainPredictor) -> None:
    small = crop()
    large = np.repeat(np.repeat(small, 3, axis=0), 3, axis=1)
    np.testing.assert_allclose(
        predictor(large).probabilities, predictor(small).probabilities, atol=1e-6
    )
    view = np.asfortranarray(small)[:, ::-1][:, ::-1]  # neither contiguous nor owned
    view.setflags(write=False)
    np.testing.assert_array_equal(predictor(view).label, predictor(small).label)


@pytest.mark.parametrize(
    ('image', 'says'),
    [
        ('crop.png', 'is a str'),
        (np.zeros((4, 4), np.uint8), 'must be (H, W, 3)'),
        (np.zeros((0, 4, 3), np.uint8), 'not empty'),
        (np.zeros((4, 4, 3), np.float32), 'must be uint8'),
    ],
)
def test_other_inputs_are_refused(predictor: TerrainPredictor, image: object, says: str) -> None:
    with pytest.raises(ValueError) as refusal:
        predictor(image)  # type: ignore[arg-type]
    assert says in str(refusal.value)


def test_lower_precision_says_nearly_the_same(folder: Path, predictor: TerrainPredictor) -> None:
    coarse = TerrainPredictor.from_pretrained(folder, device='cpu', precision='bf16')
    assert coarse.precision == torch.bfloat16
    image = crop(seed=3)
    found = coarse(image)
    assert found.probabilities.dtype == np.float32
    np.testing.assert_allclose(found.probabilities, predictor(image).probabilities, atol=0.1)


def test_checkpoints_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match='there is no folder'):
        TerrainPredictor.from_pretrained(tmp_path / 'none')
    with pytest.raises(ValueError, match="unknown device 'abacus'"):
        TerrainPredictor.from_pretrained(tmp_path / 'none', device='abacus')
    if not (SHIPPED_WEIGHTS / 'model.safetensors').is_file():
        pytest.skip('no terrain weights ship yet')
    assert TerrainPredictor.from_pretrained().taxonomy == HIRISE_LANDMARKS


def test_other_classes_get_colours_of_their_own() -> None:
    taxonomy = taxonomy_of(('yardang', 'crater', 'polygon'))
    assert taxonomy.names == ('yardang', 'crater', 'polygon')
    assert taxonomy.colors[1] == HIRISE_LANDMARKS.colors[1]
    assert len(set(taxonomy.colors)) == 3
    assert taxonomy_of(HIRISE_LANDMARKS.names) is HIRISE_LANDMARKS


def test_a_prediction_leaves_the_network_as_it_was(predictor: TerrainPredictor) -> None:
    before = {name: value.clone() for name, value in predictor.model.state_dict().items()}
    predictor.warm_up(30, 50)
    for name, value in predictor.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(parameter.requires_grad for parameter in predictor.model.parameters())
    features = predictor(crop()).features
    assert F.relu(features).shape[0] == 1 and not features.is_inference()


def test_names_are_exported_lazily() -> None:
    assert lunar_perception.TerrainPredictor is TerrainPredictor
    program = 'import lunar_perception, sys; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', program]).returncode == 0
