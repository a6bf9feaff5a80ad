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

"""The command line of `python -m train terrain`."""

from argparse import ArgumentParser
from dataclasses import dataclass
from datetime import date
import json
from pathlib import Path
from typing import Annotated, Any

from lunar_perception.atomic import write_json
from lunar_perception.machine import hardware, versions
from train.config import load_config
from train.terrain_config import TerrainTrainConfig
import tyro

CONFIGS = Path(__file__).resolve().parent / 'configs'


@dataclass(frozen=True, kw_only=True)
class TerrainCommand:
    """
    Train the Mars terrain network, or compare it with what it is compared with in the paper.

    Params:
        config: YAML file, see train/configs/terrain*.yaml.
        data: folder of crops: HiRISE v3 or v3.2, Mars-Bench, or one folder a class.
        output: folder of the run, or of the comparison's runs.
        resume: go on from the run's last checkpoint.
        describe: print parameters, GFLOP and milliseconds beside the paper's Table 2, and leave.
        study: train the ablation's four rows, U-Net and DeepLabV3+ instead, as far as `output`
            does not hold them yet, and print the paper's Tables 1 and 3 beside ours.
        rows: of the study, only these.
        seeds: runs of each row of the study.
        record: JSON file for the figures, with what they were measured on.
        train: what the YAML file says, to be overridden.

    """

    train: Annotated[TerrainTrainConfig, tyro.conf.arg(name='')]
    config: Path | None = None
    data: Path | None = None
    output: Path | None = None
    resume: bool = False
    describe: bool = False
    study: bool = False
    rows: tuple[str, ...] = ()
    seeds: int = 3
    record: Path | None = None


def run_terrain(arguments: list[str]) -> None:
    """Run `python -m train terrain`; ValueError for what is missing."""
    first = ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument('--config', type=Path, default=CONFIGS / 'terrain.yaml')
    default = load_config(TerrainTrainConfig, first.parse_known_args(arguments)[0].config)
    command = tyro.cli(
        TerrainCommand,
        prog='python -m train terrain',
        args=arguments,
        default=TerrainCommand(train=default),
    )
    # Imported late: --help and a misspelt key should not wait for torch.
    if command.describe:
        from train.terrain_cost import describe_networks

        print(describe_networks(command.train))
        return
    if command.data is None or command.output is None:
        missing = '--data' if command.data is None else '--output'
        raise ValueError(f'{missing} is missing: see python -m train terrain --help')
    if command.study:
        from train.terrain_study import run_study
        from train.terrain_tables import tables

        found = run_study(command.train, command.data, command.output, command.seeds, command.rows)
        print(tables(found))
    else:
        from train.terrain import train_terrain

        found = train_terrain(command.train, command.data, command.output, resume=command.resume)
        print(json.dumps(found, indent=2))
    if command.record is not None:
        write_record(command.record, arguments, found)


def write_record(path: Path, arguments: list[str], found: dict[str, Any]) -> None:
    """Write figures beside date, command, hardware and versions; of folders only the names."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in arguments]
    write_json(
        path,
        {
            'date': date.today().isoformat(),
            'command': ' '.join(['python', '-m', 'train', 'terrain', *words]),
            'hardware': hardware(),
            'versions': versions(),
            'results': found,
        },
    )
