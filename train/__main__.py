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

"""The command line: `python -m train COMMAND`."""

from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
import json
from pathlib import Path
import sys
from typing import Annotated, Any, get_args

from train.config import (
    BaselineConfig,
    BaselineName,
    load_config,
    RunConfig,
    TeacherRunConfig,
    TrainConfig,
)
import tyro

CONFIGS = Path(__file__).resolve().parent / 'configs'


@dataclass(frozen=True, kw_only=True)
class RunCommand:
    """
    What every training run is told on the command line.

    Params:
        config: YAML file, see train/configs/.
        output: folder of the run.
        data: folder of scenes (Moon_1, …); with --smoke, a few are generated where absent.
        resume: go on from the run's last checkpoint.
        smoke: a few steps through everything.
        train: what the YAML file says, to be overridden.

    """

    output: Path
    config: Path | None = None
    data: Path | None = None
    resume: bool = False
    smoke: bool = False


@dataclass(frozen=True, kw_only=True)
class UnifiedCommand(RunCommand):
    """Train the unified network on scenes in LuSNAR's layout."""

    train: Annotated[TrainConfig, tyro.conf.arg(name='')]


@dataclass(frozen=True, kw_only=True)
class BaselineCommand(RunCommand):
    """Train a single-task network; without --config by the protocol's recipe for --network."""

    train: Annotated[BaselineConfig, tyro.conf.arg(name='')]


@dataclass(frozen=True, kw_only=True)
class TeacherCommand(RunCommand):
    """Train a DPT to affine-invariant inverse depth; without --config by configs/teacher.yaml."""

    train: Annotated[TeacherRunConfig, tyro.conf.arg(name='')]


def unified(arguments: list[str]) -> None:
    """Run `python -m train unified`."""
    path = _option(arguments, '--config')
    if path is None and '--help' not in arguments:
        raise ValueError(f'--config is missing: a YAML file, such as {CONFIGS}/rover.yaml')
    command = _parse(UnifiedCommand, TrainConfig, path or CONFIGS / 'rover.yaml', arguments)
    # Imported late: --help and a misspelt key should not wait for torch.
    from train.unified import train_unified

    _run(command, train_unified)


def baseline(arguments: list[str]) -> None:
    """Run `python -m train baseline`."""
    network = str(_option(arguments, '--network') or 'segformer')
    if network not in get_args(BaselineName):
        raise ValueError(f'--network {network}: known are {", ".join(get_args(BaselineName))}')
    path = _option(arguments, '--config') or CONFIGS / 'protocol' / f'{network}.yaml'
    command = _parse(BaselineCommand, BaselineConfig, path, arguments)
    from train.single_task import train_baseline

    _run(command, train_baseline)


def teacher(arguments: list[str]) -> None:
    """Run `python -m train teacher`."""
    path = _option(arguments, '--config') or CONFIGS / 'teacher.yaml'
    command = _parse(TeacherCommand, TeacherRunConfig, path, arguments)
    from train.single_task import train_teacher

    _run(command, train_teacher)


def _option(arguments: list[str], name: str) -> Path | None:
    """Return an option's value ahead of the others, on which the others' defaults depend."""
    first = ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument(name, type=Path, dest='value')
    value: Path | None = first.parse_known_args(arguments)[0].value
    return value


def _parse(
    kind: type[RunCommand], config: type[RunConfig], path: Path, arguments: list[str]
) -> RunCommand:
    default = kind(output=tyro.MISSING, train=load_config(config, path))
    prog = f'python -m train {kind.__name__.removesuffix("Command").lower()}'
    command: RunCommand = tyro.cli(kind, prog=prog, args=arguments, default=default)
    return command


def _run(command: RunCommand, train: Callable[..., dict[str, Any]]) -> None:
    """Train as told, and print the metrics."""
    from train import distributed
    from train.smoke import generate_scenes, shorten

    config: Any = command.train  # every kind of command has one
    data = command.data
    distributed.start_processes(config.device)
    try:
        if command.smoke:
            config = shorten(config)
            if data is None:
                data = command.output / 'scenes'
                if distributed.is_first():
                    generate_scenes(data)
                distributed.wait_for_all()
        if data is None:
            raise ValueError(
                '--data is missing: a folder of scenes, as `lunar-perception synth` makes'
            )
        metrics = train(config, data, command.output, resume=command.resume)
        if distributed.is_first():
            print(json.dumps(metrics, indent=2))
    finally:
        distributed.stop_processes()


def experiments(arguments: list[str]) -> None:
    """Run `python -m train experiments`."""
    from train.experiments import ExperimentsCommand, run_experiments

    run_experiments(
        tyro.cli(ExperimentsCommand, prog='python -m train experiments', args=arguments)
    )


def terrain(arguments: list[str]) -> None:
    """Run `python -m train terrain`."""
    from train.terrain_command import run_terrain

    run_terrain(arguments)


def tables(arguments: list[str]) -> None:
    """Run `python -m train tables`."""
    from train.tables import print_tables, TablesCommand

    print_tables(tyro.cli(TablesCommand, prog='python -m train tables', args=arguments))


def pictures(arguments: list[str]) -> None:
    """Run `python -m train pictures`."""
    from train.pictures import draw_pictures, PicturesCommand

    draw_pictures(tyro.cli(PicturesCommand, prog='python -m train pictures', args=arguments))


def average(arguments: list[str]) -> None:
    """Run `python -m train average`."""
    from train.shipping import AverageCommand, ship_mean

    ship_mean(tyro.cli(AverageCommand, prog='python -m train average', args=arguments))


COMMANDS = {
    'unified': unified,
    'baseline': baseline,
    'teacher': teacher,
    'experiments': experiments,
    'terrain': terrain,
    'tables': tables,
    'pictures': pictures,
    'average': average,
}


def main() -> int:
    """Run the command that the arguments name; 1 with one line when it can not be done."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(f'usage: python -m train {{{",".join(COMMANDS)}}} --help', file=sys.stderr)
        return 2
    try:
        COMMANDS[sys.argv[1]](sys.argv[2:])
    except (OSError, ValueError, RuntimeError) as error:
        print(f'train: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('train: interrupted; go on with --resume', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
