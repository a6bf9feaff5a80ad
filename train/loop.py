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

"""The training loop: batches in, a trained network out, for any network and loss."""

from collections.abc import Callable
from dataclasses import replace
import json
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import torch
from torch import nn, Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lunar_perception.atomic import write_text
from train.batches import Batch
from train.checkpoint import load_checkpoint, RunState, save_checkpoint
from train.config import TrainConfig
from train.curves import draw_curves
from train.optim import AveragedModel, learning_rate_scale, make_optimizer

LAST, BEST = 'last.safetensors', 'best.safetensors'
LOG_EVERY = 10

Network = TypeVar('Network', bound=nn.Module)


class TrainingError(RuntimeError):
    """A run that can not go on."""


def fit(
    model: Network,
    *,
    batches: Dataset[Batch],
    steps: int | None,
    loss_terms: Callable[[Network, Batch], dict[str, Tensor]],
    evaluate: Callable[[Network], dict[str, float]],
    config: TrainConfig,
    device: torch.device,
    output: Path,
    resume: bool = False,
) -> Network:
    """
    Train `model` and return its averaged copy as it stands after the last step.

    `batches[k]` is the batch of step k. `loss_terms(model, batch)` gives the terms of the loss,
    weighted; they are summed. `evaluate(model)` gives figures of which `score` is to be high.
    `steps` None = for `config.minutes`. `output` gets log.jsonl, curves.png, TensorBoard events
    (where installed), last.safetensors (everything, for `resume`) and best.safetensors (the same
    at the best score).

    Raises TrainingError, naming the batch, when loss or gradient is not finite.
    """
    optimizer_config = config.optimizer
    model.to(device)
    averaged = AveragedModel(model, optimizer_config.ema)
    optimizer = make_optimizer(model, optimizer_config)
    state = RunState()
    if resume:
        state = load_checkpoint(output / LAST, model, averaged, optimizer)
    log = _Log(output, state.step)
    loader: DataLoader[Batch] = DataLoader(
        batches,
        batch_size=None,
        sampler=range(state.step, steps or 10**9),
        num_workers=config.data.workers,
        pin_memory=device.type == 'cuda',
    )
    started = monotonic() - state.seconds
    bar = tqdm(total=steps, initial=state.step, unit='step', smoothing=0.05)

    for batch in loader:
        seconds = monotonic() - started
        progress = state.step / steps if steps else seconds / (60 * (config.minutes or 1))
        if progress >= 1:
            break
        scale = learning_rate_scale(optimizer_config, state.step, progress)
        for group in optimizer.param_groups:
            group['lr'] = group['peak'] * scale

        # Dropout and the like draw from the global generator: a function of the step too.
        torch.manual_seed(config.seed * 1_000_003 + state.step)
        model.train()
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == 'bf16'):
            terms = loss_terms(model, batch)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(
            model.parameters(), optimizer_config.clip or float('inf')
        )
        if not (isfinite(loss.item()) and isfinite(norm.item())):
            raise TrainingError(
                f'step {state.step}: loss {loss.item():g}, gradient {norm.item():g} on frames '
                f'{", ".join(batch.names)}; look at them, or lower optimizer.learning_rate. '
                f'{_last_good(output)}'
            )
        optimizer.step()
        averaged.update(model, state.step)
        state = replace(state, step=state.step + 1, seconds=monotonic() - started)

        bar.update()
        if state.step % LOG_EVERY == 0:
            values = {name: term.item() for name, term in terms.items()}
            log.write(
                state,
                'train',
                loss=loss.item(),
                **values,
                gradient_norm=norm.item(),
                learning_rate=optimizer_config.learning_rate * scale,
            )
            bar.set_postfix_str(_time_left(loss.item(), progress, seconds))
        if state.step % config.evaluate_every == 0 and state.step != steps:
            state = _evaluate_and_save(model, averaged, optimizer, state, evaluate, log, output)
    bar.close()
    _evaluate_and_save(model, averaged, optimizer, state, evaluate, log, output)
    log.close()
    return averaged.model


def _evaluate_and_save(
    model: Network,
    averaged: AveragedModel[Network],
    optimizer: torch.optim.Optimizer,
    state: RunState,
    evaluate: Callable[[Network], dict[str, float]],
    log: '_Log',
    output: Path,
) -> RunState:
    if not all(torch.isfinite(parameter).all() for parameter in model.parameters()):
        raise TrainingError(
            f'step {state.step}: a weight is not finite; lower optimizer.learning_rate. '
            f'{_last_good(output)}'
        )
    figures = evaluate(averaged.model)
    log.write(state, 'held_out', **figures)
    better = figures['score'] > state.best
    state = replace(state, best=max(state.best, figures['score']))
    save_checkpoint(output / LAST, model, averaged, optimizer, state)
    if better:
        save_checkpoint(output / BEST, model, averaged, optimizer, state)
    draw_curves(log.path, output / 'curves.png')
    return state


def _last_good(output: Path) -> str:
    last = output / LAST
    return f'The last good checkpoint is {last}' if last.exists() else 'There is no checkpoint yet'


def _time_left(loss: float, progress: float, seconds: float) -> str:
    left = seconds / progress * (1 - progress) if progress else 0
    return f'loss {loss:.3f}, {left / 60:.0f} min left'


class _Log:
    """log.jsonl, one object a line, and TensorBoard events where it is installed."""

    def __init__(self, output: Path, step: int) -> None:
        output.mkdir(parents=True, exist_ok=True)
        self.path = output / 'log.jsonl'
        # What was logged after the checkpoint that the run goes on from happens again.
        lines = self.path.read_text().splitlines() if step else []
        kept = [line for line in lines if json.loads(line)['step'] <= step]
        write_text(self.path, ''.join(f'{line}\n' for line in kept))
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.board: Any = None
        else:
            self.board = SummaryWriter(str(output / 'tensorboard'), purge_step=step)

    def write(self, state: RunState, part: str, **values: float) -> None:
        row = {'step': state.step, 'seconds': round(state.seconds, 1), 'part': part, **values}
        with self.path.open('a') as file:
            file.write(json.dumps(row) + '\n')
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(f'{part}/{name}', value, state.step)

    def close(self) -> None:
        if self.board:
            self.board.close()
