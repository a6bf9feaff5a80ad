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

"""Baselines: sizes, answers, losses, and a run of each kind through the same loop."""

from dataclasses import replace
import json
from pathlib import Path
import sys
from typing import get_args

import cv2
import numpy as np
import pytest
from test_training import NOTHING, RUN, TINY, write_scenes
import torch
from train.__main__ import main
from train.baselines import build_baseline, RelativeDepth
from train.batches import Batch
from train.config import (
    BaselineConfig,
    BaselineName,
    load_config,
    LossConfig,
    TeacherRunConfig,
    TrainConfig,
)
from train.evaluation import aligned_log_depth
from train.flops import count_flops, count_parameters
from train.networks import build_network, CONFIGS, load_encoder, load_network
from train.single_task import load_baseline, train_baseline
from train.unified import train_unified

CONFIG_FILES = Path(__file__).resolve().parents[1] / 'train' / 'configs'
NAMES = get_args(BaselineName)
INF, NAN = float('inf'), float('nan')


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    torch.set_num_threads(1)
    return write_scenes(tmp_path_factory.mktemp('data') / 'moon', size=112)


@pytest.fixture(scope='module')
def networks():
    """Return every baseline, for 224 pixels."""
    torch.manual_seed(0)
    return {name: build_baseline(name, 224) for name in NAMES}


def batch(size=224):
    """Return a batch of two with unlabelled pixels, sky and unknown depth."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 4, (2, size, size), generator=generator)
    depth = 1 + 20 * torch.rand(2, 1, size, size, generator=generator)
    label[:, :40], depth[:, :, :40] = 4, INF
    label[:, -9:], depth[:, :, -9:] = 255, NAN
    images = torch.randn(2, 3, size, size, generator=generator)
    return Batch(images, label, depth, ['a', 'b'])


@pytest.mark.parametrize('name', NAMES)
def test_baselines_are_small_and_learn_from_their_own_loss(networks, name):
    network = networks[name]
    assert 1e6 < count_parameters(network) <= 10e6
    config = LossConfig(lovasz=1.0, silog=1.0, gradient=0.5)
    terms = network.train().terms(batch(), config, torch.ones(5))
    loss = torch.stack(list(terms.values())).sum()
    assert torch.isfinite(loss)
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert len(gradients) > 0.9 * len(list(network.parameters()))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    network.zero_grad()
    labels = not name.startswith('depth')
    assert (('cross_entropy' in terms) or ('mask_classification' in terms)) == labels


@pytest.mark.parametrize('name', NAMES)
def test_baselines_answer_their_own_task_alone(networks, name):
    with torch.no_grad():
        output = networks[name].eval()(batch().images[:1])
    said = {field for field, value in output._asdict().items() if isinstance(value, torch.Tensor)}
    assert said == {
        'depth_anything': {'inverse_depth'},
        'depth_anything_metric': {'depth'},
    }.get(name, {'label_logits'})
    assert count_flops(networks[name], 224) > 1e9


def test_unetplusplus_is_the_librarys_network_with_its_nodes_supervised(networks):
    network = networks['unetplusplus'].eval()
    images = batch().images
    with torch.no_grad():
        assert torch.equal(network(images).label_logits, network.network(images))
        network.train()
        inside = network(images).inside
        network.eval()
    assert len(inside) == 4  # X^(0,1) to X^(0,4)
    assert {tuple(logits.shape) for logits in inside} == {(2, 5, 112, 112)}


def test_maskformers_scores_are_those_of_transformers(networks):
    network = networks['maskformer'].eval()
    from transformers import MaskFormerImageProcessor

    images = batch().images
    with torch.no_grad():
        answer = network.network(images)
        logits = network(images).label_logits
    processor = MaskFormerImageProcessor()
    expected = processor.post_process_semantic_segmentation(answer)
    # Some versions score at 384 pixels, whatever the image.
    shape = expected[0].shape
    logits = torch.nn.functional.interpolate(logits.exp(), shape, mode='bilinear')
    agree = [(a == b.argmax(0)).float().mean() for a, b in zip(expected, logits, strict=True)]
    assert min(agree) > 0.98


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='multiple of 14, not 225'):
        build_baseline('depth_anything', 225)
    with pytest.raises(ValueError, match='multiple of 32, not 100'):
        build_baseline('segformer', 100)


def test_aligned_depth_is_the_truth_of_a_perfect_answer():
    truth = torch.rand(9, 9) * 20 + 1
    truth[0] = INF
    inverse = 5 / truth + 3
    aligned = aligned_log_depth(inverse, truth)
    assert torch.allclose(aligned[1:].exp(), truth[1:], rtol=1e-4)
    # Where nothing is known there is nothing to align to.
    assert torch.isfinite(aligned_log_depth(inverse, truth * NAN)).all()


@pytest.mark.parametrize('name', ['segformer', 'depth_anything'])
def test_run_of_a_baseline_leaves_the_other_task_blank(scenes, tmp_path, name):
    config = BaselineConfig(
        network=name, size=224, steps=2, evaluate_every=2, device='cpu', augment=NOTHING,
        data=replace(RUN.data, cache_size=112), optimizer=RUN.optimizer,
    )  # fmt: skip
    run = tmp_path / 'run'
    metrics = train_baseline(config, scenes, run)
    assert metrics == json.loads((run / 'metrics.json').read_text())
    assert (metrics['miou'] is None) == (name == 'depth_anything')
    assert (metrics['delta1'] is None) == (name == 'segformer')
    again = load_baseline(name, 224, run)
    assert not again.training
    arguments = ['pictures', '--run', run, '--data', scenes, '--output', tmp_path / 'p.png']
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['train', *map(str, arguments), '--frames', '2'])
        assert main() == 0
    picture = cv2.imread(str(tmp_path / 'p.png'))
    # Image, truth and prediction, and with depth their difference.
    assert picture.shape[1] // 112 == (4 if name == 'depth_anything' else 3)
    assert picture.shape[0] > 2 * 112


def test_pictures_of_nothing_are_refused(tmp_path, monkeypatch, capsys):
    arguments = ['--run', tmp_path, '--data', tmp_path, '--output', tmp_path / 'p.png']
    monkeypatch.setattr(sys, 'argv', ['train', 'pictures', *map(str, arguments)])
    assert main() == 1
    assert 'no finished run' in capsys.readouterr().err


# Ablations


@pytest.mark.parametrize('name', [n for n in CONFIGS if n not in ('base', 'paper')])
def test_ablations_answer_and_come_back_from_disk(tmp_path, name):
    torch.manual_seed(0)
    config = replace(CONFIGS[name](), input_size=224)
    network = build_network(name, config).eval()
    assert count_flops(network, 64) > 1e8
    network.save_pretrained(tmp_path)
    images = batch().images[:1]
    with torch.no_grad():
        expected, answer = network(images), load_network(name, tmp_path)(images)
    assert torch.equal(expected.label_logits, answer.label_logits)
    assert torch.equal(expected.depth, answer.depth)
    trained = sum(p.requires_grad for p in network.encoder.parameters())
    assert (trained == 0) == (name in ('plain', 'dilated'))


def test_encoder_of_another_run_is_taken_with_or_without_its_neck(tmp_path):
    source = build_network('dilated_full')
    source.save_pretrained(tmp_path)
    for name in ('plain', 'rover'):
        network = build_network(name)
        load_encoder(network, str(tmp_path))
        own = network.encoder.state_dict()
        assert all(torch.equal(source.encoder.state_dict()[key], own[key]) for key in own)


def test_critic_and_l2_train_along_and_do_not_ship(scenes, tmp_path):
    loss = replace(RUN.loss, adversarial=0.1, l2=1.0)
    data = replace(RUN.data, cache_size=112)
    run = tmp_path / 'run'
    train_unified(replace(RUN, steps=10, data=data, loss=loss), scenes, run, model_config=TINY)
    rows = [json.loads(line) for line in (run / 'log.jsonl').open()]
    assert all({'adversarial', 'l2'} <= row.keys() for row in rows if row['part'] == 'train')
    load_network('rover', run / 'weights')


# Configurations


@pytest.mark.parametrize(
    'path', sorted(CONFIG_FILES.rglob('*.yaml')), ids=lambda path: str(path.stem)
)
def test_shipped_configurations_load(path):
    if path.stem in ('paper_recipe', 'common', 'story_common') or 'terrain' in path.stem:
        pytest.skip('not a run of its own, or of another program')
    text = path.read_text()
    kind = BaselineConfig if 'network:' in text else TrainConfig
    kind = TeacherRunConfig if path.stem == 'teacher' else kind
    load_config(kind, path)


def test_a_file_stands_on_the_one_that_it_extends(tmp_path):
    (tmp_path / 'below.yaml').write_text('steps: 3\nloss: {l1: 5, lovasz: 1}')
    (tmp_path / 'above.yaml').write_text('extends: below.yaml\nloss: {lovasz: 2}')
    config = load_config(TrainConfig, tmp_path / 'above.yaml')
    assert (config.steps, config.loss.l1, config.loss.lovasz) == (3, 5, 2)


def test_the_papers_recipes_for_baselines():
    rates = {'segformer': 5e-5, 'maskformer': 1e-5, 'unetplusplus': 1e-4, 'depth_anything': 5e-5}
    for name, rate in rates.items():
        config = load_config(BaselineConfig, CONFIG_FILES / f'paper_{name}.yaml')
        assert (config.network, config.epochs, config.optimizer.learning_rate) == (name, 5, rate)
        decays = name in ('maskformer', 'depth_anything')
        assert config.optimizer.name == ('adamw' if decays else 'adam')
        assert config.optimizer.weight_decay == (0.01 if decays else 0)
    paper = load_config(TrainConfig, CONFIG_FILES / 'paper.yaml')
    assert (paper.teacher.model, paper.teacher.form, paper.teacher.alpha) == (
        'Intel/dpt-large', 'literal', 0.5,
    )  # fmt: skip
    assert paper.loss.distillation == 0.05


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['baseline', '--network', 'segfromer', '--output', 'x'], 'known are segformer'),
        (['baseline', '--network', 'segformer', '--output', 'x'], '--data is missing'),
        (['unified', '--output', 'x'], '--config is missing'),
        (['teacher', '--output', 'x', '--data', '/nowhere'], 'nowhere'),
    ],
)
def test_bad_command_lines_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['train', *arguments])
    assert main() == 1
    line = capsys.readouterr().err
    assert message in line
    assert line.count('\n') == 1


def test_wandb_is_asked_for_only_where_it_is_installed(scenes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    config = replace(RUN, wandb_project='moon', data=replace(RUN.data, cache_size=112))
    with pytest.raises(ValueError, match='wandb is not installed'):
        train_unified(config, scenes, tmp_path / 'run', model_config=TINY)


def test_relative_depth_does_not_start_dead():
    from transformers import DepthAnythingForDepthEstimation

    torch.manual_seed(1)
    network = RelativeDepth(
        DepthAnythingForDepthEstimation(build_baseline('depth_anything', 224).network.config)
    )
    with torch.no_grad():
        answer = network(batch().images).inverse_depth
    assert (answer > 0).float().mean() > 0.9
    assert np.isfinite(answer.numpy()).all()
