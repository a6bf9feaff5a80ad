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

"""Training: data, augmentation, configuration, and a run that is killed and goes on."""

from dataclasses import asdict, replace
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from time import process_time

from lunar_perception.camera import PinholeCamera
from lunar_perception.data.lusnar_writer import LusnarSceneWriter
from lunar_perception.models import UnifiedConfig, UnifiedModel
from lunar_perception.models.encoders import SamEncoderConfig
from lunar_perception.taxonomy import LUNAR_TERRAIN, SKY, UNLABELLED
import numpy as np
import pytest
from safetensors.torch import load_file
import torch
from torch import nn
from train.__main__ import main
from train.augment import augment, AugmentConfig
from train.batches import TrainingBatches
from train.config import DataConfig, load_config, LossConfig, OptimizerConfig, TrainConfig
from train.evaluation import fit_temperature
from train.frames import load_frames
from train.loop import fit, TrainingError
from train.optim import AveragedModel, learning_rate_scale, make_optimizer
from train.shipping import AverageCommand, ship_mean
from train.unified import train_unified
import yaml

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'train' / 'configs'
NOTHING = AugmentConfig(*[0.0] * 2, smallest_crop=1.0, whole=1.0, **dict.fromkeys(
    ['brightness', 'contrast', 'gamma', 'black_level', 'tint', 'shading', 'shadow',
     'low_resolution', 'blur', 'noise', 'hot_pixels', 'jpeg'], 0.0))  # fmt: skip
"""An augmentation that only resizes."""

TINY = UnifiedConfig(
    encoder=SamEncoderConfig(
        hidden_size=16, depth=4, heads=2, global_blocks=(1, 3), window_size=2, taps=(0, 1, 2, 3),
        image_size=64,
    ),
    decoder_channels=8,
    detail_channels=(8, 8, 8, 8),
    input_size=64,
)  # fmt: skip
RUN = TrainConfig(
    steps=8,
    evaluate_every=4,
    device='cpu',
    data=DataConfig(cache_size=64, batch_size=2, eval_frames=2, rare_sampling=1.0),
    loss=LossConfig(lovasz=1.0, class_balance=0.3, silog=1.0, gradient=0.5, laplace=0.2),
    optimizer=OptimizerConfig(warmup_steps=2, ema=0.9),
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def write_scenes(folder, scenes=3, frames=3, size=64):
    """Write flat scenes of sky, ground and one rock, each seen by another camera."""
    for number in range(1, scenes + 1):
        rng = np.random.default_rng(number)
        camera = PinholeCamera.from_fov_deg(size, size, 60 + 10 * number)
        with LusnarSceneWriter(folder / f'Moon_{number}', camera) as writer:
            for i in range(frames):
                label = np.zeros((size, size), np.uint8)
                label[: size // 3] = SKY
                row, column = rng.integers(size // 2, size - 12, 2)
                rock = slice(row, row + 10), slice(column, column + 10)
                label[rock] = LUNAR_TERRAIN.id_of('rock')
                depth = np.linspace(30, 2, size, dtype=np.float32)[:, None].repeat(size, 1)
                depth[label == SKY] = np.inf
                left = np.array([90, 60, 200, 120, 20], np.uint8)[label][..., None].repeat(3, -1)
                writer.write_frame(10**18 + i * 10**8, left=left, depth=depth, label=label)
    return folder


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp('data') / 'moon')


def weights_of(run):
    return {
        name: load_file(run / name)
        for name in ('last.safetensors', 'best.safetensors', 'weights/model.safetensors')
    }


def assert_same_weights(one, other):
    for name, tensors in weights_of(one).items():
        twin = weights_of(other)[name]
        assert tensors.keys() == twin.keys()
        assert all(torch.equal(tensors[key], twin[key]) for key in tensors), name


# Data


def test_cache_holds_what_the_scenes_hold(scenes):
    frames = load_frames(scenes, 64)
    assert len(frames) == 9
    assert frames.names[0] == f'Moon_1/{10**18}'
    assert frames.image.shape == (9, 64, 64, 3)
    assert np.isinf(frames.depth[0][frames.label[0] == SKY]).all()
    assert frames.depth[0][63, 0] == 2
    np.testing.assert_allclose(frames.share.sum(1), 1)
    # 70°, 80°, 90° of view.
    np.testing.assert_allclose(frames.focal[[0, 3, 6]], [0.71407, 0.59588, 0.5], rtol=1e-4)

    half = load_frames(scenes, 32)
    assert half.label.shape == (9, 32, 32)
    assert half.focal[0] == frames.focal[0]


def test_cache_follows_the_data(tmp_path):
    data = write_scenes(tmp_path / 'moon', scenes=2, frames=1)
    index = tmp_path / 'moon_cache_64' / 'index.json'
    load_frames(data, 64)
    first = index.stat().st_ino
    load_frames(data, 64)
    assert index.stat().st_ino == first
    write_scenes(data, scenes=2, frames=2)
    assert len(load_frames(data, 64)) == 4


def test_frames_are_split_by_scene(scenes):
    frames = load_frames(scenes, 64)
    train, test = frames.split(['Moon_2'])
    assert test.tolist() == [3, 4, 5]
    assert train.tolist() == [0, 1, 2, 6, 7, 8]
    assert frames.split(())[1].tolist() == [6, 7, 8]
    train, test = frames.split(['Moon_2'], ['Moon_3'])
    assert (train.tolist(), test.tolist()) == ([0, 1, 2], [3, 4, 5])
    with pytest.raises(ValueError, match='Moon_7 is not in the data'):
        frames.split([], ['Moon_7'])
    with pytest.raises(ValueError, match='Moon_9 is not in the data; it has Moon_1, Moon_2'):
        frames.split(['Moon_9'])
    with pytest.raises(ValueError, match='would be held out'):
        frames.split(['Moon_1', 'Moon_2', 'Moon_3'])


def test_batches_repeat_and_epochs_are_permutations(scenes):
    frames = load_frames(scenes, 64)

    def batches(**changes):
        settings = {
            'size': 32, 'batch_size': 2, 'canonical_focal': 0.5, 'seed': 3,
            'augmentation': AugmentConfig(), 'rare_sampling': 0.0, **changes,
        }  # fmt: skip
        return TrainingBatches(frames, np.arange(6), **settings)

    first, again = batches()[5], batches()[5]
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, batches(seed=4)[5].images)
    epoch = [batches().frame_index(place) for place in range(6, 12)]
    assert sorted(epoch) == list(range(6))
    # The focal length of frame 0 is 0.714: metres shrink to those of the canonical camera, 0.5.
    plain = batches(augmentation=NOTHING, size=64)
    place = next(k for k in range(6) if plain.frame_index(k) == 0)
    depth = plain[place // 2].depth[place % 2, 0]
    assert depth[63, 0].item() == pytest.approx(2 * 0.5 / 0.71407, rel=1e-3)


def test_frames_with_rare_classes_are_drawn_more_often(scenes):
    frames = replace(load_frames(scenes, 64), share=np.zeros((9, 5), np.float32))
    frames.share[7, LUNAR_TERRAIN.id_of('crater')] = 0.1
    batches = TrainingBatches(
        frames, np.arange(9), size=32, batch_size=1, canonical_focal=0.5,
        augmentation=NOTHING, rare_sampling=3.5, seed=0,
    )  # fmt: skip
    drawn = [batches.frame_index(place) for place in range(400)]
    assert drawn.count(7) / 400 == pytest.approx(0.5, abs=0.08)


# Augmentation


def test_augmentation_moves_image_label_and_depth_together():
    rows, columns = np.mgrid[:96, :96]
    image = np.stack([columns * 2, rows * 2, rows * 0], -1).astype(np.uint8)
    depth = (rows * 100 + columns).astype(np.float32)
    label = ((rows // 8 + columns // 8) % 5).astype(np.uint8)
    geometry = replace(NOTHING, flip=0.5, rotation_deg=10.0, smallest_crop=0.5, whole=0.5)
    seen = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, y, z, focal = augment(image, label, depth, 0.6, 64, geometry, rng)
        inside = np.isfinite(z)
        assert (y[~inside] == UNLABELLED).all()
        row, column = z[inside] // 100, z[inside] % 100
        assert np.abs(x[inside][:, 0] * 127.5 - column).max() < 1.6
        assert np.abs(x[inside][:, 1] * 127.5 - row).max() < 1.6
        assert (y[inside] == label[row.astype(int), column.astype(int)]).mean() > 0.99
        seen.add((x[32, 40, 0] > x[32, 24, 0], focal > 0.6))
    assert len(seen) == 4  # mirrored or not, cropped or not


def test_a_crop_is_a_longer_focal_length():
    """A board of known width at known depth must span focal · width / depth, whatever the crop."""
    image = np.zeros((200, 200, 3), np.uint8)
    image[:, 80:120] = 255  # 40 px of a 0.6 · 200 = 120 px focal length: a third of the depth
    label, depth = np.zeros((200, 200), np.uint8), np.full((200, 200), 3.0, np.float32)
    focals = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x, _, z, focal = augment(
            image, label, depth, 0.6, 100, replace(NOTHING, smallest_crop=0.5, whole=0.0), rng
        )
        width = x[50, :, 0].sum()
        assert z[50, 50] * width / (focal * 100) == pytest.approx(1, abs=0.02)
        focals.append(focal)
    assert min(focals) >= 0.6
    assert max(focals) > 0.9


def test_augmented_images_stay_in_range_and_labels_keep_their_values():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)
    label = rng.integers(0, 5, (80, 80)).astype(np.uint8)
    depth = rng.uniform(1, 50, (80, 80)).astype(np.float16)
    always = AugmentConfig(shading=1, shadow=1, low_resolution=1, blur=1, hot_pixels=1, jpeg=1)
    for seed in range(10):
        x, y, z, _ = augment(image, label, depth, 0.6, 64, always, np.random.default_rng(seed))
        assert x.dtype == z.dtype == np.float32
        assert x.min() >= 0
        assert x.max() <= 1
        assert set(np.unique(y)) <= {0, 1, 2, 3, 4, UNLABELLED}
        assert np.isnan(z).sum() == (y == UNLABELLED).sum()


# Configuration


@pytest.mark.parametrize('name', ['rover', 'base', 'paper'])
def test_shipped_configurations_load(name):
    config = load_config(TrainConfig, CONFIGS / f'{name}.yaml')
    assert config.model == name


def test_papers_recipe():
    config = load_config(TrainConfig, CONFIGS / 'paper.yaml')
    assert (config.epochs, config.data.batch_size) == (10, 4)
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay) == (
        'adam', 1e-4, 1e-5,
    )  # fmt: skip
    assert (config.loss.cross_entropy, config.loss.l1) == (1, 5)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('steps: 1\noptimizer: {learning_rat: 1}', "'optimizer.learning_rat'; did you mean"),
        ('steps: 1\noptimizer: {learning_rate: fast}', "learning_rate = 'fast' should be float"),
        ('steps: 1.5', 'steps = 1.5 should be int'),
        ('steps: 1\nminutes: 2', 'set one of epochs, steps, minutes'),
        ('steps: 1\ndata: 3', 'data. must be a mapping'),
        ('steps: 1\nmodel: rower', "model = 'rower' should be 'rover' or 'base' or 'paper'"),
        ('steps: [', 'not YAML'),
    ],
)
def test_bad_configuration_names_file_key_and_remedy(tmp_path, text, message):
    path = tmp_path / 'mine.yaml'
    path.write_text(text)
    with pytest.raises(ValueError, match=r'mine\.yaml') as error:
        load_config(TrainConfig, path)
    assert message in str(error.value)


def test_numbers_without_a_point_are_numbers(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text('steps: 1\noptimizer: {learning_rate: 1e-4}')
    assert load_config(TrainConfig, path).optimizer.learning_rate == 1e-4


def test_bad_input_on_the_command_line_is_one_line(tmp_path, monkeypatch, capsys):
    path = tmp_path / 'mine.yaml'
    path.write_text('steps: 1\n')
    (tmp_path / 'empty').mkdir()
    for data, message in (([], '--data is missing'), (['--data', tmp_path / 'empty'], 'empty')):
        arguments = ['unified', '--config', path, '--output', tmp_path / 'out', *data]
        monkeypatch.setattr(sys, 'argv', ['train', *map(str, arguments)])
        assert main() == 1
        line = capsys.readouterr().err
        assert message in line
        assert line.count('\n') == 1


# Optimiser


def test_layers_near_the_input_learn_slower():
    config = OptimizerConfig(learning_rate=1.0, layer_decay=0.5, weight_decay=0.1)
    model = UnifiedModel(TINY)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rate, decay = {}, {}
    for group in make_optimizer(model, config).param_groups:
        for parameter in group['params']:
            rate[names[id(parameter)]] = group['lr']
            decay[names[id(parameter)]] = group['weight_decay']
    assert len(rate) == len(names)
    assert rate['encoder.patch_embed.projection.weight'] == 0.5**5
    assert rate['encoder.blocks.0.mlp.lin1.weight'] == 0.5**4
    assert rate['encoder.blocks.3.mlp.lin1.weight'] == 0.5
    assert rate['segmentation_head.1.weight'] == 1
    assert decay['encoder.blocks.3.mlp.lin1.weight'] == 0.1
    assert decay['encoder.blocks.3.mlp.lin1.bias'] == decay['encoder.pos_embed'] == 0


def test_learning_rate_rises_then_falls():
    config = OptimizerConfig(warmup_steps=9)
    assert learning_rate_scale(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate_scale(config, 9, 0.0) == 1
    assert learning_rate_scale(config, 50, 0.5) == pytest.approx(0.5)
    assert learning_rate_scale(config, 100, 1.0) == 0
    assert learning_rate_scale(replace(config, cosine=False), 100, 1.0) == 1


def test_average_follows_the_weights():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    averaged = AveragedModel(model, 0.5)
    nn.init.ones_(model.weight)
    averaged.update(model, 0)  # eased in: decay 0.1
    assert averaged.model.weight.item() == pytest.approx(0.9)
    averaged.update(model, 10**6)
    assert averaged.model.weight.item() == pytest.approx(0.95)


def test_temperature_is_found():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20000, 5, generator=generator)
    label = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature(3 * logits, label) == pytest.approx(3, rel=0.05)


# Runs

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {test!r}]
import torch, train.loop
from test_training import RUN, TINY
from train.unified import train_unified
torch.set_num_threads(1)
schedule = train.loop.learning_rate_scale
def killing(config, step, progress):
    if step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return schedule(config, step, progress)
train.loop.learning_rate_scale = killing
train_unified(RUN, Path({data!r}), Path({output!r}), model_config=TINY)
"""


def test_killed_and_resumed_run_ends_with_the_same_weights(scenes, tmp_path):
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    metrics = train_unified(RUN, scenes, whole, model_config=TINY)
    script = KILLED.format(
        root=str(ROOT), test=str(ROOT / 'test'), data=str(scenes), output=str(killed)
    )
    process = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert not (killed / 'weights').exists()
    resumed = train_unified(RUN, scenes, killed, resume=True, model_config=TINY)
    assert resumed == metrics
    assert_same_weights(whole, killed)
    for run in (whole, killed):
        steps = [json.loads(line)['step'] for line in (run / 'log.jsonl').open()]
        assert steps == [4, 8]

    # What the run leaves behind.
    left = set(os.listdir(whole))
    assert {'config.json', 'metrics.json', 'curves.png', 'weights'} <= left
    assert json.loads((whole / 'config.json').read_text())['steps'] == 8
    assert json.loads((whole / 'metrics.json').read_text()) == metrics
    assert (whole / 'weights' / 'position_prior.png').is_file()
    model = UnifiedModel.from_pretrained(whole / 'weights')
    assert model.config.input_size == 64
    assert model.config.temperature != 1
    assert model.config.uncertainty_scale != 1
    with pytest.raises(FileExistsError, match='--resume'):
        train_unified(RUN, scenes, whole, model_config=TINY)


def test_a_run_learns_and_another_goes_on_from_its_weights(scenes, tmp_path):
    config = replace(
        RUN,
        steps=80,
        evaluate_every=80,
        augment=NOTHING,
        optimizer=replace(RUN.optimizer, learning_rate=1e-2),
    )
    metrics = train_unified(config, scenes, tmp_path / 'first', model_config=TINY)
    assert metrics['iou']['sky'] > 0.8
    assert metrics['iou']['regolith'] > 0.8
    assert metrics['delta1'] > 0.6
    further = replace(
        RUN,
        steps=1,
        initial=str(tmp_path / 'first' / 'weights'),
        optimizer=replace(RUN.optimizer, learning_rate=1e-9, ema=0.0),
    )
    again = train_unified(further, scenes, tmp_path / 'second', model_config=TINY)
    assert again['miou'] == pytest.approx(metrics['miou'], abs=0.05)


def test_the_mean_of_two_networks_ships(scenes, tmp_path):
    """The mean of a network and itself is itself; of two it lies between them, calibrated anew."""
    for name, seed in (('one', 1), ('two', 2)):
        train_unified(replace(RUN, seed=seed), scenes, tmp_path / name, model_config=TINY)
    config = tmp_path / 'run.yaml'
    config.write_text('model: rover\nsteps: 1\nsize: 64\ndata: {cache_size: 64, batch_size: 2}\n')
    one, two = (tmp_path / name / 'weights' for name in ('one', 'two'))

    def mean(checkpoints, shares=(), output=tmp_path / 'mean'):
        command = AverageCommand(
            checkpoints=checkpoints, shares=shares, config=config, data=scenes, output=output
        )
        return ship_mean(command), load_file(output / 'weights' / 'model.safetensors')

    first, second = (load_file(folder / 'model.safetensors') for folder in (one, two))
    _, same = mean((one, one), output=tmp_path / 'same')
    assert all(torch.equal(same[name], first[name]) for name in first)
    metrics, between = mean((one, two), (0.25, 0.75))
    name = 'segmentation_head.1.weight'
    by_hand = 0.25 * first[name].float() + 0.75 * second[name].float()
    assert not torch.allclose(first[name], second[name], atol=1e-3)
    torch.testing.assert_close(between[name].float(), by_hand, atol=1e-3, rtol=1e-3)
    assert metrics == json.loads((tmp_path / 'mean' / 'metrics.json').read_text())
    assert UnifiedModel.from_pretrained(tmp_path / 'mean' / 'weights').config.temperature != 1

    with pytest.raises(ValueError, match='one a checkpoint'):
        mean((one, two), (0.5,), tmp_path / 'other')
    with pytest.raises(ValueError, match='one a checkpoint'):
        mean((one, two), (0.5, 0.6), tmp_path / 'other')


def test_time_bounded_run_ends(scenes, tmp_path):
    config = replace(RUN, steps=None, minutes=0.02, evaluate_every=10**6)
    train_unified(config, scenes, tmp_path / 'run', model_config=TINY)
    last = json.loads((tmp_path / 'run' / 'log.jsonl').read_text().splitlines()[-1])
    assert last['step'] > 0
    assert 1 < last['seconds'] < 60


def test_the_processs_clock_does_not_count_what_others_compute(scenes, tmp_path):
    config = replace(RUN, steps=None, minutes=0.05, clock='process', evaluate_every=10**6)
    used = process_time()
    train_unified(config, scenes, tmp_path / 'run', model_config=TINY)
    used = process_time() - used
    last = json.loads((tmp_path / 'run' / 'log.jsonl').read_text().splitlines()[-1])
    assert 0 < last['seconds'] <= used  # evaluation comes on top
    assert last['step'] > 0


def test_loss_that_is_not_a_number_stops_the_run(scenes, tmp_path):
    frames = load_frames(scenes, 64)
    batches = TrainingBatches(
        frames, np.arange(9), size=32, batch_size=2, canonical_focal=0.5,
        augmentation=NOTHING, rare_sampling=0.0, seed=0,
    )  # fmt: skip
    bad = frames.names[batches.frame_index(8)]

    def loss_terms(model, batch):
        loss = model(batch.images.mean((2, 3))).square().mean()
        return {'mean': loss * float('nan') if bad in batch.names else loss}

    with pytest.raises(TrainingError, match='loss nan') as error:
        fit(
            nn.Linear(3, 1),
            batches=batches,
            steps=20,
            loss_terms=loss_terms,
            evaluate=lambda model: {'score': 0.0},
            config=replace(RUN, evaluate_every=1),
            device=torch.device('cpu'),
            output=tmp_path,
        )
    assert bad in str(error.value)
    assert str(tmp_path / 'last.safetensors') in str(error.value)
    kept = load_file(tmp_path / 'last.safetensors')
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())


def test_configurations_are_written_as_yaml_reads_them(tmp_path):
    """What config.json records is a configuration again."""
    path = tmp_path / 'again.yaml'
    path.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(RUN)))))
    assert load_config(TrainConfig, path) == RUN
