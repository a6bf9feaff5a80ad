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

"""The state of a run in one safetensors file: weights, averages, optimiser, step."""

from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

from lunar_perception.atomic import atomic_path
from safetensors import safe_open
from safetensors.torch import save_file
import torch
from torch import nn, Tensor
from train.distributed import is_first, split_like, whole
from train.optim import AveragedModel


@dataclass(frozen=True)
class RunState:
    """
    What a run goes on from, besides tensors.

    No random state is among it: batches and dropout are functions of seed and step.

    Fields:
        step: steps done.
        seconds: time spent on them.
        best: best score of an evaluation so far.

    """

    step: int = 0
    seconds: float = 0.0
    best: float = float('-inf')


def collect(
    model: nn.Module, averaged: AveragedModel[Any], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """
    Return every tensor of the state, by name, on the CPU in memory of its own.

    Where weights are split among processes all must ask, and only the first gets them.
    """
    tensors = {f'model.{name}': tensor for name, tensor in model.state_dict().items()}
    tensors |= {f'averaged.{name}': t for name, t in averaged.model.state_dict().items()}
    for i, values in optimizer.state_dict()['state'].items():
        tensors |= {f'optimizer.{i}.{name}': tensor for name, tensor in values.items()}
    collected = {}
    for name, tensor in tensors.items():
        tensor = whole(tensor).detach()
        if is_first():
            # safetensors refuses tensors that share memory or are strided.
            collected[name] = tensor.cpu().contiguous().clone()
    return collected


def save_checkpoint(path: Path, tensors: dict[str, Tensor], state: RunState) -> None:
    """Write the whole state; the file at `path` is either the old one or the new one."""
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={'state': json.dumps(vars(state))})


def load_checkpoint(
    path: Path, model: nn.Module, averaged: AveragedModel[Any], optimizer: torch.optim.Optimizer
) -> RunState:
    """
    Load what `save_checkpoint` wrote into the three, and return the rest.

    Raises FileNotFoundError when there is none, ValueError when it is of another network.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist; start without --resume')
    parts: dict[str, dict[str, Tensor]] = {'model': {}, 'averaged': {}, 'optimizer': {}}
    with safe_open(path, framework='pt') as file:
        state = RunState(**json.loads(file.metadata()['state']))
        for key in file.keys():  # noqa: SIM118 (not a mapping)
            part, _, name = key.partition('.')
            parts[part][name] = file.get_tensor(key)
    try:
        _load(model, parts['model'])
        _load(averaged.model, parts['averaged'])
    except RuntimeError as error:
        raise ValueError(f'{path} is a checkpoint of another network: {error}') from error
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in parts['optimizer'].items():
        number, _, name = key.partition('.')
        i = int(number)
        moments.setdefault(i, {})[name] = split_like(tensor, parameters[i])
    optimizer.load_state_dict({**optimizer.state_dict(), 'state': moments})
    return state


def _load(model: nn.Module, weights: dict[str, Tensor]) -> None:
    own = model.state_dict()
    model.load_state_dict(
        {name: split_like(value, own.get(name, value)) for name, value in weights.items()}
    )
