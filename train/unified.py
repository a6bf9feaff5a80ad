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

"""`python -m train unified`: train the unified network and write what ships of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TYPE_CHECKING

from lunar_perception.atomic import write_json
from lunar_perception.models import UnifiedConfig, UnifiedModel
from lunar_perception.models.checkpoint import assign_weights
from lunar_perception.taxonomy import SKY
import numpy as np
import torch
from torch import Tensor
from train import distributed
from train.batches import Batch
from train.config import LossConfig, TeacherConfig, TrainConfig
from train.critic import adversarial, DepthCritic
from train.distillation import distillation
from train.evaluation import evaluate, figures
from train.loop import fit
from train.losses import upsample_to
from train.networks import build_network, CONFIGS, load_encoder
from train.objective import class_weights, depth_terms, label_terms
from train.setting import prepare, Setting
from train.shipping import ship

if TYPE_CHECKING:
    from train.teacher import Teacher


def train_unified(
    config: TrainConfig,
    data: Path,
    output: Path,
    *,
    resume: bool = False,
    model_config: UnifiedConfig | None = None,
) -> dict[str, Any]:
    """
    Train on the LuSNAR-layout data set at `data`; return the metrics on its held-out scenes.

    `output` gets what `fit` and `ship` write, `config.json` and, with a teacher, `teacher.json`,
    which says its sign. `model_config` stands in for the
    configuration that `config.model` names. Raises what `prepare`, `Teacher.load`, `check_sign`
    and `fit` raise. Under torchrun only the first process writes, and the others return {}.
    """
    if config.loss.distillation and config.teacher.model is None:
        raise ValueError('loss.distillation is set, but no teacher.model to distil from')
    network = model_config or CONFIGS[config.model]()
    network = replace(network, input_size=config.size or network.input_size)
    setting = prepare(config, data, output, network.input_size, resume=resume)
    device = setting.device

    model = build_network(config.model, network)
    if config.encoder:
        load_encoder(model, config.encoder, download=config.download)
    if config.initial:
        start = UnifiedModel.from_pretrained(config.initial, download=config.download)
        assign_weights(model, start.state_dict(), config.initial)
    if config.loss.adversarial:
        model.critic = DepthCritic()

    teacher, maps = None, None
    if config.teacher.model is not None:
        teacher, maps = _load_teacher(config.teacher, setting, output)

    averaged = fit(
        model,
        batches=setting.batches(network.canonical_focal, maps),
        steps=setting.steps,
        loss_terms=make_loss(
            config.loss, setting.share, network.max_depth, device, config.teacher, teacher
        ),
        evaluate=lambda model: figures(evaluate(model, setting.followed)),
        config=config,
        device=device,
        output=output,
        resume=resume,
    )
    if not distributed.is_first():
        return {}
    if config.loss.adversarial:
        del averaged.critic

    return ship(averaged, config, network, setting, output)


def _load_teacher(
    config: TeacherConfig, setting: Setting, output: Path
) -> tuple['Teacher | None', np.ndarray | None]:
    """Return the teacher, to be asked at every step, or its maps of all frames."""
    # Imported late: transformers' registry of networks takes seconds to load.
    from train.teacher import check_sign, Teacher, teacher_maps, teacher_sign

    teacher = Teacher.load(str(config.model), download=config.download).to(setting.device)
    sign = teacher_sign(teacher, setting.frames, setting.train, setting.device)
    line = check_sign(sign, config)
    if distributed.is_first():
        print(line)
        write_json(output / 'teacher.json', {'model': config.model, 'correlation': sign})
    if not config.precompute:
        return teacher, None
    if distributed.is_first():
        teacher_maps(teacher, config, setting.frames, setting.data, setting.device)
    distributed.wait_for_all()
    return None, teacher_maps(teacher, config, setting.frames, setting.data, setting.device)


def make_loss(
    config: LossConfig,
    share: np.ndarray,
    max_depth: float,
    device: torch.device,
    teacher_config: TeacherConfig | None = None,
    teacher: 'Teacher | None' = None,
) -> Callable[[UnifiedModel, Batch], dict[str, Tensor]]:
    """
    Return the function that runs the network on a batch and gives its loss term by term.

    `share` (5,) is each class's share of the training pixels. `teacher` is asked where the batch
    brings no maps of it. The literal form of distillation compares depth / max_depth, the
    inverse form 1 / metres.
    """
    weights = class_weights(config, share, device)
    teacher_config = teacher_config or TeacherConfig()

    def distil(depth: Tensor, batch: Batch) -> Tensor:
        said = teacher(batch.images) if batch.teacher is None else batch.teacher
        # What rotation brought in has no depth, not even an unknown one of the frame's own.
        mask = torch.isfinite(said) & (batch.label != SKY)[:, None] & ~torch.isnan(batch.depth)
        student = depth / max_depth if teacher_config.form == 'literal' else depth
        return distillation(
            student,
            torch.where(mask, said, 0),
            mask,
            alpha=teacher_config.alpha,
            form=teacher_config.form,
        )

    def terms(model: UnifiedModel, batch: Batch) -> dict[str, Tensor]:
        logits, depth, log_scale = model(batch.images)
        found = label_terms(config, logits, batch.label, weights, batch.depth)
        found |= depth_terms(config, depth, log_scale, batch.depth, batch.label, max_depth)
        depth = upsample_to(depth, batch.label.shape[-2:])
        if config.adversarial:
            value = adversarial(model.critic, batch.images, depth, batch.depth)
            found['adversarial'] = config.adversarial * value
        if config.distillation:
            found['distillation'] = config.distillation * distil(depth, batch)
        return found

    return terms
