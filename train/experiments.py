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

"""
`python -m train experiments`: every row of the tables by one protocol, resumably.

For each row: one short run for each learning rate, scored on a scene of the training part (9);
then, with the best, one run for each seed on all six training scenes, scored on scenes 3, 5 and 7.
Every run has a folder of its own and is skipped when finished, or gone on with when interrupted.
The record is written anew after each finished run, from finished runs only.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
import json
from pathlib import Path
from statistics import fmean
from time import monotonic, process_time
from typing import Annotated, Any, Literal

from lunar_perception.atomic import write_json
from lunar_perception.data.lusnar import LusnarDataset
from lunar_perception.machine import hardware, versions
import torch
from torch import nn
from train.baselines import build_baseline
from train.config import (
    BaselineConfig,
    load_config,
    RunConfig,
    TeacherRunConfig,
    TrainConfig,
)
from train.flops import count_flops, count_parameters
from train.frames import load_frames
from train.loop import TrainingError
from train.networks import build_network
from train.references import score_references
from train.rows import GROUPS, Row
from train.single_task import train_baseline, train_teacher
from train.unified import train_unified
import tyro

FOLDER = Path(__file__).resolve().parent / 'configs'
SEARCH_SCENE = 'Moon_9'
TEST_SCENES = ('Moon_3', 'Moon_5', 'Moon_7')

Group = Literal['comparison', 'distillation', 'story', 'ours']


@dataclass(frozen=True)
class ExperimentsCommand:
    """
    Run the protocol and write its record.

    Params:
        data: nine scenes, as `lunar-perception synth --scenes 9 --seed 2025 --vary-camera` makes.
        output: folder of the runs.
        record: JSON file of the figures.
        other: scenes of another seed, for teacher and pretrained encoder; needed by all groups
            but comparison.
        groups: which tables.
        rows: only these rows of them; empty = all.
        minutes: of every run.
        search_minutes: of every run of the search for a learning rate; 0 = no search, the first
            of `rates` it is.
        pretrain_minutes: of the teacher's and the pretrained encoder's.
        rates: learning rates to choose from.
        seeds: how many.
        clock: what minutes are of, see RunConfig.
        device, precision: see RunConfig.
        protocol: what the record calls this run of the protocol.

    """

    data: Path
    output: Path
    record: Path
    other: Path | None = None
    groups: tuple[Group, ...] = ('comparison', 'distillation', 'story', 'ours')
    rows: tuple[str, ...] = ()
    minutes: float = 15.0
    search_minutes: float = 5.0
    pretrain_minutes: float = 30.0
    rates: tuple[float, ...] = (1e-3, 3e-4, 3e-3)
    seeds: int = 3
    clock: Literal['wall', 'process'] = 'wall'
    device: str = 'auto'
    precision: Literal['fp32', 'bf16'] = 'fp32'
    protocol: Annotated[str, tyro.conf.arg(name='protocol-name')] = 'by scene, 224 px'

    def __post_init__(self) -> None:
        if self.other is None and set(self.groups) != {'comparison'}:
            raise ValueError('--other is missing: scenes of another seed, for the teacher')
        if self.seeds < 1 or not self.rates:
            raise ValueError('at least one seed and one learning rate are needed')


def run_experiments(command: ExperimentsCommand) -> None:
    """Run what is not finished yet; print a line a run."""
    _check_scenes(command.data)
    references = _references(command)
    for row in _rows(command):
        config = row_config(row)
        config = replace(config, **_common(command))
        config = _prepared(row, config, command)
        rate = _best_rate(row, config, command)
        optimizer = replace(config.optimizer, learning_rate=rate)
        for seed in range(command.seeds):
            run = command.output / row.name / f'seed_{seed}'
            result = _finish_run(
                replace(config, seed=seed, optimizer=optimizer), command.data, run
            )
            if result is not None:
                _write_record(command, references)
    _write_record(command, references)


def row_config(row: Row) -> TrainConfig | BaselineConfig:
    """Return the configuration of a row, as configs/protocol/ has it."""
    path = FOLDER / 'protocol' / f'{row.name}.yaml'
    return load_config(BaselineConfig if row.baseline else TrainConfig, path)


def _rows(command: ExperimentsCommand) -> Iterator[Row]:
    """Yield the rows asked for, each once: groups share some."""
    seen = set()
    for group in command.groups:
        for row in GROUPS[group]:
            if row.name not in seen and (not command.rows or row.name in command.rows):
                seen.add(row.name)
                yield row


def _common(command: ExperimentsCommand) -> dict[str, Any]:
    return {
        'minutes': command.minutes,
        'clock': command.clock,
        'device': command.device,
        'precision': command.precision,
    }


def _prepared(
    row: Row, config: TrainConfig | BaselineConfig, command: ExperimentsCommand
) -> TrainConfig | BaselineConfig:
    """Return `config` with the teacher and the encoder that the row needs, trained if need be."""
    if not isinstance(config, TrainConfig):
        return config
    if row.distilled:
        run = command.output / 'teacher'
        teacher = load_config(TeacherRunConfig, FOLDER / 'teacher.yaml')
        _pretrain(replace(teacher, **_common(command)), command, run)
        config = replace(config, teacher=replace(config.teacher, model=str(run / 'weights')))
    if row.pretrained:
        run = command.output / 'pretrain'
        encoder = load_config(TrainConfig, FOLDER / 'protocol' / 'pretrain.yaml')
        _pretrain(replace(encoder, **_common(command)), command, run)
        config = replace(config, encoder=str(run / 'weights'))
    return config


def _pretrain(config: RunConfig, command: ExperimentsCommand, run: Path) -> None:
    assert command.other is not None  # ExperimentsCommand has seen to it
    _finish_run(replace(config, minutes=command.pretrain_minutes), command.other, run)


def _best_rate(
    row: Row, config: TrainConfig | BaselineConfig, command: ExperimentsCommand
) -> float:
    """Return the learning rate whose short run scores best on the search scene."""
    if not command.search_minutes or len(command.rates) == 1:
        return command.rates[0]
    data = replace(config.data, held_out=(SEARCH_SCENE,), left_out=TEST_SCENES)
    scores: dict[float, float] = {}
    for rate in command.rates:
        search = replace(
            config,
            minutes=command.search_minutes,
            data=data,
            optimizer=replace(config.optimizer, learning_rate=rate),
        )
        run = command.output / row.name / f'rate_{rate:g}'
        try:
            metrics = _finish_run(search, command.data, run, 'search.json') or _read(
                run / 'search.json'
            )
        except TrainingError as error:
            print(f'{row.name} at {rate:g}: {error}')
            continue
        scores[rate] = _score(metrics['metrics'])
    if not scores:
        raise TrainingError(f'{row.name} diverges at every learning rate')
    best = max(scores, key=lambda rate: scores[rate])
    print(f'{row.name}: learning rate {best:g} of', {f'{r:g}': s for r, s in scores.items()})
    return best


def _score(metrics: dict[str, Any]) -> float:
    """Return mIoU and δ1 averaged, or the one that there is."""
    return fmean(v for v in (metrics['miou'], metrics['delta1']) if v is not None)


def _finish_run(
    config: RunConfig, data: Path, run: Path, name: str = 'result.json'
) -> dict[str, Any] | None:
    """Bring a run to its end and return its result; None when it had been there before."""
    if (run / name).exists():
        return None
    train: Any = train_baseline
    if isinstance(config, TeacherRunConfig):
        train = train_teacher
    elif isinstance(config, TrainConfig):
        train = train_unified
    print(f'-> {run}')
    wall, used = monotonic(), process_time()
    resume = (run / 'last.safetensors').exists()
    if not resume:
        (run / 'log.jsonl').unlink(missing_ok=True)
    metrics = train(config, data, run, resume=resume)
    last = json.loads((run / 'log.jsonl').read_text().splitlines()[-1])
    result = {
        'metrics': metrics,
        'seed': config.seed,
        'learning_rate': config.optimizer.learning_rate,
        'minutes': config.minutes,
        'clock': config.clock,
        'steps': last['step'],
        'seconds': last['seconds'],
        'seconds_with_evaluation': {
            'wall': round(monotonic() - wall, 1),
            'process': round(process_time() - used, 1),
        },
        'hardware': hardware(),
        'versions': versions(),
    }
    write_json(run / name, result)
    print(f'   mIoU {metrics["miou"]}, δ1 {metrics["delta1"]}, {last["step"]} steps')
    return result


def _write_record(command: ExperimentsCommand, references: dict[str, Any]) -> None:
    """Write every finished run of the protocol, whichever call of this program finished it."""
    rows = []
    for row in {row.name: row for rows in GROUPS.values() for row in rows}.values():
        runs = sorted((command.output / row.name).glob('seed_*/result.json'))
        if not runs:
            continue
        config = row_config(row)
        size = config.size or 224
        network: nn.Module
        if isinstance(config, BaselineConfig):
            network = build_baseline(config.network, size)
        else:
            network = build_network(config.model)
        searched = sorted((command.output / row.name).glob('rate_*/search.json'))
        rows.append(
            {
                'name': row.name,
                'parameters': count_parameters(network),
                'gflop': count_flops(network, size) / 1e9,
                'searched': {
                    f'{result["learning_rate"]:g}': _score(result['metrics'])
                    for result in map(_read, searched)
                },
                'runs': [_read(run) for run in runs],
            }
        )
    pretrained = {
        name: _read(command.output / name / 'result.json')
        for name in ('teacher', 'pretrain')
        if (command.output / name / 'result.json').exists()
    }
    described = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(command).items()}
    # Of folders on this machine, only the name.
    described |= {k: Path(described[k]).name for k in ('data', 'output') if described[k]}
    described['other'] = command.other and command.other.name
    described['record'] = command.record.name
    write_json(
        command.record,
        {
            'protocol': command.protocol,
            'command': 'python -m train experiments',
            'options': described,
            'threads': torch.get_num_threads(),
            'references': references,
            'pretrained': pretrained,
            'rows': rows,
        },
    )


def _references(command: ExperimentsCommand) -> dict[str, Any]:
    """Return the scores of the position prior and the flat plane on the test scenes."""
    path = command.output / 'references.json'
    if not path.exists():
        size = load_config(BaselineConfig, FOLDER / 'protocol' / 'segformer.yaml').data.cache_size
        frames = load_frames(command.data, size)
        train, test = frames.split(TEST_SCENES)
        mountings = {s.name: s.mounting for s in LusnarDataset(command.data)}
        write_json(path, score_references(frames, train, test, mountings))
    return _read(path)


def _check_scenes(data: Path) -> None:
    names = {scene.name for scene in LusnarDataset(data)}
    missing = sorted({f'Moon_{i}' for i in range(1, 10)} - names)
    if missing:
        raise ValueError(f'{data} lacks {", ".join(missing)} of the nine scenes of the protocol')


def _read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text())
    return value
