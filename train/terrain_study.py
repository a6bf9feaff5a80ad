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

"""The paper's Tables 1 and 3 beside ours, over several seeds."""

from collections.abc import Sequence
from dataclasses import replace
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from lunar_perception.atomic import write_json
from lunar_perception.models.terrain import ABLATION, TerrainModel
from lunar_perception.taxonomy import HIRISE_LANDMARKS
import numpy as np
import torch
from torch import nn, Tensor
from train.config import config_from_dict
from train.loop import LAST
from train.terrain import class_logits, read_images, score, split, train_terrain
from train.terrain_config import TerrainTrainConfig
from train.terrain_pictures import draw_confusion, draw_failures


def rows_of(config: TerrainTrainConfig) -> dict[str, TerrainTrainConfig]:
    """Return the paper's ablation and baselines around `config`, one backbone and protocol."""
    encoder = f'tu-{config.backbone}'  # timm's backbones in segmentation-models-pytorch
    ours = {
        name: replace(
            config,
            attention=changes['channel_attention'],
            segmentation_head=changes['segmentation_head'],
        )
        for name, changes in ABLATION.items()
    }
    return {
        **ours,
        'U-Net': replace(config, network='unet', backbone=encoder, initial=None),
        'DeepLabV3+': replace(config, network='deeplabv3plus', backbone=encoder, initial=None),
    }


def run_study(
    config: TerrainTrainConfig, data: Path, output: Path, seeds: int, names: tuple[str, ...] = ()
) -> dict[str, Any]:
    """
    Train each row with each seed, as far as that is not done yet; return and write the figures.

    `names` picks rows; none = all. `output` gets a folder a run, `study.json`, and of the full
    network `confusion.png`, over all its runs, and `failures.png` in its first. Raises
    ValueError for an unknown row, and what `train_terrain` raises.
    """
    rows = rows_of(config)
    for name in names:
        if name not in rows:
            raise ValueError(f"unknown row '{name}'; there are {', '.join(rows)}")
    for seed in range(seeds):
        for name in names or rows:
            run = output / f'{name.replace(" ", "_")}-{seed}'
            if not (run / 'metrics.json').exists():
                started = (run / LAST).exists()
                if not started:  # interrupted before its first checkpoint
                    (run / 'log.jsonl').unlink(missing_ok=True)
                train_terrain(replace(rows[name], seed=seed), data, run, resume=started)
    study = collect_study(output, list(names or rows), seeds)
    if 'full' in study['rows']:
        study['attention'] = without_attention([output / f'full-{k}' for k in range(seeds)], data)
        draw_confusion(np.array(study['rows']['full']['confusion']), output / 'confusion.png')
        draw_failures(output / 'full-0', read_images(data, config.data.cache_size))
    write_json(output / 'study.json', study)
    return study


def collect_study(output: Path, names: list[str], seeds: int) -> dict[str, Any]:
    """Return mean, standard deviation and values over the seeds of each row's figures."""
    rows = {}
    held_out = None
    for name in names:
        runs = [
            json.loads((output / f'{name.replace(" ", "_")}-{seed}' / 'metrics.json').read_text())
            for seed in range(seeds)
        ]
        held_out = runs[0]['held_out']
        rows[name] = {
            'accuracy': spread([run['accuracy'] for run in runs]),
            **{
                f'{kind}_{figure}': spread([run[kind][figure] for run in runs])
                for kind in ('macro', 'weighted')
                for figure in ('precision', 'recall', 'f1', 'iou')
            },
            'classes': {
                label: {
                    **{
                        figure: spread([run['classes'][label][figure] for run in runs])
                        for figure in ('precision', 'recall', 'f1', 'iou')
                        if runs[0]['classes'][label]['support']
                    },
                    'support': runs[0]['classes'][label]['support'],
                }
                for label in HIRISE_LANDMARKS.names
            },
            'confusion': np.sum([run['confusion'] for run in runs], axis=0).tolist(),
        }
    return {'held_out': held_out, 'seeds': seeds, 'rows': rows}


def spread(values: list[float]) -> dict[str, Any]:
    """Return mean, sample standard deviation (0 of one value) and the values."""
    deviation = stdev(values) if len(values) > 1 else 0.0
    return {'mean': mean(values), 'sd': deviation, 'values': values}


def without_attention(runs: Sequence[Path], data: Path) -> dict[str, Any]:
    """
    Return how held-out macro-F1 changes when trained networks' gates are taken away, over runs.

    `runs` are folders of `train_terrain`, alike but for their seeds, whose crops are in `data`.
    `trained` is the macro-F1 of the networks as they are; `identity` its change where each gate
    is replaced by identity; `mean` where it is replaced by its own mean over the held-out crops,
    a number a channel, which keeps the scale that later layers expect and takes away only what
    depends on the image.
    """
    found = [macro_f1_by_gates(run, data) for run in runs]
    return {kind: spread([run[kind] for run in found]) for kind in found[0]}


@torch.inference_mode()
def macro_f1_by_gates(run: Path, data: Path) -> dict[str, float]:
    """Return what `without_attention` says, of one run."""
    config = config_from_dict(TerrainTrainConfig, json.loads((run / 'config.json').read_text()))
    images = read_images(data, config.data.cache_size)
    _, test = split(images.crops, config.data)
    model = TerrainModel.from_pretrained(run / 'weights')

    def macro_f1() -> float:
        logits = class_logits(model, images, test, config, torch.device('cpu'))
        return float(score(images.label[test], logits)['macro']['f1'])

    gates = [gate for stage in model.attention.values() for gate in stage]
    means = [MeanGate() for _ in gates]
    watching = [
        gate.gate.register_forward_hook(seen.watch)
        for gate, seen in zip(gates, means, strict=True)
    ]
    found = {'trained': macro_f1()}
    for hook in watching:
        hook.remove()
    for kind in ('identity', 'mean'):
        for stage in model.attention.values():
            for k in range(len(stage)):
                stage[k] = nn.Identity() if kind == 'identity' else means.pop(0)
        found[kind] = macro_f1() - found['trained']
    return found


class MeanGate(nn.Module):
    """Stands in for a gate: what it said on average."""

    def __init__(self) -> None:
        super().__init__()
        self.total: Tensor | float = 0.0
        self.count = 0

    def watch(self, _: nn.Module, __: object, gate: Tensor) -> None:
        """Note what a gate says, (B, C) or (B, 1, h, w)."""
        self.total = self.total + gate.sum(dim=0)
        self.count += len(gate)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (B, C, h, w) times the mean gate."""
        average = torch.as_tensor(self.total) / self.count
        return x * (average[:, None, None] if average.ndim == 1 else average)
