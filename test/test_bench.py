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

"""The benchmarks' arithmetic on numbers worked by hand, their page, and the bench command."""

from collections.abc import Callable
from importlib.util import find_spec
import json
import os
from pathlib import Path

from benchmarks.figures import growth, highest_rate
from benchmarks.own_process import OwnProcess
from benchmarks.performance import Goal, PAGE, page, read_records, RESULTS, table
from lunar_perception.cli import main
from lunar_perception.commands import bench
from lunar_perception.inference import predictor
from lunar_perception.timing import percentile, run_in_turn, spread, spreads
import numpy as np
import pytest
from tiny_network import save_tiny_network
import torch


def test_programs_take_turns_and_every_second_round_goes_backwards():
    calls: list[str] = []
    waits: list[int] = []
    times = run_in_turn(
        {'a': lambda: calls.append('a'), 'b': lambda: calls.append('b')},
        3,
        warm_ups=2,
        synchronise=lambda: waits.append(len(calls)),
    )
    assert ''.join(calls) == 'abbaabbaab'
    assert {name: len(samples) for name, samples in times.items()} == {'a': 3, 'b': 3}
    assert all(second >= 0 for samples in times.values() for second in samples)
    # The device is waited for before the clock starts and before it stops.
    assert waits == [n for call in range(10) for n in (call, call + 1)]


def counting() -> tuple[Callable[[], int], int]:
    """Return a program that counts its runs and ends its process on the third, and the process."""
    runs: list[None] = []

    def run() -> int:
        runs.append(None)
        if len(runs) == 3:
            os._exit(7)
        return len(runs)

    return run, os.getpid()


def test_a_program_in_its_own_process():
    with OwnProcess(counting) as first, OwnProcess(counting) as second:
        assert len({first.about, second.about, os.getpid()}) == 3
        for program in (first, second, second, first):
            program()
        with pytest.raises(RuntimeError, match='status 7'):
            first()


def test_spread_by_hand():
    assert spread([3.0, 1.0, 2.0, 10.0]) == {
        'median': 2.5,
        'least': 1.0,
        'most': 10.0,
        'samples': 4,
    }
    assert spreads({'a': [0.001, 0.003]})['a']['median'] == 2.0
    with pytest.raises(ValueError, match='no samples'):
        spread([])


def test_percentile_is_one_of_the_samples():
    samples = [float(x) for x in range(20, 0, -1)]
    assert percentile(samples, 95) == 19
    assert percentile(samples, 100) == 20
    assert percentile(samples, 1) == 1
    assert percentile([7.0], 50) == 7
    assert percentile([1.0, 2.0], 50) == 1
    for bad in ([], 50), ([1.0], 0), ([1.0], 101):
        with pytest.raises(ValueError, match='percentile'):
            percentile(*bad)


@pytest.mark.parametrize('limit', [3.0, 10.0, 40.0])
def test_highest_rate_closes_in_on_the_limit_from_below(limit: float):
    tried: list[float] = []

    def loss_at(rate: float) -> float:
        tried.append(rate)
        return 0.0 if rate <= limit else 1 - limit / rate

    found = highest_rate(loss_at, 10.0, trials=12)
    assert found in tried
    # A rate above the limit may lose no more than the allowed twentieth.
    assert limit * 0.99 <= found <= limit / 0.95
    assert len(tried) == 12


def test_no_rate_holds():
    assert highest_rate(lambda rate: 1.0, 10.0, trials=3) == 0


def test_memory_growth_is_the_last_over_a_tenth():
    rows = [(10, 50.0), (100, 80.0), (500, 90.0), (1000, 100.0)]
    assert growth(rows) == 100 / 80


def test_goals_hold_on_their_side():
    assert Goal('speed', 2.0, 1.8, at_least=True).holds
    assert not Goal('speed', 1.7, 1.8, at_least=True).holds
    assert Goal('time', 1.5, 1.5, at_least=False).holds
    assert not Goal('time', 1.51, 1.5, at_least=False).holds


def test_table():
    assert table(['', 'a'], [['x', '1']]) == '|  | a |\n| --- | ---: |\n| x | 1 |'


@pytest.mark.skipif(not PAGE.is_file(), reason='needs python -m benchmarks.all, once')
def test_page_is_what_the_program_makes_of_the_figures():
    assert PAGE.read_text() == page(read_records(RESULTS)), 'run python -m benchmarks.performance'


def test_page_names_missing_figures(tmp_path: Path):
    with pytest.raises(ValueError, match=r'stages, node.*benchmarks\.all'):
        read_records(tmp_path)


STAGES = ['decode', 'preprocess', 'network', 'postprocess', 'cloud', 'publish']


def test_bench_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_LOG_DIR'):
        monkeypatch.setenv(name, '')  # the command sets them; so they are put back
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', '')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(predictor, 'SHIPPED_WEIGHTS', save_tiny_network(tmp_path / 'model'))
    monkeypatch.setattr(bench, 'SIDES', (64, 96))
    monkeypatch.setattr(bench, 'REPEATS', 2)
    monkeypatch.setattr(bench, 'BACKENDS', ['torch', 'tensorrt'])
    assert main(['bench', '--output', str(tmp_path / 'bench.json')]) == 0

    record = json.loads((tmp_path / 'bench.json').read_text())
    assert record['command'] == 'lunar-perception bench'
    assert record['hardware']['cores'] >= 1
    assert record['hardware']['threads'] == torch.get_num_threads()
    assert record['versions']['numpy'] == np.__version__
    results = record['results']
    assert results['default_backend'] == 'torch'
    assert set(results['by_side']) == {'64', '96'}
    stages = STAGES if find_spec('rclpy') else STAGES[1:4]
    for rows in results['by_side'].values():
        assert list(rows['torch']['stages_ms']) == stages
        assert all(time['samples'] == 2 for time in rows['torch']['stages_ms'].values())
        assert rows['torch']['predictor_hz'] > 0
        assert 'TensorRT' in rows['tensorrt']['refused'] or 'onnx' in rows['tensorrt']['refused']
    printed = capsys.readouterr().out
    assert 'torch' in printed and '← default' in printed and 'bench.json' in printed


def test_bench_fails_when_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = {'default_backend': '', 'by_side': {'64': {'x': {'refused': 'it is not there'}}}}
    monkeypatch.setattr(bench, 'measure', lambda *_, **__: refused)
    assert main(['bench']) == 1
    output = capsys.readouterr()
    assert 'it is not there' in output.out
    assert 'no backend could be used' in output.err
