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

"""Several processes train as one does: real ones, started by torchrun, over gloo."""

from dataclasses import replace
import json
from pathlib import Path
import subprocess
import sys

import pytest
from safetensors.torch import load_file
from test_training import RUN, TINY, write_scenes
import torch
from torch import nn
from train.distributed import share_batch_norm, SharedBatchNorm
import train.loop
from train.unified import train_unified

ROOT = Path(__file__).resolve().parents[1]

# One start of two processes for three runs: starting takes longer than training.
SCRIPT = """
from dataclasses import replace
from pathlib import Path
import sys
sys.path[:0] = [{root!r}, {test!r}]
import torch
torch.set_num_threads(1)
import train.loop
from test_distributed import CONFIG
from test_training import TINY
from train import distributed
from train.unified import train_unified
train.loop.LOG_EVERY = 1
data, output = Path({data!r}), Path({output!r})
half = replace(CONFIG, data=replace(CONFIG.data, batch_size=2))
distributed.start_processes('cpu')
assert distributed.processes() == 2
metrics = train_unified(half, data, output / 'whole', model_config=TINY)
assert bool(metrics) == distributed.is_first()
split = replace(half, shard=True)
train_unified(replace(split, steps=2), data, output / 'split', model_config=TINY)
train_unified(split, data, output / 'split', resume=True, model_config=TINY)
distributed.stop_processes()
"""

CONFIG = replace(
    RUN,
    steps=4,
    evaluate_every=2,
    data=replace(RUN.data, batch_size=4),
    loss=replace(RUN.loss, l1=1.0, l2=1.0),
    # A learning rate that does not depend on how many steps there are.
    optimizer=replace(RUN.optimizer, cosine=False),
)
TERMS = ('loss', 'cross_entropy', 'lovasz', 'l1', 'l2', 'silog', 'gradient', 'laplace')


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Return a folder of three runs: alone, and of two processes, weights whole and split."""
    data = write_scenes(tmp_path_factory.mktemp('data') / 'moon')
    output = tmp_path_factory.mktemp('runs')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.loop, 'LOG_EVERY', 1)
        train_unified(CONFIG, data, output / 'alone', model_config=TINY)
    torch.set_num_threads(threads)
    script = output / 'two.py'
    script.write_text(
        SCRIPT.format(root=str(ROOT), test=str(ROOT / 'test'), data=str(data), output=str(output))
    )
    torchrun = ['torch.distributed.run', '--standalone', '--nproc-per-node=2']
    done = subprocess.run(
        [sys.executable, '-m', *torchrun, str(script)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return output


def steps_of(run):
    """Return what a run logged of each training step."""
    rows = [json.loads(line) for line in (run / 'log.jsonl').open()]
    return [row for row in rows if row['part'] == 'train']


@pytest.mark.parametrize('kind', ['whole', 'split'])
def test_two_processes_take_the_steps_of_one_with_the_doubled_batch(runs, kind):
    """Each with the whole network (DDP), or with a part of it (FSDP2), stopped half way."""
    expected, rows = steps_of(runs / 'alone'), steps_of(runs / kind)
    assert [row['step'] for row in rows] == [1, 2, 3, 4]
    for row, twin in zip(rows, expected, strict=True):
        for name in TERMS:
            assert row[name] == pytest.approx(twin[name], abs=1e-5, rel=1e-5), (name, row['step'])


@pytest.mark.parametrize('kind', ['whole', 'split'])
def test_what_two_processes_save_is_what_one_would(runs, kind):
    saved, alone = (load_file(runs / k / 'last.safetensors') for k in (kind, 'alone'))
    assert {n: t.shape for n, t in saved.items()} == {n: t.shape for n, t in alone.items()}
    for name, tensor in alone.items():
        if name.startswith('averaged.'):
            # By the norm: Adam turns a gradient that is rounding alone into a whole step, and
            # how sums are rounded differs between processors.
            allowed = 1e-3 * tensor.double().norm() + 1e-4 * tensor.numel() ** 0.5
            assert (saved[name] - tensor).double().norm() <= allowed, name
    assert (runs / kind / 'weights' / 'model.safetensors').is_file()
    assert (runs / kind / 'metrics.json').is_file()


def test_shared_batch_norm_is_batch_norm_in_a_lone_process():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    shared = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    shared.load_state_dict(plain.state_dict())
    share_batch_norm(shared)
    assert isinstance(shared[1], SharedBatchNorm)
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(plain(x), shared(x))
    assert shared.state_dict().keys() == plain.state_dict().keys()
