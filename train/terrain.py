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

"""`python -m train terrain`: train the Mars terrain network and score it on other sources."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

from lunar_perception.atomic import write_json
from lunar_perception.classification import ClassificationScore
from lunar_perception.data.hirise import Crop, read_crops, source_folds, split_at_random
from lunar_perception.models.checkpoint import assign_weights
from lunar_perception.models.terrain import TerrainConfig, TerrainModel, TerrainOutput
from lunar_perception.taxonomy import HIRISE_LANDMARKS, UNLABELLED
import numpy as np
import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from train.evaluation import fit_temperature
from train.generated_crops import GeneratedBatches
from train.loop import fit
from train.terrain_batches import CropBatch, CropBatches, CropImages, normalise, resize
from train.terrain_config import CropDataConfig, TerrainTrainConfig


def train_terrain(
    config: TerrainTrainConfig, data: Path, output: Path, *, resume: bool = False
) -> dict[str, Any]:
    """
    Train on the crops in `data`; return the figures on the held-out ones.

    `output` gets what `fit` writes, `config.json`, `weights/` (config.json and fp16
    model.safetensors; attention networks only, calibrated on the held-out crops), and
    `metrics.json` with the held-out crops' names and probabilities beside it in
    `predictions.json`. Raises FileExistsError when `output` holds a run and `resume` is not set,
    and what `read_crops`, `read_image` and `fit` raise.
    """
    if (output / 'log.jsonl').exists() and not resume:
        raise FileExistsError(f'{output} holds a run; go on with --resume, or name another folder')
    device = torch.device(
        ('cuda' if torch.cuda.is_available() else 'cpu')
        if config.device == 'auto'
        else config.device
    )
    torch.manual_seed(config.seed)
    model = make_network(config)
    images = read_images(data, config.data.cache_size)
    train, test = split(images.crops, config.data)
    print(f'{len(train)} crops to train on, {len(test)} held out; {device}, {config.size} px')
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / 'config.json', asdict(config))

    batches: Dataset[CropBatch] = CropBatches(
        images,
        train,
        classes=len(HIRISE_LANDMARKS),
        size=config.size,
        batch_size=config.data.batch_size,
        augmentation=config.augment,
        balance=config.data.balance,
        source_balance=config.data.source_balance,
        seed=config.seed,
    )
    if config.generated:
        batches = GeneratedBatches(
            size=config.size,
            batch_size=config.data.batch_size,
            augmentation=config.augment,
            seed=config.seed,
        )
    steps = config.steps
    if config.epochs is not None:
        steps = ceil(config.epochs * len(train) / config.data.batch_size)

    def figures(model: nn.Module) -> dict[str, float]:
        found = score(images.label[test], class_logits(model, images, test, config, device))
        accuracy, f1 = found['accuracy'], found['macro']['f1']
        return {'score': (accuracy + f1) / 2, 'accuracy': accuracy, 'macro_f1': f1}

    averaged = fit(
        model,
        batches=batches,
        steps=steps,
        loss_terms=make_loss(config.label_smoothing),
        evaluate=figures,
        config=config,
        device=device,
        output=output,
        resume=resume,
    )
    count = np.bincount(images.label[train], minlength=len(HIRISE_LANDMARKS))
    adjust_logits(averaged, count, config.logit_adjustment)
    logits = class_logits(averaged, images, test, config, device)
    truth = images.label[test]
    temperature = config.temperature
    if temperature is None:
        temperature = fit_temperature(logits.clone(), torch.from_numpy(truth))
    if isinstance(averaged, TerrainModel):
        shipped = TerrainModel(replace(averaged.config, temperature=temperature))
        shipped.load_state_dict(averaged.state_dict())
        shipped.save_pretrained(output / 'weights', half=True)
    probability = (logits / temperature).softmax(1).numpy()
    metrics = {
        'held_out': describe_split(config.data, images, test),
        'temperature': temperature,
        'ece': calibration_error(truth, probability),
        **score(truth, logits),
    }
    write_json(output / 'metrics.json', metrics)
    rows = [
        {'name': images.crops[i].path.name, 'truth': int(t), 'probability': p.tolist()}
        for i, t, p in zip(test, truth, probability.round(5).astype(float), strict=True)
    ]
    write_json(output / 'predictions.json', rows)
    return metrics


@lru_cache(maxsize=1)
def read_images(data: Path, size: int) -> CropImages:
    """Return the crops in `data` at side `size`; the runs of a study share them."""
    return CropImages.read(read_crops(data), size)


class PooledSegmentation(nn.Module):
    """A segmentation network of segmentation-models-pytorch, trained by image labels as ours."""

    def __init__(self, network: str, encoder: str, classes: int, weights: str | None) -> None:
        super().__init__()
        import segmentation_models_pytorch as smp

        kind = {'unet': smp.Unet, 'deeplabv3plus': smp.DeepLabV3Plus}[network]
        self.network = kind(encoder, encoder_weights=weights, classes=classes)

    def forward(self, images: Tensor) -> TerrainOutput:
        """Predict for images (B, 3, H, W), sides multiples of 32."""
        pixel_logits = self.network(images).float()
        return TerrainOutput(pixel_logits.mean(dim=(2, 3)), pixel_logits)


def make_network(config: TerrainTrainConfig) -> nn.Module:
    """Return the network that `config` names, random, from ImageNet, or from a checkpoint."""
    if config.network != 'attention':
        weights = 'imagenet' if config.imagenet and config.download else None
        classes = len(HIRISE_LANDMARKS)
        return PooledSegmentation(config.network, config.backbone, classes, weights)
    model = TerrainModel(
        TerrainConfig(
            backbone=config.backbone,
            channel_attention=config.attention,
            spatial_attention=config.attention,
            segmentation_head=config.segmentation_head,
            head_channels=config.head_channels,
            input_size=config.input_size or config.size,
        )
    )
    if config.imagenet:
        if not config.download:
            raise ValueError('imagenet needs download: its weights come from the Hub')
        model.load_imagenet()
    if config.initial:
        start = TerrainModel.from_pretrained(config.initial, download=config.download)
        assign_weights(model.backbone, start.backbone.state_dict(), config.initial)
        assign_weights(model.attention, start.attention.state_dict(), config.initial)
        if start.config.class_names == model.config.class_names:
            assign_weights(model.head, start.head.state_dict(), config.initial)
    return model


@torch.no_grad()
def adjust_logits(model: nn.Module, count: np.ndarray, amount: float) -> None:
    """Add `amount` · log(share) to each class's logits; `count` (C,) crops; one at the least."""
    layer = [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1]
    if layer.bias is None or len(layer.bias) != len(count):
        raise ValueError("the network's last convolution does not give the classes' logits")
    share = torch.from_numpy(np.maximum(count, 1) / np.maximum(count, 1).sum())
    layer.bias += amount * share.log().to(layer.bias)


def make_loss(label_smoothing: float) -> Callable[[nn.Module, CropBatch], dict[str, Tensor]]:
    """Return the function that runs a network on a batch and gives its loss."""

    def terms(model: nn.Module, batch: CropBatch) -> dict[str, Tensor]:
        return {'cross_entropy': terrain_loss(model(batch.images), batch.target, label_smoothing)}

    return terms


def terrain_loss(output: TerrainOutput, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """
    Return the cross-entropy with image labels, or with pixel labels.

    `target` is (B, C) class probabilities, or (B,) ids, and meets the class logits; or it is
    (B, H, W) ids, 255 = unlabelled, and meets the pixel logits.
    """
    if target.is_floating_point():
        return F.cross_entropy(output.class_logits, target, label_smoothing=label_smoothing)
    logits = output.pixel_logits if target.ndim == 3 else output.class_logits
    return F.cross_entropy(
        logits, target, ignore_index=UNLABELLED, label_smoothing=label_smoothing
    )


def split(crops: list[Crop], config: CropDataConfig) -> tuple[np.ndarray, np.ndarray]:
    """
    Return indices of the crops to train on and of those held out.

    With split 'all' both are all. Raises ValueError where the data set has no official split.
    """
    everything = np.arange(len(crops))
    if config.split == 'all':
        return everything, everything
    if config.split == 'source':
        folds = source_folds(crops, config.folds)
        return np.flatnonzero(folds != config.fold), np.flatnonzero(folds == config.fold)
    if config.split == 'random':
        return split_at_random(crops, 1 / config.folds, config.fold)
    sets = np.array([crop.split or '' for crop in crops])
    if not (sets == 'train').any() or not (sets == 'test').any():
        raise ValueError("this data set has no official split; use data.split 'source'")
    return np.flatnonzero(sets == 'train'), np.flatnonzero(sets == 'test')


def describe_split(config: CropDataConfig, images: CropImages, test: np.ndarray) -> dict[str, Any]:
    """Return what the held-out crops are, for the record."""
    sources = {images.crops[i].source for i in test}
    return {
        'split': config.split,
        'fold': config.fold,
        'folds': config.folds,
        'crops': len(test),
        'sources': len(sources),
    }


@torch.inference_mode()
def class_logits(
    model: nn.Module,
    images: CropImages,
    indices: np.ndarray,
    config: TerrainTrainConfig,
    device: torch.device,
) -> Tensor:
    """Return the class logits (n, C) of the crops at `indices`, whole, on the CPU."""
    model, size = model.eval(), config.input_size or config.size
    answers = [torch.empty(0, len(HIRISE_LANDMARKS))]
    for start in range(0, len(indices), config.data.batch_size):
        end = start + config.data.batch_size
        chosen = indices[start:end]
        x = np.stack([resize(images.image[i], size) for i in chosen])
        answers.append(model(normalise(x / np.float32(255)).to(device)).class_logits.cpu())
    return torch.cat(answers)


def score(truth: np.ndarray, logits: Tensor) -> dict[str, Any]:
    """Return the figures of ClassificationScore for logits (n, C) and ids (n,)."""
    found = ClassificationScore()
    found.update(truth, logits.argmax(1).numpy())
    return found.to_dict()


def calibration_error(truth: np.ndarray, probability: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error of probabilities (n, C) (Guo et al., ICML 2017)."""
    confidence, right = probability.max(1), probability.argmax(1) == truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, right - confidence, bins)
    return float(np.abs(gaps).sum() / len(truth))
