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

"""The protocol's driver and the tables: resumable, and from finished runs only."""

from dataclasses import replace
import json
from pathlib import Path
import sys

import pytest
from test_training import write_scenes
from train import experiments
from train.__main__ import main
from train.experiments import ExperimentsCommand, row_config, run_experiments
from train.loop import TrainingError
from train.rows import GROUPS
from train.tables import format_tables, print_tables, TablesCommand

BLANK = dict.fromkeys(('miou', 'abs_rel', 'rmse', 'delta1', 'delta2', 'delta3', 'ece', 'ause'))
CLASSES = ('regolith', 'crater', 'rock', 'mountain', 'sky')


def metrics_of(config):
    """Return metrics that tell the learning rate, blank for the task that a network has not."""
    name = getattr(config, 'network', 'unified')
    value = 0.5 + 0.1 * (config.optimizer.learning_rate == 3e-4) + 0.01 * config.seed
    found = {**BLANK, 'iou': dict.fromkeys(CLASSES), 'normalised': dict(BLANK)}
    if not name.startswith('depth'):
        found |= {'miou': value, 'iou': dict.fromkeys(CLASSES, value), 'ece': 0.1}
    if name == 'unified' or name.startswith('depth'):
        depth = {'abs_rel': 1 - value, 'rmse': 1 - value}
        depth |= dict.fromkeys(('delta1', 'delta2', 'delta3'), value)
        found |= {**depth, 'normalised': depth}
    return found


class Trainer:
    """Stands for training, which has tests of its own; notes what was asked for."""

    def __init__(self):
        self.runs, self.fails = [], ''

    def __call__(self, config, data, output, *, resume=False):
        self.runs.append((output.parent.name + '/' + output.name, config, resume))
        output.mkdir(parents=True, exist_ok=True)
        (output / 'log.jsonl').write_text(json.dumps({'step': 7, 'seconds': 2.5}) + '\n')
        if self.fails and self.fails in str(output):
            (output / 'last.safetensors').touch()
            raise KeyboardInterrupt
        if config.optimizer.learning_rate > 1:
            raise TrainingError('step 3: loss nan')
        return metrics_of(config)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp('data') / 'moon', scenes=9, frames=1)


@pytest.fixture
def trainer(monkeypatch):
    trainer = Trainer()
    for name in ('train_unified', 'train_baseline', 'train_teacher'):
        monkeypatch.setattr(experiments, name, trainer)
    return trainer


@pytest.fixture
def command(scenes, tmp_path):
    return ExperimentsCommand(
        scenes, tmp_path / 'runs', tmp_path / 'training_test.json',
        groups=('comparison',), rows=('unified', 'segformer', 'depth_anything'),
        rates=(1e-3, 3e-4), seeds=2,
    )  # fmt: skip


def test_rate_is_searched_on_a_training_scene_and_seeds_run_with_the_best(command, trainer):
    run_experiments(command)
    names = [name for name, _, _ in trainer.runs]
    assert names == [
        f'{row}/{run}'
        for row in ('unified', 'segformer', 'depth_anything')
        for run in ('rate_0.001', 'rate_0.0003', 'seed_0', 'seed_1')
    ]
    for name, config, _ in trainer.runs:
        searching = 'rate' in name
        assert config.minutes == (5 if searching else 15)
        if searching:
            assert config.data.held_out == ('Moon_9',)
            assert set(config.data.left_out) == {'Moon_3', 'Moon_5', 'Moon_7'}
        else:
            assert set(config.data.held_out) == {'Moon_3', 'Moon_5', 'Moon_7'}
            assert not config.data.left_out
            assert config.optimizer.learning_rate == 3e-4

    record = json.loads(command.record.read_text())
    assert [row['name'] for row in record['rows']] == ['unified', 'segformer', 'depth_anything']
    for row in record['rows']:
        assert row['gflop'] > 1
        assert 1e6 < row['parameters'] < 10e6
        assert [run['seed'] for run in row['runs']] == [0, 1]
        for run in row['runs']:
            assert run['steps'] == 7
            assert run['hardware']['processor']
            assert run['versions']['torch']
    assert record['references']['position_prior']['miou'] > 0.1
    assert record['references']['flat_plane']['delta1'] is not None


def test_finished_runs_are_skipped_and_interrupted_ones_gone_on_with(command, trainer):
    trainer.fails = 'segformer/seed_1'
    with pytest.raises(KeyboardInterrupt):
        run_experiments(command)
    # What is finished stands in the record; the interrupted run does not.
    rows = {row['name']: row for row in json.loads(command.record.read_text())['rows']}
    assert rows.keys() == {'unified', 'segformer'}
    assert [run['seed'] for run in rows['segformer']['runs']] == [0]

    trainer.fails, trainer.runs = '', []
    run_experiments(command)
    first, *others = trainer.runs
    assert first[0] == 'segformer/seed_1'
    assert first[2]  # resumed
    assert {name.split('/')[0] for name, _, _ in others} == {'depth_anything'}
    assert not any(resume for _, _, resume in others)
    trainer.runs = []
    run_experiments(command)
    assert not trainer.runs


def test_diverging_rates_are_passed_over(command, trainer):
    command = replace(command, rates=(10.0, 3e-4), rows=('segformer',))
    run_experiments(command)
    assert trainer.runs[-1][1].optimizer.learning_rate == 3e-4
    with pytest.raises(TrainingError, match='segformer diverges'):
        run_experiments(replace(command, rates=(10.0, 20.0), output=command.output / 'other'))


def test_teacher_and_encoder_are_trained_on_other_scenes_first(command, trainer, scenes):
    run_experiments(
        replace(
            command, other=scenes, groups=('story',), rows=('story_distilled',), search_minutes=0.0
        )
    )
    names = [name.split('/')[-1] for name, _, _ in trainer.runs]
    assert names == ['teacher', 'pretrain', 'seed_0', 'seed_1']
    config = trainer.runs[-1][1]
    assert config.teacher.model.endswith('teacher/weights')
    assert config.encoder.endswith('pretrain/weights')
    assert config.teacher.form == 'literal'


def test_scenes_that_lack_are_named(command, trainer, tmp_path):
    few = write_scenes(tmp_path / 'few', scenes=4, frames=1)
    with pytest.raises(ValueError, match='lacks Moon_5, Moon_6'):
        run_experiments(replace(command, data=few))
    with pytest.raises(ValueError, match='--other is missing'):
        replace(command, groups=('comparison', 'ours'))


def test_every_row_has_a_configuration_of_the_same_protocol():
    rows = {row.name: row for group in GROUPS.values() for row in group}
    for row in rows.values():
        config = row_config(row)
        assert config.size == 224
        assert set(config.data.held_out) == {'Moon_3', 'Moon_5', 'Moon_7'}
        assert config.data.batch_size == row_config(rows['unified']).data.batch_size
        assert row.distilled == bool(getattr(getattr(config, 'loss', None), 'distillation', 0))


def test_tables_set_ours_beside_the_papers(command, trainer, capsys):
    run_experiments(command)
    capsys.readouterr()
    print_tables(TablesCommand((command.record,)))
    text = capsys.readouterr().out
    first, second = text.split('### Table 2', 1)
    lines = {line.split('|')[1].strip(): line for line in first.splitlines() if '|' in line}
    # Mean and spread over the seeds, beside what the paper says.
    assert '| 0.777 | 0.605 ± 0.007 |' in lines['Unified']
    assert '| 0.969 | 0.605 ± 0.007 |' in lines['SegFormer']
    # No finished run: the paper's number alone.
    assert lines['MaskFormer'].split('|')[2:5] == [' 0.895 ', '  ', '  ']
    assert 'Position prior' in lines
    assert 'DA v2' not in first
    assert '| 0.688 | 0.080 |' in second
    assert 'Flat plane' in second
    assert 'SegFormer' not in second.split('What it shows')[0]
    assert 'ARE: unified 0.395, first, of 2' in text
    assert 'together' in text


def test_tables_say_so_where_another_is_first(command, trainer):
    run_experiments(command)
    record = json.loads(command.record.read_text())
    for row in record['rows']:
        if row['name'] == 'segformer':
            for run in row['runs']:
                run['metrics']['miou'] = 0.9
    assert 'mIoU: unified 0.605, behind SegFormer (0.900), of 2.' in format_tables(record)


def test_a_record_of_ablations_alone_has_no_empty_comparison(command, trainer, scenes):
    rows = ('story_plain', 'story_dilated')
    run_experiments(replace(command, other=scenes, groups=('story',), rows=rows))
    text = format_tables(json.loads(command.record.read_text()))
    assert text.count('### ') == 1
    assert "### The paper's story" in text


@pytest.mark.parametrize(
    ('text', 'message'),
    [('[', 'not JSON'), ('{"results": 1}', 'no record of'), (None, 'does not exist')],
)
def test_bad_records_are_one_line(tmp_path, monkeypatch, capsys, text, message):
    path = tmp_path / 'training_bad.json'
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(sys, 'argv', ['train', 'tables', '--records', str(path)])
    assert main() == 1
    line = capsys.readouterr().err
    assert message in line
    assert line.count('\n') == 1


def test_committed_records_can_be_printed():
    records = sorted((Path(__file__).parents[1] / 'benchmarks/results').glob('training_*.json'))
    if not records:
        pytest.skip('no record of the protocol is committed')
    print_tables(TablesCommand(tuple(records)))
