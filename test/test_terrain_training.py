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

"""Training the terrain network: figures, batches, loss, runs, the study and its tables."""

from dataclasses import replace
import json
from pathlib import Path
from zipfile import ZipFile

import cv2
from lunar_perception.classification import ClassificationScore
from lunar_perception.data.hirise import Crop, read_crops, read_image
from lunar_perception.inference.terrain import SHIPPED_WEIGHTS, TerrainPredictor
from lunar_perception.models import TerrainModel
from lunar_perception.models.terrain import TerrainOutput
from lunar_perception.taxonomy import HIRISE_LANDMARKS
import numpy as np
import pytest
from safetensors.torch import load_file
import torch
from torch import nn
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_jaccard_index
from train.__main__ import main
from train.config import load_config, OptimizerConfig
from train.generated_crops import generate_crop, GeneratedBatches
from train.terrain import adjust_logits, make_network, split, terrain_loss, train_terrain
from train.terrain_batches import augment_crop, CropBatches, CropImages, draw_probability, mix
from train.terrain_config import CropAugmentConfig, CropDataConfig, TerrainTrainConfig
from train.terrain_cost import cost
from train.terrain_study import run_study, spread
from train.terrain_tables import paper_average, tables

torch.set_num_threads(1)  # tiny tensors: threads would only wait for one another

CONFIGS = Path(__file__).resolve().parents[1] / 'train' / 'configs'
NOTHING = CropAugmentConfig(
    rotation_deg=0, flip=0, smallest_crop=1, stretch=0, crop_border=0, brightness=0, contrast=0,
    gamma=0, blur=0, noise=0,
)  # fmt: skip
"""An augmentation that only resizes."""

RUN = TerrainTrainConfig(
    backbone='resnet10t',
    head_channels=8,
    size=32,
    steps=4,
    evaluate_every=2,
    device='cpu',
    data=CropDataConfig(cache_size=32, batch_size=4, folds=3),
    optimizer=OptimizerConfig(learning_rate=1e-3),
)


@pytest.fixture(scope='module')
def crops_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 60 crops of six sources in v3's layout: bright craters, dark others, two spiders."""
    folder = tmp_path_factory.mktemp('v3')
    (folder / 'map-proj-v3').mkdir()
    rng, lines = np.random.default_rng(0), []
    for k in range(60):
        label = 7 if k in (3, 10) else k % 2
        image = rng.integers(0, 60, (40, 40)) + (180 if label == 1 else 20)
        name = f'ESP_{k % 6:06d}_2100_RED-{k:04d}.jpg'
        cv2.imwrite(str(folder / 'map-proj-v3' / name), image.astype(np.uint8))
        lines.append(f'{name} {label}\n')
    (folder / 'labels-map-proj-v3.txt').write_text(''.join(lines))
    rows = [f'{i},{name}\n' for i, name in enumerate(HIRISE_LANDMARKS.names)]
    (folder / 'landmarks_map-proj-v3_classmap.csv').write_text(''.join(rows))
    return folder


# Figures


def test_figures_of_a_case_worked_by_hand() -> None:
    score = ClassificationScore()
    score.update(np.array([0, 0, 0, 1, 1, 7]), np.array([0, 0, 1, 1, 1, 0]))
    found = score.to_dict()
    assert found['accuracy'] == pytest.approx(4 / 6)
    assert found['classes']['other'] == pytest.approx(
        {'precision': 2 / 3, 'recall': 2 / 3, 'f1': 2 / 3, 'iou': 1 / 2, 'support': 3}
    )
    assert found['classes']['spider']['f1'] == 0
    assert found['classes']['dark dune']['f1'] is None
    assert found['macro']['f1'] == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    assert found['weighted']['iou'] == pytest.approx((3 * 1 / 2 + 2 * 2 / 3) / 6)
    with pytest.raises(ValueError, match='predicted id 8'):
        score.update(np.array([0]), np.array([8]))
    with pytest.raises(ValueError, match='no image'):
        ClassificationScore().to_dict()


def test_figures_agree_with_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 8, (2, 500))
    score = ClassificationScore()
    score.update(truth[:200], predicted[:200])
    score.update(truth[200:], predicted[200:])
    found = score.to_dict()
    pair = torch.from_numpy(predicted), torch.from_numpy(truth)
    for kind in ('macro', 'weighted'):
        f1 = multiclass_f1_score(*pair, num_classes=8, average=kind)
        iou = multiclass_jaccard_index(*pair, num_classes=8, average=kind)
        assert found[kind]['f1'] == pytest.approx(f1.item(), abs=1e-6)
        assert found[kind]['iou'] == pytest.approx(iou.item(), abs=1e-6)


def test_the_papers_averages_follow_from_its_table_1_by_the_named_definitions() -> None:
    macro, weighted = paper_average('macro'), paper_average('weighted')
    assert macro['f1'] == pytest.approx(87.5, abs=0.05)
    assert macro['iou'] == pytest.approx(78.3, abs=0.05)
    assert weighted['f1'] == pytest.approx(92.5, abs=0.05)
    assert weighted['iou'] == pytest.approx(86.2, abs=0.05)


def test_spread_of_one_value_is_nothing() -> None:
    assert spread([0.5])['sd'] == 0
    assert spread([0.0, 2.0]) == {'mean': 1.0, 'sd': pytest.approx(2**0.5), 'values': [0.0, 2.0]}


# Batches


def some_images(labels: list[int], sources: list[str]) -> CropImages:
    image = np.zeros((len(labels), 16, 16, 1), np.uint8)
    image += np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    crops = [
        Crop(Path(f'{k}.jpg'), label, source, f'{k}')
        for k, (label, source) in enumerate(zip(labels, sources, strict=True))
    ]
    return CropImages(image, image, np.array(labels), crops)


def test_balanced_drawing_makes_classes_and_sources_equally_likely() -> None:
    images = some_images([0, 0, 0, 0, 0, 1, 1], ['a', 'a', 'a', 'b', 'b', 'a', 'c'])
    everything = np.arange(7)
    plain = draw_probability(images, everything, 0.0, 0.0)
    np.testing.assert_allclose(plain, np.full(7, 1 / 7))
    classes = draw_probability(images, everything, 1.0, 0.0)
    assert classes[:5].sum() == pytest.approx(0.5)
    both = draw_probability(images, everything, 1.0, 1.0)
    assert both[:3].sum() == pytest.approx(both[3:5].sum()) == pytest.approx(0.25)
    half = draw_probability(images, everything, 0.5, 0.0)
    assert half[:5].sum() / half[5:].sum() == pytest.approx((5 / 2) ** 0.5)


def test_a_batch_is_a_function_of_seed_and_step_and_only_of_its_crops() -> None:
    images = some_images([0, 1] * 10, ['a'] * 20)

    def batches(seed: int) -> CropBatches:
        return CropBatches(
            images, np.arange(5), classes=8, size=16, batch_size=6,
            augmentation=CropAugmentConfig(mixup=0.4, cutmix=0.3), balance=1.0,
            source_balance=0.5, seed=seed,
        )  # fmt: skip

    first, again, other = batches(0)[3], batches(0)[3], batches(1)[3]
    torch.testing.assert_close(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert first.images.shape == (6, 3, 16, 16) and first.images.dtype == torch.float32
    torch.testing.assert_close(first.target.sum(1), torch.ones(6))
    assert set(first.names) <= {f'{k}.jpg' for k in range(5)}


def test_no_augmentation_leaves_a_crop_as_it_is() -> None:
    rng = np.random.default_rng(0)
    crop = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
    np.testing.assert_allclose(augment_crop(crop, 24, NOTHING, rng), crop / 255, atol=1e-6)


def test_a_half_turn_turns_the_crop() -> None:
    crop = np.zeros((24, 24, 1), np.uint8)
    crop[2:6, 3:9] = 255

    class HalfTurn:
        """A generator whose only draw besides 0 is the angle."""

        def uniform(self, low: float, high: float, size: int | None = None) -> object:
            if size:
                return np.zeros(size)
            return high if (low, high) == (-180, 180) else (low + high) / 2

        def random(self) -> float:
            return 1.0

    turned = augment_crop(crop, 24, replace(NOTHING, rotation_deg=180), HalfTurn())
    np.testing.assert_allclose(turned, crop[::-1, ::-1] / 255, atol=0.02)


def test_cutmix_shares_the_label_as_it_shares_the_area() -> None:
    x = np.zeros((2, 32, 32, 1), np.float32)
    x[1] = 1
    target = np.eye(2, dtype=np.float32)
    for seed in range(20):
        mixed, shared = mix(x, target, CropAugmentConfig(cutmix=1), np.random.default_rng(seed))
        np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), shared[:, 1], atol=1e-6)


def test_generated_crops_repeat_and_no_two_are_alike() -> None:
    for label in range(8):
        one, same, other = (
            generate_crop(label, 48, np.random.default_rng(seed)) for seed in (label, label, 99)
        )
        np.testing.assert_array_equal(one, same)
        assert one.shape == (48, 48, 1) and one.dtype == np.uint8
        assert (one != other).mean() > 0.5 and one.std() > 1
    batches = GeneratedBatches(size=48, batch_size=4, augmentation=NOTHING, seed=0)
    torch.testing.assert_close(batches[2].images, batches[2].images)


# Loss


def test_pixel_labels_train_it_too_and_unlabelled_pixels_say_nothing() -> None:
    pixels = torch.zeros(1, 3, 4, 4, requires_grad=True)
    output = TerrainOutput(pixels.mean(dim=(2, 3)), pixels)
    label = torch.full((1, 4, 4), 255)
    label[0, 1, 2] = 2
    terrain_loss(output, label).backward()
    assert pixels.grad is not None
    touched = pixels.grad.abs().sum(dim=1)[0] > 0
    assert touched.nonzero().tolist() == [[1, 2]]
    assert pixels.grad[0, 2, 1, 2] < 0


def test_image_labels_as_ids_and_as_probabilities_are_one_loss() -> None:
    logits = torch.randn(3, 8)
    output = TerrainOutput(logits, logits[:, :, None, None])
    ids = torch.tensor([1, 0, 7])
    torch.testing.assert_close(
        terrain_loss(output, ids, 0.1), terrain_loss(output, torch.eye(8)[ids], 0.1)
    )


# Networks


@pytest.mark.parametrize('network', ['unet', 'deeplabv3plus'])
def test_baselines_pool_their_pixel_logits_too(network: str) -> None:
    model = make_network(replace(RUN, network=network, backbone='tu-resnet10t', size=64)).train()
    output = model(torch.randn(2, 3, 64, 64))
    assert output.pixel_logits.shape == (2, 8, 64, 64)
    torch.testing.assert_close(output.class_logits, output.pixel_logits.mean(dim=(2, 3)))
    terrain_loss(output, torch.tensor([1, 2])).backward()


def test_imagenet_weights_are_not_fetched_unasked() -> None:
    with pytest.raises(ValueError, match='download'):
        make_network(replace(RUN, imagenet=True))


def test_cost_counts_two_operations_a_multiply_accumulate() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False))
    found = cost(model, 10, runs=1)
    assert found['parameters'] == 3 * 4 * 9
    assert found['gmac'] == pytest.approx(3 * 4 * 9 * 100 / 1e9)
    assert found['gflop'] == pytest.approx(2 * found['gmac'])


@pytest.mark.parametrize('network', ['attention', 'unet', 'deeplabv3plus'])
def test_logits_are_adjusted_by_the_shares_of_the_classes(network: str) -> None:
    backbone = 'resnet10t' if network == 'attention' else 'tu-resnet10t'
    model = make_network(replace(RUN, network=network, backbone=backbone, size=64)).eval()
    images, count = torch.randn(1, 3, 64, 64), np.array([8, 4, 2, 2, 0, 0, 0, 0])
    with torch.no_grad():
        before = model(images)
        adjust_logits(model, count, 0.5)
        after = model(images)
    share = np.maximum(count, 1) / 20
    expected = torch.from_numpy(0.5 * np.log(share)).float()
    torch.testing.assert_close((after.class_logits - before.class_logits)[0], expected)
    torch.testing.assert_close((after.pixel_logits - before.pixel_logits)[0, :, 9, 7], expected)


# Runs


def test_a_run_resumed_after_its_checkpoint_ends_with_the_same_weights(
    crops_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant = replace(RUN, optimizer=replace(RUN.optimizer, cosine=False))
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    metrics = train_terrain(constant, crops_folder, whole)

    def out_of_power(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('train.terrain.fit_temperature', out_of_power)
        with pytest.raises(KeyboardInterrupt):
            train_terrain(replace(constant, steps=2), crops_folder, broken)
    assert not (broken / 'weights').exists()
    assert train_terrain(constant, crops_folder, broken, resume=True) == metrics
    one, other = (load_file(run / 'weights' / 'model.safetensors') for run in (whole, broken))
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=0, atol=0)


def test_a_run_leaves_a_calibrated_network_and_its_figures(
    crops_folder: Path, tmp_path: Path
) -> None:
    config = replace(
        RUN,
        input_size=40,
        steps=40,
        evaluate_every=40,
        augment=NOTHING,
        optimizer=replace(RUN.optimizer, learning_rate=3e-3),
    )
    metrics = train_terrain(config, crops_folder, tmp_path)
    assert metrics['accuracy'] > 0.85  # bright and dark are told apart
    assert metrics['held_out']['split'] == 'source'
    assert json.loads((tmp_path / 'metrics.json').read_text()) == metrics
    assert (tmp_path / 'curves.png').is_file()
    rows = json.loads((tmp_path / 'predictions.json').read_text())
    right = [np.argmax(row['probability']) == row['truth'] for row in rows]
    assert np.mean(right) == pytest.approx(metrics['accuracy'])
    model = TerrainModel.from_pretrained(tmp_path / 'weights')
    assert model.config.input_size == 40
    assert model.config.temperature == metrics['temperature'] != 1
    with pytest.raises(FileExistsError, match='--resume'):
        train_terrain(config, crops_folder, tmp_path)

    onwards = make_network(replace(RUN, initial=str(tmp_path / 'weights')))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(onwards.state_dict()[name], tensor)


def test_the_study_trains_what_is_missing_and_tells_it_in_tables(
    crops_folder: Path, tmp_path: Path
) -> None:
    names = ('baseline', 'full')
    study = run_study(RUN, crops_folder, tmp_path, seeds=2, names=names)
    assert set(study['rows']) == set(names)
    assert len(study['rows']['full']['accuracy']['values']) == 2
    assert set(study['attention']) == {'trained', 'identity', 'mean'}
    trained = study['attention']['trained']['values']
    assert trained == pytest.approx(study['rows']['full']['macro_f1']['values'], abs=0.02)
    assert (tmp_path / 'confusion.png').stat().st_size > 1000
    assert (tmp_path / 'full-0' / 'failures.png').stat().st_size > 1000
    before = (tmp_path / 'full-1' / 'metrics.json').stat().st_mtime_ns
    again = run_study(RUN, crops_folder, tmp_path, seeds=2, names=names)
    assert again == study
    assert (tmp_path / 'full-1' / 'metrics.json').stat().st_mtime_ns == before
    text = tables(study)
    for words in ('| bright dune', '99.06', '| full', '88.48', 'macro F1 87.5', 'identity'):
        assert words in text
    with pytest.raises(ValueError, match="unknown row 'half'"):
        run_study(RUN, crops_folder, tmp_path, seeds=1, names=('half',))


def test_splits_are_by_source_unless_asked_otherwise(crops_folder: Path) -> None:
    crops = read_crops(crops_folder)
    train, test = split(crops, RUN.data)
    assert not {crops[i].source for i in train} & {crops[i].source for i in test}
    with pytest.warns(UserWarning, match='leaks'):
        split(crops, replace(RUN.data, split='random'))
    train, test = split(crops, replace(RUN.data, split='all'))
    assert len(train) == len(test) == 60
    with pytest.raises(ValueError, match='no official split'):
        split(crops, replace(RUN.data, split='official'))


# What ships

SUBSET = Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'hirise-map-proj-v3-subset.zip'


def test_the_shipped_checkpoint_is_small_and_whole() -> None:
    assert {path.name for path in SHIPPED_WEIGHTS.iterdir()} == {
        'README.md',
        'config.json',
        'model.safetensors',
    }
    assert (SHIPPED_WEIGHTS / 'model.safetensors').stat().st_size <= 16 * 2**20
    config = TerrainModel.from_pretrained(SHIPPED_WEIGHTS).config
    assert config.class_names == HIRISE_LANDMARKS.names
    assert config.channel_attention and config.spatial_attention and config.segmentation_head


@pytest.mark.skipif(not SUBSET.exists(), reason='needs the HiRISE subset beside the checkout')
def test_the_shipped_weights_name_real_crops(tmp_path: Path) -> None:
    with ZipFile(SUBSET) as archive:
        archive.extractall(tmp_path)
    crops = read_crops(tmp_path)[::15]
    predictor = TerrainPredictor.from_pretrained(device='cpu')
    named = [predictor(read_image(crop.path)).class_id for crop in crops]
    # They were trained on these: this says that images reach the network as in training.
    assert np.mean(np.array(named) == [crop.label for crop in crops]) > 0.7


# The command


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('terrain*.yaml')), ids=lambda p: p.stem)
def test_configurations_load(path: Path) -> None:
    assert load_config(TerrainTrainConfig, path).optimizer.learning_rate > 0


def test_the_command_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(*arguments: str) -> str:
        monkeypatch.setattr('sys.argv', ['train', 'terrain', *arguments])
        assert main() == 1
        return capsys.readouterr().err.splitlines()[-1]

    assert '--data is missing' in run()
    assert '--output is missing' in run('--data', str(tmp_path))
    assert 'is no data set' in run('--data', str(tmp_path), '--output', str(tmp_path / 'run'))
    (tmp_path / 'bad.yaml').write_text('steps: 3\nbackbonne: resnet18\n')
    assert "did you mean 'backbone'" in run('--config', str(tmp_path / 'bad.yaml'))
