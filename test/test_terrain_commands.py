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

"""`classify` and `explain`: the table, the overlays, the figures, and bad input."""

import csv
from importlib.util import find_spec
import json
from pathlib import Path

import cv2
from lunar_perception.cli import main
from lunar_perception.inference.backends.onnx_runtime import import_onnxruntime
from lunar_perception.inference.terrain import TerrainPredictor
from lunar_perception.taxonomy import HIRISE_LANDMARKS
from lunar_perception.visualize import overlay_evidence
import numpy as np
import pytest
from tiny_terrain import save_tiny_terrain, SIZE

SHARED = Path(__file__).resolve().parents[2] / 'shared' / 'data'


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_terrain(tmp_path_factory.mktemp('model'))


@pytest.fixture
def picture() -> np.ndarray:
    """Return a BGR image (40, 50, 3) uint8 of smooth blobs."""
    noise = np.random.default_rng(3).uniform(0, 255, (5, 6, 3))
    return cv2.resize(noise, (50, 40), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def classify(source: Path, output: Path, model: Path) -> int:
    return main(['classify', str(source), '--output', str(output), '--model', str(model)])


def explain(source: Path, output: Path, model: Path) -> int:
    return main(['explain', str(source), '--output', str(output), '--model', str(model)])


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    with table.open(newline='') as file:
        return {row['filename']: row for row in csv.DictReader(file)}


def test_classify_writes_a_row_for_each_image(
    tmp_path: Path, model: Path, picture: np.ndarray
) -> None:
    folder = tmp_path / 'in'
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f'crop,{number}.png'), np.roll(picture, 10 * number))
    (folder / 'labels.txt').write_text('not an image')
    table = tmp_path / 'new' / 'out.csv'
    assert classify(folder, table, model) == 0
    header = table.read_text().splitlines()[0]
    assert header == 'filename,class,probability,' + ','.join(HIRISE_LANDMARKS.names)
    rows = rows_of(table)
    assert list(rows) == ['crop,0.png', 'crop,1.png', 'crop,2.png']
    predictor = TerrainPredictor.from_pretrained(model)
    for name, row in rows.items():
        image = cv2.cvtColor(cv2.imread(str(folder / name)), cv2.COLOR_BGR2RGB)
        expected = predictor(image)
        assert row['class'] == expected.class_name
        assert float(row['probability']) == pytest.approx(expected.probability, abs=1e-5)
        found = [float(row[name]) for name in HIRISE_LANDMARKS.names]
        assert found == pytest.approx(expected.probabilities.tolist(), abs=1e-5)
        assert max(found) == float(row['probability'])


def test_grey_rgba_16_bit_and_one_pixel_images_are_taken_for_what_they_show(
    tmp_path: Path, model: Path, picture: np.ndarray
) -> None:
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    images = {
        'color': picture,
        'color16': picture.astype(np.uint16) * 257,
        'rgba': np.dstack([picture, 255 - grey]),
        'grey': grey,
        'grey16': grey.astype(np.uint16) * 257,
        'grey_as_color': np.dstack([grey] * 3),
        'pixel': grey[:1, :1],
        'pixel_as_image': np.full((9, 9), grey[0, 0]),
    }
    folder = tmp_path / 'in'
    folder.mkdir()
    for name, image in images.items():
        cv2.imwrite(str(folder / f'{name}.png'), image)
    assert classify(folder, tmp_path / 'out.csv', model) == 0
    rows = {name: list(row.values())[1:] for name, row in rows_of(tmp_path / 'out.csv').items()}
    for name, like in (
        ('color16', 'color'),
        ('rgba', 'color'),
        ('grey16', 'grey'),
        ('grey_as_color', 'grey'),
        ('pixel', 'pixel_as_image'),
    ):
        assert rows[f'{name}.png'] == rows[f'{like}.png']
    assert rows['grey.png'] != rows['color.png']
    for name in ('rgba', 'grey16', 'pixel'):
        assert explain(folder / f'{name}.png', tmp_path / 'out', model) == 0
        overlay = cv2.imread(str(tmp_path / 'out' / f'{name}_gradcam.png'), cv2.IMREAD_UNCHANGED)
        assert overlay.shape == (*images[name].shape[:2], 3)


def test_explain_writes_two_overlays_and_their_figures(
    tmp_path: Path, model: Path, picture: np.ndarray
) -> None:
    image = tmp_path / 'crop.png'
    cv2.imwrite(str(image), picture)
    output = tmp_path / 'out'
    assert explain(image, output, model) == 0
    names = {path.name for path in output.iterdir()}
    assert names == {
        'crop_gradcam.png', 'crop_integrated_gradients.png', 'crop_explanation.json'
    }  # fmt: skip
    for name in ('gradcam', 'integrated_gradients'):
        overlay = cv2.imread(str(output / f'crop_{name}.png'), cv2.IMREAD_UNCHANGED)
        assert overlay.shape == picture.shape
    figures = json.loads((output / 'crop_explanation.json').read_text())
    prediction = TerrainPredictor.from_pretrained(model)(picture[..., ::-1])
    assert figures['image'] == 'crop.png'
    assert figures['class'] == prediction.class_name
    assert figures['class_id'] == prediction.class_id
    assert figures['probability'] == pytest.approx(prediction.probability, abs=1e-5)
    assert list(figures['probabilities']) == list(HIRISE_LANDMARKS.names)
    gradients = figures['integrated_gradients']
    error = abs(gradients['sum'] - gradients['difference'])
    assert gradients['completeness_error'] == pytest.approx(error, abs=1e-6)
    tolerance = max(0.01 * abs(gradients['difference']), 1e-3)
    assert gradients['tolerance'] == pytest.approx(tolerance)
    assert gradients['complete'] is (error <= tolerance)
    for scale in ('pixels', 'cells'):
        assert set(figures['consistency'][scale]) == {'overlap', 'shared', 'rank_correlation'}


def test_classify_names_what_it_can_not_read_and_does_the_rest(
    tmp_path: Path, model: Path, picture: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'in'
    folder.mkdir()
    cv2.imwrite(str(folder / 'a.png'), picture)
    cv2.imwrite(str(folder / 'a.jpg'), picture)  # the same stem is no matter in a table
    (folder / 'empty.jpg').touch()
    cv2.imwrite(str(folder / 'float.tif'), picture.astype(np.float32))
    assert classify(folder, tmp_path / 'out.csv', model) == 1
    errors = capfd.readouterr().err.splitlines()
    ours = [line for line in errors if line.startswith('lunar-perception classify: ')]
    for says, line in zip(('empty.jpg', 'float.tif', '2 of 4'), ours, strict=True):
        assert says in line
    assert set(rows_of(tmp_path / 'out.csv')) == {'a.jpg', 'a.png'}


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['classify', 'none.png', '--output', 'x.csv'], 'none.png does not exist'),
        (['classify', 'empty', '--output', 'x.csv'], 'has no images'),
        (['classify', 'text.png', '--output', 'x.csv'], 'text.png can not be read as an image'),
        (['classify', 'a.png', '--output', 'empty'], 'is a folder; name a file'),
        (['classify', 'a.png', '--output', 'x.csv', '--model', 'none'], 'none'),
        (['explain', 'none.png', '--output', 'out'], 'none.png does not exist'),
        (['explain', 'empty', '--output', 'out'], 'is a folder; name an image'),
        (['explain', 'text.png', '--output', 'out'], 'text.png can not be read as an image'),
    ],
)
def test_bad_calls_are_refused_in_one_line(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    model: Path,
    picture: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('empty').mkdir()
    Path('text.png').write_text('text')
    cv2.imwrite('a.png', picture)
    given = [] if '--model' in arguments else ['--model', str(model)]
    assert main([*arguments, *given]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and says in lines[0]
    assert not Path('x.csv').exists() and not Path('out').exists()


def test_overlays_show_where_evidence_is() -> None:
    image = np.full((4, 6, 3), 100, np.uint8)
    heat = np.zeros((4, 6), np.float32)
    np.testing.assert_array_equal(overlay_evidence(image, heat), image)
    heat[1, 2], heat[1, 3] = 1.0, 0.5
    overlay = overlay_evidence(image, heat)
    assert overlay.dtype == np.uint8
    changed = (overlay != image).any(axis=2)
    assert changed[1, 2] and changed[1, 3] and changed.sum() == 2
    far = np.abs(overlay.astype(int) - 100).sum(axis=2)
    assert far[1, 2] > far[1, 3]
    np.testing.assert_array_equal(overlay_evidence(image, 1000 * heat), overlay)
    with pytest.raises(ValueError, match='does not fit'):
        overlay_evidence(image, heat.T)


def test_classify_real_crops(tmp_path: Path, model: Path) -> None:
    archive = SHARED / 'hirise-map-proj-v3-subset.zip'
    if not archive.is_file():
        pytest.skip('shared/data/hirise-map-proj-v3-subset.zip is not here')
    from zipfile import ZipFile

    folder = tmp_path / 'crops'
    folder.mkdir()
    with ZipFile(archive) as crops:
        names = [name for name in crops.namelist() if name.endswith('.jpg')][:5]
        for name in names:
            (folder / Path(name).name).write_bytes(crops.read(name))
    assert classify(folder, tmp_path / 'out.csv', model) == 0
    assert len(rows_of(tmp_path / 'out.csv')) == 5


def test_export_takes_the_terrain_network_too(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compare with torch where ONNX Runtime is installed."""
    file = tmp_path / 'terrain.onnx'
    arguments = ['export', '--format', 'onnx', '--output', str(file), '--model', str(model)]
    assert main(arguments) == 0
    assert 'to class_logits, pixel_logits' in capsys.readouterr().out
    assert file.stat().st_size > 0
    if find_spec('onnxruntime') is None:
        pytest.skip('needs ONNX Runtime')
    onnxruntime = import_onnxruntime()  # imported otherwise, it would report to its maker
    predictor = TerrainPredictor.from_pretrained(model, device='cpu')
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    found = onnxruntime.InferenceSession(file).run(None, {'pixels': image[None]})
    expected = predictor.model(predictor.network_input(image))
    for array, tensor in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-3, atol=1e-4)
