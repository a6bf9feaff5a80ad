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
from dataclasses import asdict, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lunar_perception.atomic import write_json
from lunar_perception.models import UnifiedConfig, UnifiedModel
from lunar_perception.models.checkpoint import assign_weights
from lunar_perception.reference_rows import PositionPrior
from train import losses
from train.batches import Batch, TrainingBatches
from train.config import LossConfig, TrainConfig
from train.evaluation import calibrate, evaluate, figures, HeldOut
from train.frames import load_frames
from train.loop import fit

PRIOR = 'position_prior.png'
CALIBRATION_FRAMES = 200


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

    `output` gets what `fit` writes, `config.json`, `weights/` (config.json and fp16
    model.safetensors, calibrated, and the training labels' position prior), and `metrics.json`.
    `model_config` stands in for the configuration that `config.model` names. Raises
    FileExistsError when `output` holds a run and `resume` is not set, and what `load_frames`
    and `fit` raise.
    """
    if (output / 'log.jsonl').exists() and not resume:
        raise FileExistsError(f'{output} holds a run; go on with --resume, or name another folder')
    device = _device(config.device)
    network = model_config or getattr(UnifiedConfig, config.model)()
    network = replace(network, input_size=config.size or network.input_size)
    size, focal = network.input_size, network.canonical_focal

    frames = load_frames(data, config.data.cache_size, config.data.cache)
    train, test = frames.split(config.data.held_out)
    print(f'{len(train)} frames to train on, {len(test)} held out; {device}, {size} px')
    write_json(output / 'config.json', _plain(asdict(config)))

    torch.manual_seed(config.seed)
    model = UnifiedModel(network)
    if config.encoder:
        model.encoder.load_pretrained(config.encoder, download=config.download)
    if config.initial:
        start = UnifiedModel.from_pretrained(config.initial, download=config.download)
        assign_weights(model, start.state_dict(), config.initial)
    batches = TrainingBatches(
        frames,
        train,
        size=size,
        batch_size=config.data.batch_size,
        canonical_focal=focal,
        augmentation=config.augment,
        rare_sampling=config.data.rare_sampling,
        seed=config.seed,
    )
    steps = config.steps
    if config.epochs is not None:
        steps = ceil(config.epochs * len(train) / config.data.batch_size)

    held_out = HeldOut(frames, test, size, config.data.batch_size, device, config.precision)
    followed = held_out.thinned(config.data.eval_frames)

    averaged = fit(
        model,
        batches=batches,
        steps=steps,
        loss_terms=make_loss(config.loss, frames.share[train].mean(0), network.max_depth, device),
        evaluate=lambda model: figures(evaluate(model, followed)),
        config=config,
        device=device,
        output=output,
        resume=resume,
    )

    temperature, uncertainty_scale = calibrate(averaged, held_out.thinned(CALIBRATION_FRAMES))
    network = replace(network, temperature=temperature, uncertainty_scale=uncertainty_scale)
    shipped = UnifiedModel(network)
    shipped.load_state_dict(averaged.state_dict())
    shipped.save_pretrained(output / 'weights', half=True)
    # Places mean something only through one camera: the canonical one's, where there are frames.
    usual = train[np.isclose(frames.focal[train], focal, rtol=1e-3)]
    prior = PositionPrior.fit(frames.label[i] for i in (usual if len(usual) else train))
    prior.save(output / 'weights' / PRIOR)
    metrics = evaluate(UnifiedModel.from_pretrained(output / 'weights').to(device), held_out)
    write_json(output / 'metrics.json', metrics)
    return metrics


def make_loss(
    config: LossConfig, share: np.ndarray, max_depth: float, device: torch.device
) -> Callable[[UnifiedModel, Batch], dict[str, Tensor]]:
    """
    Return the function that runs the network on a batch and gives its loss term by term.

    `share` (5,) is each class's share of the training pixels.
    """
    balance = np.maximum(share, 1e-4) ** -config.class_balance
    class_weights = torch.tensor(balance / (balance @ share), dtype=torch.float32, device=device)

    def terms(model: UnifiedModel, batch: Batch) -> dict[str, Tensor]:
        truth, size = batch.depth, batch.label.shape[-2:]
        logits, depth, log_scale = model(batch.images)
        logits, depth = losses.upsample_to(logits, size), losses.upsample_to(depth, size)
        found: dict[str, Callable[[], Tensor]] = {
            'cross_entropy': lambda: losses.cross_entropy(logits, batch.label, class_weights),
            # Logits come from stride 2: every second pixel says it all and sorts faster.
            'lovasz': lambda: losses.lovasz_softmax(
                logits[..., ::2, ::2], batch.label[..., ::2, ::2]
            ),
            'l1': lambda: losses.l1_depth(depth / max_depth, _unit(truth, max_depth)),
            'silog': lambda: losses.silog(depth, truth),
            'gradient': lambda: losses.gradient_matching(depth, truth),
            'laplace': lambda: losses.laplace_nll(
                depth, losses.upsample_to(log_scale, size), truth
            ),
        }
        return {
            name: getattr(config, name) * term()
            for name, term in found.items()
            if getattr(config, name) and not (name == 'laplace' and log_scale is None)
        }

    return terms


def _unit(truth: Tensor, max_depth: float) -> Tensor:
    """Return depth clipped to max_depth and divided by it; what is not finite stays so."""
    return torch.where(torch.isfinite(truth), (truth / max_depth).clamp(max=1), truth)


def _device(name: str) -> torch.device:
    if name != 'auto':
        return torch.device(name)
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def _plain(value: object) -> object:
    """Return nested dicts and tuples with paths as text, for JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value
