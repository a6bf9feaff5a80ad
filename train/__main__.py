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
from dataclasses import dataclass
import json
from pathlib import Path
import sys
from typing import Annotated

from train.config import load_config, TrainConfig
import tyro


@dataclass(frozen=True)
class UnifiedCommand:
    """
    Train the unified network on scenes in LuSNAR's layout.

    Params:
        config: YAML file, see train/configs/.
        output: folder of the run.
        data: folder of scenes (Moon_1, …); with --smoke, a few are generated where absent.
        resume: go on from the run's last checkpoint.
        smoke: a few steps through everything.
        train: what the YAML file says, to be overridden.

    """

    config: Path
    output: Path
    train: Annotated[TrainConfig, tyro.conf.arg(name='')]
    data: Path | None = None
    resume: bool = False
    smoke: bool = False


def unified(arguments: list[str]) -> None:
    """Run `python -m train unified`."""
    first = ArgumentParser(add_help=False)
    first.add_argument('--config', type=Path)
    path = first.parse_known_args(arguments)[0].config
    default = load_config(TrainConfig, path) if path else TrainConfig(steps=1)
    command = tyro.cli(
        UnifiedCommand,
        prog='python -m train unified',
        args=arguments,
        default=UnifiedCommand(tyro.MISSING, tyro.MISSING, default),
    )
    # Imported late: --help and a misspelt key should not wait for torch.
    from train.smoke import generate_scenes, shorten
    from train.unified import train_unified

    config, data = command.train, command.data
    if command.smoke:
        config = shorten(config)
        data = data or generate_scenes(command.output / 'scenes')
    if data is None:
        raise ValueError(
            '--data is missing: a folder of scenes, as `lunar-perception synth` makes'
        )
    metrics = train_unified(config, data, command.output, resume=command.resume)
    print(json.dumps(metrics, indent=2))


COMMANDS = {'unified': unified}


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
