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

"""What every run needs before its first step: frames, split, batches, held-out frames."""

from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

from lunar_perception.atomic import write_json
import numpy as np
import torch
from train import distributed
from train.batches import TrainingBatches
from train.config import RunConfig
from train.evaluation import HeldOut
from train.frames import Frames, load_frames


@dataclass(frozen=True)
class Setting:
    """
    A run's data and device.

    Fields:
        device: where the network is trained.
        data: folder of the scenes.
        frames: all frames.
        train: indices of those to learn from.
        held_out: those to be scored on, all of them.
        followed: those of them that are scored during the run.
        steps: how long the run is; None = by the clock.

    """

    config: RunConfig
    device: torch.device
    data: Path
    frames: Frames
    train: np.ndarray
    held_out: HeldOut
    followed: HeldOut
    steps: int | None

    @property
    def share(self) -> np.ndarray:
        """Each class's share of the training pixels, (5,)."""
        share: np.ndarray = self.frames.share[self.train].mean(0)
        return share

    def batches(
        self, canonical_focal: float, teacher: np.ndarray | None = None
    ) -> TrainingBatches:
        """Return what `fit` learns from; `teacher` holds a teacher's maps of all frames."""
        data = self.config.data
        return TrainingBatches(
            self.frames,
            self.train,
            size=self.held_out.size,
            batch_size=data.batch_size,
            canonical_focal=canonical_focal,
            augmentation=self.config.augment,
            rare_sampling=data.rare_sampling,
            seed=self.config.seed,
            teacher=teacher,
        )


def prepare(config: RunConfig, data: Path, output: Path, size: int, *, resume: bool) -> Setting:
    """
    Read the LuSNAR-layout data set at `data`, make `output`, write config.json there.

    `size` is the side in pixels of the network's input. Raises FileExistsError when `output`
    holds a run and `resume` is not set, and what `load_frames` and `Frames.split` raise.
    """
    distributed.start_processes(config.device)
    if (output / 'log.jsonl').exists() and not resume:
        raise FileExistsError(f'{output} holds a run; go on with --resume, or name another folder')
    # Every process has looked before the first one writes there.
    distributed.wait_for_all()
    device = _device(config.device)
    options = config.data
    # The first process builds the cache, the others find it there.
    if distributed.is_first():
        load_frames(data, options.cache_size, options.cache)
    distributed.wait_for_all()
    frames = load_frames(data, options.cache_size, options.cache)
    train, test = frames.split(options.held_out, options.left_out)
    batch = options.batch_size * distributed.processes()
    steps = config.steps
    if config.epochs is not None:
        steps = ceil(config.epochs * len(train) / batch)
    if distributed.is_first():
        print(f'{len(train)} frames to train on, {len(test)} held out; {device}, {size} px')
        write_json(output / 'config.json', _plain(asdict(config)))
    held_out = HeldOut(frames, test, size, options.batch_size, device, config.precision)
    followed = held_out.thinned(options.eval_frames)
    torch.manual_seed(config.seed)
    return Setting(config, device, data, frames, train, held_out, followed, steps)


def _device(name: str) -> torch.device:
    if name != 'auto':
        return torch.device(name)
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def _plain(value: object) -> object:
    """Return nested dicts and tuples with paths as text, for JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value
