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

"""Teachers: what may teach, the sign, maps computed once, and a student that learns from one."""

from dataclasses import replace
import json

import numpy as np
import pytest
from test_training import NOTHING, RUN, TINY, write_scenes
import torch
from torch import nn
from train.batches import TrainingBatches
from train.config import TeacherConfig, TeacherRunConfig
from train.frames import load_frames
from train.single_task import train_teacher
from train.teacher import check_sign, Teacher, teacher_maps, teacher_sign
from train.unified import train_unified
from transformers import SegformerConfig, SegformerForSemanticSegmentation

CPU = torch.device('cpu')
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Answer(nn.Module):
    """Stands for a depth network; says a function of the image's brightness."""

    def __init__(self, function):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.function, self.calls = function, 0

    def forward(self, pixel_values):
        self.calls += len(pixel_values)
        self.predicted_depth = self.function(pixel_values.mean(1))
        return self


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp('data') / 'moon')


@pytest.fixture(scope='module')
def trained(scenes, tmp_path_factory):
    """Return the folder of a run of a tiny teacher."""
    torch.set_num_threads(1)
    config = TeacherRunConfig(
        size=64, steps=60, evaluate_every=60, device='cpu', data=RUN.data, augment=NOTHING,
        optimizer=replace(RUN.optimizer, learning_rate=3e-3),
        hidden_size=16, layers=4, heads=2, neck=8,
    )  # fmt: skip
    run = tmp_path_factory.mktemp('teacher') / 'run'
    train_teacher(config, scenes, run)
    return run


def vertical(depth_like):
    """Return a teacher whose answer grows with the row, or falls."""
    rows = torch.linspace(0, 1, 64)[None, :, None]
    return Teacher(Answer(lambda x: (1 - rows if depth_like else rows) + 0 * x), 64, MEAN, STD)


def test_sign_of_a_teacher_is_told(scenes):
    frames = load_frames(scenes, 64)
    # In these scenes depth falls from row to row.
    for depth_like in (True, False):
        sign = teacher_sign(vertical(depth_like), frames, np.arange(9), CPU)
        assert (sign['depth'] > 0.9) == depth_like
        assert (sign['inverse_depth'] > 0.5) != depth_like


def test_inverse_form_refuses_a_teacher_of_depth():
    literal, inverse = TeacherConfig('x', form='literal'), TeacherConfig('x')
    of_depth = {'depth': 0.9, 'inverse_depth': -0.8}
    of_inverse = {'depth': -0.8, 'inverse_depth': 0.9}
    with pytest.raises(ValueError, match=r"set teacher\.form to 'literal'"):
        check_sign(of_depth, inverse)
    assert 'predicts depth' in check_sign(of_depth, literal)
    assert 'wrong way' not in check_sign(of_depth, literal)
    assert 'predicts inverse depth' in check_sign(of_inverse, inverse)
    assert 'wrong way' in check_sign(of_inverse, literal)


def test_flat_truth_has_no_sign(scenes):
    frames = load_frames(scenes, 64)
    flat = replace(frames, depth=np.full_like(frames.depth, np.inf))
    with pytest.raises(ValueError, match='sign of the teacher can not be told'):
        teacher_sign(vertical(True), flat, np.arange(9), CPU)


def test_maps_are_computed_once_for_a_teacher(scenes):
    frames, network = load_frames(scenes, 64), Answer(lambda x: x)
    teacher = Teacher(network, 64, MEAN, STD)
    config = TeacherConfig('somebody/teacher')
    maps = teacher_maps(teacher, config, frames, scenes, CPU)
    assert maps.shape == (9, 64, 64)
    assert network.calls == 9
    assert float(maps[0].astype(float).mean()) == pytest.approx(0, abs=1e-3)
    assert float(maps[0].astype(float).std()) == pytest.approx(1, abs=1e-2)
    again = teacher_maps(teacher, config, frames, scenes, CPU)
    assert network.calls == 9
    assert np.array_equal(maps, again)
    network.weight.data *= 2  # another teacher of the same name
    teacher_maps(teacher, config, frames, scenes, CPU)
    assert network.calls == 18


def test_maps_move_with_the_frame(scenes):
    """A teacher that says the true depth says it after augmentation, too."""
    frames = load_frames(scenes, 64)
    truth = frames.depth.astype(np.float32)
    batches = TrainingBatches(
        frames, np.arange(9), size=48, batch_size=9, canonical_focal=1.0,
        augmentation=replace(NOTHING, flip=0.5, rotation_deg=10.0, smallest_crop=0.6, whole=0.0),
        rare_sampling=0.0, seed=0, teacher=np.where(np.isinf(truth), 100, truth),
    )  # fmt: skip
    batch = batches[0]
    known = torch.isfinite(batch.depth) & torch.isfinite(batch.teacher)
    assert known.float().mean() > 0.3
    # Depth there is for the canonical camera: one factor a frame.
    for depth, said, mask in zip(batch.depth, batch.teacher, known, strict=True):
        ratio = depth[mask] / said[mask]
        assert ratio.median() * 0.9 < ratio.quantile(0.1)
        assert ratio.quantile(0.9) < ratio.median() * 1.1
    # What rotation brought in is as unknown to the one as to the other, but for its rim.
    assert (torch.isnan(batch.depth) & torch.isfinite(batch.teacher)).float().mean() < 0.02


def test_network_without_depth_is_refused(tmp_path):
    shape = SegformerConfig(
        hidden_sizes=[4, 4, 4, 4], depths=[1] * 4, num_attention_heads=[1] * 4,
        decoder_hidden_size=4,
    )  # fmt: skip
    SegformerForSemanticSegmentation(shape).save_pretrained(tmp_path / 'labels')
    with pytest.raises(ValueError, match='segformer network, which predicts no depth'):
        Teacher.load(str(tmp_path / 'labels'))


def test_missing_teacher_is_named_in_one_line(scenes, tmp_path):
    teacher = TeacherConfig(str(tmp_path / 'nothing'))
    config = replace(RUN, teacher=teacher, loss=replace(RUN.loss, distillation=0.05))
    with pytest.raises(OSError, match='nothing can not be loaded') as error:
        train_unified(config, scenes, tmp_path / 'run', model_config=TINY)
    assert 'teacher.download' in str(error.value)
    assert '\n' not in str(error.value)
    with pytest.raises(ValueError, match=r'no teacher\.model'):
        train_unified(
            replace(config, teacher=TeacherConfig()), scenes, tmp_path / 'run', model_config=TINY
        )


def test_trained_teacher_knows_near_from_far(trained, scenes):
    metrics = json.loads((trained / 'metrics.json').read_text())
    assert metrics['miou'] is None
    assert metrics['delta1'] > 0.6
    teacher = Teacher.load(str(trained / 'weights'))
    assert teacher.size == 64
    sign = teacher_sign(teacher, load_frames(scenes, 64), np.arange(9), CPU)
    assert sign['inverse_depth'] > 0.5 > sign['depth']


@pytest.mark.parametrize('precompute', [True, False])
def test_student_learns_from_a_teacher(trained, scenes, tmp_path, precompute):
    config = replace(
        RUN,
        steps=10,
        teacher=TeacherConfig(str(trained / 'weights'), precompute=precompute),
        loss=replace(RUN.loss, distillation=0.05),
    )
    train_unified(config, scenes, tmp_path / 'run', model_config=TINY)
    rows = [json.loads(line) for line in (tmp_path / 'run' / 'log.jsonl').open()]
    assert all(row['distillation'] > 0 for row in rows if row['part'] == 'train')
    said = json.loads((tmp_path / 'run' / 'teacher.json').read_text())
    assert said['correlation']['inverse_depth'] > 0
