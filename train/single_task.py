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

"""`python -m train baseline` and `python -m train teacher`: networks of one task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lunar_perception.atomic import atomic_path, write_json
from safetensors.torch import load_file, save_file
from torch import Tensor
from train import distributed
from train.baselines import Baseline, build_baseline, RelativeDepth
from train.batches import Batch, IMAGENET_MEAN, IMAGENET_STD
from train.config import BaselineConfig, BaselineName, LossConfig, TeacherRunConfig
from train.evaluation import evaluate, figures
from train.loop import fit
from train.objective import class_weights
from train.setting import prepare, Setting
from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

SIZE = 224
WEIGHTS = 'weights.safetensors'


def train_baseline(
    config: BaselineConfig, data: Path, output: Path, *, resume: bool = False
) -> dict[str, Any]:
    """
    Train a baseline on the data set at `data`; return the metrics on its held-out scenes.

    `output` gets what `fit` writes, `config.json`, `weights.safetensors` and `metrics.json`, in
    which what the network does not say is null. Raises what `prepare`, `build_baseline` and `fit`
    raise. Under torchrun only the first process writes, and the others return {}.
    """
    size = config.size or SIZE
    setting = prepare(config, data, output, size, resume=resume)
    trained = _fit(build_baseline(config.network, size), setting, config.loss, output, resume)
    if not distributed.is_first():
        return {}
    tensors = {name: tensor.contiguous() for name, tensor in trained.state_dict().items()}
    with atomic_path(output / WEIGHTS) as temporary:
        save_file(tensors, temporary)
    return _finish(trained, setting, output)


def load_baseline(name: BaselineName, size: int, run: Path) -> Baseline:
    """Return the network that a run left behind, set to evaluation."""
    model = build_baseline(name, size)
    model.load_state_dict(load_file(run / WEIGHTS))
    return model.eval()


def train_teacher(
    config: TeacherRunConfig, data: Path, output: Path, *, resume: bool = False
) -> dict[str, Any]:
    """
    Train a DPT to affine-invariant inverse depth; return the metrics on the held-out scenes.

    Its scenes should not be those that the student is scored on. `weights/` in `output` is a
    folder that `teacher.model` takes, as any of transformers' depth networks; the rest is as
    `train_baseline` leaves it. Depth is scored after alignment to the truth.
    """
    size = config.size or SIZE
    setting = prepare(config, data, output, size, resume=resume)
    model = RelativeDepth(DPTForDepthEstimation(teacher_shape(config, size)))
    trained = _fit(model, setting, LossConfig(), output, resume)
    if not distributed.is_first():
        return {}
    trained.network.save_pretrained(output / 'weights')
    DPTImageProcessor(
        size={'height': size, 'width': size},
        image_mean=IMAGENET_MEAN.tolist(),
        image_std=IMAGENET_STD.tolist(),
    ).save_pretrained(output / 'weights')
    return _finish(trained, setting, output)


def teacher_shape(config: TeacherRunConfig, size: int) -> DPTConfig:
    """Return the DPT (arXiv 2103.13413) configured; ValueError for a size it does not take."""
    if size % 32:
        raise ValueError(f'a DPT takes images whose side is a multiple of 32, not {size}')
    layers, neck = config.layers, config.neck
    return DPTConfig(
        hidden_size=config.hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.hidden_size,
        image_size=size,
        backbone_out_indices=[layers * i // 4 - 1 for i in (1, 2, 3, 4)],
        neck_hidden_sizes=[neck, 2 * neck, 4 * neck, 4 * neck],
        fusion_hidden_size=neck,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def _fit(
    model: Baseline, setting: Setting, loss: LossConfig, output: Path, resume: bool
) -> Baseline:
    return fit(
        model,
        batches=setting.batches(model.config.canonical_focal),
        steps=setting.steps,
        loss_terms=_make_loss(loss, setting),
        evaluate=lambda model: figures(evaluate(model, setting.followed)),
        config=setting.config,
        device=setting.device,
        output=output,
        resume=resume,
    )


def _make_loss(
    config: LossConfig, setting: Setting
) -> Callable[[Baseline, Batch], dict[str, Tensor]]:
    weights = class_weights(config, setting.share, setting.device)
    return lambda model, batch: model.terms(batch, config, weights)


def _finish(model: Baseline, setting: Setting, output: Path) -> dict[str, Any]:
    metrics = evaluate(model.to(setting.device), setting.held_out)
    write_json(output / 'metrics.json', metrics)
    return metrics
