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
from copy import deepcopy
from dataclasses import replace
from math import isfinite
from pathlib import Path
from time import monotonic, process_time
from typing import Any, TypeVar

import torch
from torch import nn, Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from train import distributed
from train.batches import Batch
from train.checkpoint import collect, load_checkpoint, RunState, save_checkpoint
from train.config import RunConfig
from train.curves import draw_curves
from train.log import RunLog
from train.optim import AveragedModel, learning_rate_scale, make_optimizer

LAST, BEST = 'last.safetensors', 'best.safetensors'
LOG_EVERY = 10

Network = TypeVar('Network', bound=nn.Module)


class TrainingError(RuntimeError):
    """A run that can not go on."""


class _Step(nn.Module):
    """A network and its loss in one forward pass, as DDP wants it."""

    def __init__(
        self, model: nn.Module, loss_terms: Callable[[Any, Batch], dict[str, Tensor]]
    ) -> None:
        super().__init__()
        self.model, self.loss_terms = model, loss_terms

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.loss_terms(self.model, batch)


def fit(
    model: Network,
    *,
    batches: Dataset[Batch],
    steps: int | None,
    loss_terms: Callable[[Network, Batch], dict[str, Tensor]],
    evaluate: Callable[[Network], dict[str, float]],
    config: RunConfig,
    device: torch.device,
    output: Path,
    resume: bool = False,
) -> Network:
    """
    Train `model` and return its averaged copy as it stands after the last step.

    `batches[k]` is this process's part of the batch of step k. `loss_terms(model, batch)` gives
    the terms of the loss, weighted; they are summed. `evaluate(model)` gives figures of which
    `score` is to be high. `steps` None = for `config.minutes`. `output` gets log.jsonl,
    curves.png, TensorBoard events (where installed), last.safetensors (everything, for `resume`)
    and best.safetensors (the same at the best score), all from the first process.

    Raises TrainingError, naming the batch, when loss or gradient is not finite.
    """
    optimizer_config = config.optimizer
    if distributed.processes() > 1:
        distributed.share_batch_norm(model)
    model.to(device)
    averaged = AveragedModel(model, optimizer_config.ema)
    sharded = config.shard and distributed.processes() > 1
    # What is evaluated and returned: the averages, put together again where they are split.
    gathers = sharded and distributed.is_first()
    finished = deepcopy(averaged.model) if gathers else averaged.model
    if sharded:
        distributed.shard_weights(model)
        distributed.shard_weights(averaged.model)
    optimizer = make_optimizer(model, optimizer_config)
    state = RunState()
    if resume:
        state = load_checkpoint(output / LAST, model, averaged, optimizer)
    step_module = distributed.synchronised(_Step(model, loss_terms), sharded=sharded)
    log = RunLog(output, state.step, config) if distributed.is_first() else None
    loader: DataLoader[Batch] = DataLoader(
        batches,
        batch_size=None,
        sampler=range(state.step, steps or 10**9),
        num_workers=config.data.workers,
        pin_memory=device.type == 'cuda',
    )
    clock = process_time if config.clock == 'process' else monotonic
    started = clock() - state.seconds
    bar = tqdm(
        total=steps,
        initial=state.step,
        unit='step',
        smoothing=0.05,
        disable=not distributed.is_first(),
    )

    def evaluate_and_save(state: RunState) -> RunState:
        if not all(torch.isfinite(distributed.local(p)).all() for p in model.parameters()):
            bar.close()  # so that the error gets a line of its own
            raise TrainingError(
                f'step {state.step}: a weight is not finite; lower optimizer.learning_rate. '
                f'{_last_good(output)}'
            )
        tensors = collect(model, averaged, optimizer)
        if log is not None:
            if sharded:
                finished.load_state_dict(
                    {n[9:]: t for n, t in tensors.items() if n.startswith('averaged.')}
                )
            figures = evaluate(finished)
            log.write(state, 'held_out', **figures)
            better = figures['score'] > state.best
            state = replace(state, best=max(state.best, figures['score']))
            save_checkpoint(output / LAST, tensors, state)
            if better:
                save_checkpoint(output / BEST, tensors, state)
            draw_curves(log.path, output / 'curves.png')
        distributed.wait_for_all()
        return state

    for batch in loader:
        seconds = clock() - started
        progress = state.step / steps if steps else seconds / (60 * (config.minutes or 1))
        if not steps:  # clocks differ; all processes must stop at one step
            progress = distributed.from_first(progress, device)
        if progress >= 1:
            break
        scale = learning_rate_scale(optimizer_config, state.step, progress)
        for group in optimizer.param_groups:
            group['lr'] = group['peak'] * scale

        # Dropout and the like draw from the global generator: a function of the step too.
        torch.manual_seed(config.seed * 1_000_003 + state.step + 7919 * distributed.rank())
        model.train()
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == 'bf16'):
            terms = step_module(batch)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = distributed.whole(
            torch.nn.utils.clip_grad_norm_(
                model.parameters(), optimizer_config.clip or float('inf')
            )
        )
        if not (isfinite(loss.item()) and isfinite(norm.item())):
            bar.close()
            raise TrainingError(
                f'step {state.step}: loss {loss.item():g}, gradient {norm.item():g} on frames '
                f'{", ".join(batch.names)}; look at them, or lower optimizer.learning_rate. '
                f'{_last_good(output)}'
            )
        optimizer.step()
        averaged.update(model, state.step)
        state = replace(state, step=state.step + 1, seconds=clock() - started)

        bar.update()
        if state.step % LOG_EVERY == 0:
            terms = {name: distributed.mean_over_processes(t) for name, t in terms.items()}
            values = {name: term.item() for name, term in terms.items()}
            total = sum(values.values())
            if log is not None:
                log.write(
                    state,
                    'train',
                    loss=total,
                    **values,
                    gradient_norm=norm.item(),
                    learning_rate=optimizer_config.learning_rate * scale,
                )
            bar.set_postfix_str(_time_left(total, progress, seconds))
        if state.step % config.evaluate_every == 0 and state.step != steps:
            state = evaluate_and_save(state)
    bar.close()
    evaluate_and_save(state)
    if log is not None:
        log.close()
    return finished


def _last_good(output: Path) -> str:
    last = output / LAST
    return f'The last good checkpoint is {last}' if last.exists() else 'There is no checkpoint yet'


def _time_left(loss: float, progress: float, seconds: float) -> str:
    left = seconds / progress * (1 - progress) if progress else 0
    return f'loss {loss:.3f}, {left / 60:.0f} min left'
