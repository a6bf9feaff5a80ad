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

"""The whole path in a minute or two: a few generated frames, a few steps."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from lunar_perception.synthetic import generate_scene, MoonConfig
from train.config import RunConfig, TeacherConfig, TrainConfig

Config = TypeVar('Config', bound=RunConfig)

SCENES, FRAMES, SIZE = 3, 3, 256


def generate_scenes(folder: Path) -> Path:
    """Write the scenes to `folder`, keeping what is there; return it."""
    for number in range(1, SCENES + 1):
        config = MoonConfig(seed=number, size=SIZE, mount=None)
        generate_scene(folder / f'Moon_{number}', config, FRAMES, resume=True)
    return folder


def shorten(config: Config) -> Config:
    """Return `config` cut to a few small steps, from random weights and without a teacher."""
    short = replace(
        config,
        size=224,
        epochs=None,
        steps=8,
        minutes=None,
        evaluate_every=4,
        data=replace(
            config.data,
            cache_size=256,
            batch_size=2,
            workers=0,
            eval_frames=4,
            held_out=(),
            left_out=(),
        ),
        optimizer=replace(config.optimizer, warmup_steps=2),
    )
    if isinstance(short, TrainConfig):
        loss = replace(short.loss, distillation=0.0)
        return replace(short, initial=None, encoder=None, teacher=TeacherConfig(), loss=loss)
    return short
