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

"""What a run says of itself as it goes: JSON lines, TensorBoard, Weights & Biases."""

from dataclasses import asdict
import json
from pathlib import Path
from typing import Any

from lunar_perception.atomic import write_text
from train.checkpoint import RunState
from train.config import RunConfig


class RunLog:
    """
    log.jsonl, one object a line; TensorBoard events where it is installed; wandb where asked for.

    Opened at step 0 it starts anew, at a later one it goes on from there. Raises ValueError when
    `config.wandb_project` is set and wandb is not installed.
    """

    def __init__(self, output: Path, step: int, config: RunConfig) -> None:
        output.mkdir(parents=True, exist_ok=True)
        self.path = output / 'log.jsonl'
        # What was logged after the checkpoint that the run goes on from happens again.
        lines = self.path.read_text().splitlines() if step else []
        kept = [line for line in lines if json.loads(line)['step'] <= step]
        write_text(self.path, ''.join(f'{line}\n' for line in kept))
        self.wandb = _start_wandb(config, output)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.board: Any = None
        else:
            self.board = SummaryWriter(str(output / 'tensorboard'), purge_step=step)

    def write(self, state: RunState, part: str, **values: float) -> None:
        """Add figures of the `part` 'train' or 'held_out'."""
        row = {'step': state.step, 'seconds': round(state.seconds, 1), 'part': part, **values}
        with self.path.open('a') as file:
            file.write(json.dumps(row) + '\n')
        named = {f'{part}/{name}': value for name, value in values.items()}
        if self.board:
            for name, value in named.items():
                self.board.add_scalar(name, value, state.step)
        if self.wandb:
            self.wandb.log(named, step=state.step)

    def close(self) -> None:
        """Flush and finish."""
        if self.board:
            self.board.close()
        if self.wandb:
            self.wandb.finish()


def _start_wandb(config: RunConfig, output: Path) -> Any:
    if config.wandb_project is None:
        return None
    try:
        import wandb
    except ImportError:
        raise ValueError(
            'wandb_project is set, but wandb is not installed; install it, or leave the key out'
        ) from None
    return wandb.init(
        project=config.wandb_project,
        name=output.name,
        dir=output,
        config=asdict(config),
        id=output.name,
        resume='allow',
    )
