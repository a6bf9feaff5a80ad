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

"""From a trained network, or the mean of several, to what ships: balanced, calibrated, scored."""

from dataclasses import dataclass, replace
import json
from math import isclose
from pathlib import Path
from typing import Any

from lunar_perception.atomic import write_json
from lunar_perception.models import UnifiedConfig, UnifiedModel
from lunar_perception.reference_rows import PositionPrior
import numpy as np
import torch
from torch import Tensor
from train.config import load_config, TrainConfig
from train.evaluation import calibrate, evaluate
from train.label_balance import balanced_offsets
from train.networks import build_network, load_network
from train.setting import prepare, Setting

PRIOR = 'position_prior.png'
CALIBRATION_FRAMES = 200


def ship(
    model: UnifiedModel,
    config: TrainConfig,
    network: UnifiedConfig,
    setting: Setting,
    output: Path,
) -> dict[str, Any]:
    """
    Write what ships of a trained `model` of shape `network`; return its metrics when held out.

    With `config.balance_labels` its labels are balanced, in place. `output` gets `weights/`
    (config.json and fp16 model.safetensors, calibrated, and the training labels' position prior)
    and `metrics.json`.
    """
    held_out = setting.held_out
    few = held_out.thinned(CALIBRATION_FRAMES)
    if config.balance_labels:
        offsets = balanced_offsets(few.predictions(model))
        with torch.no_grad():
            model.segmentation_head[-1].bias += offsets.to(setting.device)
    temperature, uncertainty_scale = calibrate(model, few)
    network = replace(network, temperature=temperature, uncertainty_scale=uncertainty_scale)
    shipped = build_network(config.model, network)
    shipped.load_state_dict(model.state_dict())
    shipped.save_pretrained(output / 'weights', half=True)
    # Places mean something only through one camera: the canonical one's, where there are frames.
    frames, train = setting.frames, setting.train
    usual = train[np.isclose(frames.focal[train], network.canonical_focal, rtol=1e-3)]
    prior = PositionPrior.fit(frames.label[i] for i in (usual if len(usual) else train))
    prior.save(output / 'weights' / PRIOR)
    scored = load_network(config.model, output / 'weights').to(setting.device)
    metrics = evaluate(scored, held_out)
    write_json(output / 'metrics.json', metrics)
    return metrics


@dataclass(frozen=True, kw_only=True)
class AverageCommand:
    """
    Ship the mean of networks that were trained on from the same weights.

    Params:
        checkpoints: their folders.
        shares: what each counts for, together 1; alike when there are none.
        config: YAML file, whose `data` and `balance_labels` count.
        data: folder of scenes, to calibrate and score on those held out.
        output: folder of what is written, as of a training run.
    """

    checkpoints: tuple[Path, ...]
    shares: tuple[float, ...] = ()
    config: Path
    data: Path
    output: Path


def ship_mean(command: AverageCommand) -> dict[str, Any]:
    """
    Do as told; print and return the metrics on the held-out scenes.

    Raises ValueError when shares and checkpoints do not fit, or checkpoints not one another, and
    what `prepare` and `load_network` raise.
    """
    names = command.checkpoints
    shares = command.shares or (1 / len(names),) * len(names)
    if len(shares) != len(names) or not isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(f'--shares {shares} must be one a checkpoint, and 1 together')
    config = load_config(TrainConfig, command.config)
    models = [load_network(config.model, folder) for folder in names]
    mean = averaged(models, shares)
    size = config.size or mean.config.input_size
    setting = prepare(config, command.data, command.output, size, resume=False)
    metrics = ship(mean.to(setting.device), config, mean.config, setting, command.output)
    print(json.dumps(metrics, indent=2))
    return metrics


def averaged(models: list[UnifiedModel], shares: tuple[float, ...]) -> UnifiedModel:
    """
    Return the first model with the mean of all weights, each counting for its share, in place.

    Counts, such as BatchNorm's of batches, stay the first one's. Raises ValueError when the
    networks are not of one shape.
    """
    first = models[0]
    shapes = [replace(m.config, temperature=1.0, uncertainty_scale=1.0) for m in models]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError('the checkpoints are not of one shape of network')
    states = [model.state_dict() for model in models]

    def mean(name: str, value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        parts = [s * state[name] for s, state in zip(shares, states, strict=True)]
        return torch.stack(parts).sum(0)

    first.load_state_dict({name: mean(name, value) for name, value in states[0].items()})
    return first
