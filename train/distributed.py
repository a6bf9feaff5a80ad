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
Several processes that train one network, as torchrun starts them.

Every process takes its share of each batch. What a loss averages over (pixels, frames, classes
present) is counted over all of them, and BatchNorm sees the whole batch, so that N processes of
batch size B take the steps of one process of batch size N · B. In a lone process everything
here is a no-op.

Either every process holds the whole network (DDP), or each a part of its weights, gradients,
averages and moments (FSDP2): such tensors are DTensors, which `whole` and `local` see through.
"""

from datetime import timedelta
import os
from typing import Any

import torch
from torch import distributed, nn, Tensor
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(hours=2)
"""How long processes wait for the first one, which alone evaluates and saves."""


def start_processes(device: str) -> None:
    """
    Join the other processes if torchrun started this one; else do nothing.

    `device` is the configured one: gloo connects CPUs, NCCL GPUs, one a process.
    """
    if 'RANK' not in os.environ or distributed.is_initialized():
        return
    on_gpu = device != 'cpu' and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', '0')))
    distributed.init_process_group('nccl' if on_gpu else 'gloo', timeout=PATIENCE)


def stop_processes() -> None:
    """Leave the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def processes() -> int:
    """Return how many train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return which of them this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Return whether this process evaluates, saves and talks."""
    return rank() == 0


def wait_for_all() -> None:
    """Return when every process is here."""
    if processes() > 1:
        distributed.barrier()


def mean_over_processes(value: Tensor) -> Tensor:
    """Return `value` averaged over the processes, without gradient."""
    value = value.detach()
    if processes() > 1:
        value = value.clone()
        distributed.all_reduce(value)
        value /= processes()
    return value


def from_first(value: float, device: torch.device) -> float:
    """Return the first process's `value`."""
    if processes() == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.broadcast(tensor, 0)
    return tensor.item()


def gathered(value: Tensor) -> Tensor:
    """
    Return the batch of all processes, joined along the first axis, from this one's part.

    All parts must have one shape. A loss of the whole, which every process then computes alike,
    has in each process the gradient of its own part, times the number of processes: averaging
    divides by that again.
    """
    count = processes()
    if count == 1:
        return value
    parts = [torch.empty_like(value) for _ in range(count)]
    distributed.all_gather(parts, value.detach().contiguous())
    parts[rank()] = value
    if value.is_floating_point():
        parts[rank()] = value + (count - 1) * (value - value.detach())
    return torch.cat(parts)


class _Mean(torch.autograd.Function):
    """The mean over the processes of values that each has its own of, with gradients."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return mean_over_processes(value)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        # Every process's loss depends on every process's value.
        return mean_over_processes(gradient)


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm over the batch of all processes, on any device (SyncBatchNorm needs a GPU)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or processes() == 1:
            return super().forward(x)
        axes = (0, 2, 3)
        mean = _Mean.apply(x.float().mean(axes))
        centred = x.float() - mean[:, None, None]
        variance = _Mean.apply(centred.square().mean(axes))
        with torch.no_grad():
            count = x.numel() // x.shape[1] * processes()
            unbiased = variance * (count / max(count - 1, 1))
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        x = centred * scale[:, None, None] + self.bias[:, None, None]
        return x


def share_batch_norm(model: nn.Module) -> None:
    """Turn every BatchNorm2d inside `model` into a shared one, parameters kept; in place."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm


def shard_weights(model: nn.Module) -> None:
    """
    Split the parameters of `model` among the processes (FSDP2); in place.

    The transformer's MLPs, two thirds of its weights, are gathered one by one; the rest together,
    as the encoder reads its blocks' position tables outside of the blocks.
    """
    # Imported late, here and below: it takes seconds, and few runs need it.
    from torch.distributed.fsdp import fully_shard

    encoder = getattr(model, 'encoder', None)
    for block in getattr(encoder, 'blocks', ()):
        fully_shard(block.mlp)
    fully_shard(model)


def synchronised(module: nn.Module, *, sharded: bool) -> nn.Module:
    """Return `module` so that its backward pass averages gradients over the processes."""
    if processes() == 1 or sharded:  # FSDP2 does so by itself
        return module
    return DistributedDataParallel(module, broadcast_buffers=False)


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor that may be split; every process must ask."""
    return tensor.full_tensor() if _is_split(tensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor that may be split, sharing its memory."""
    return tensor.to_local() if _is_split(tensor) else tensor


def split_like(value: Tensor, model: Tensor) -> Tensor:
    """Return the whole tensor `value` split as `model` is, if it is."""
    if _is_split(model) and value.shape == model.shape:
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value.to(model.device), model.device_mesh, model.placements)
    return value


def _is_split(tensor: Tensor) -> bool:
    return hasattr(tensor, 'full_tensor')
