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

"""What there is to configure in a training run of the terrain network."""

from dataclasses import dataclass, field
from typing import Literal

from train.config import RunConfig

TerrainNetworkName = Literal['attention', 'unet', 'deeplabv3plus']
Split = Literal['source', 'random', 'official', 'all']


@dataclass(frozen=True)
class CropDataConfig:
    """
    Which crops are learnt from.

    Fields:
        cache_size: side in pixels at which crops are kept in memory.
        split: 'source' holds out source images, 'random' files (the paper's; siblings leak),
            'official' the data set's own test set, 'all' nothing: every crop is trained on, and
            figures are those of training crops.
        folds: parts that the sources are dealt into; one is held out.
        fold: which.
        batch_size: crops a step.
        workers: processes that prepare batches; 0 = none besides the main one.
        balance: power p of the classes' weights share^−p in drawing; 1 = every class equally
            often, 0 = as in the data.
        source_balance: the same for the sources within a class.

    """

    cache_size: int = 227
    split: Split = 'source'
    folds: int = 5
    fold: int = 0
    batch_size: int = 32
    workers: int = 0
    balance: float = 1.0
    source_balance: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.fold < self.folds:
            raise ValueError(f'data.fold must lie in [0, {self.folds})')
        if min(self.cache_size, self.batch_size) < 1:
            raise ValueError('data.cache_size and data.batch_size must be positive')
        if not (0 <= self.balance <= 1 and 0 <= self.source_balance <= 1):
            raise ValueError('data.balance and data.source_balance must lie in [0, 1]')


@dataclass(frozen=True)
class CropAugmentConfig:
    """
    Strength of each augmentation; probabilities in [0, 1].

    Fields:
        rotation_deg: largest rotation, either way.
        flip: probability of a mirror image.
        smallest_crop: smallest share of the side that is kept; 1 = never cropped.
        stretch: largest log-ratio between the sides that are kept.
        crop_border: probability that the map projection's black wedges are cut off first.
        brightness, contrast, gamma: largest change, as a log-ratio (contrast, gamma) or as a
            share of full white (brightness).
        blur: probability of Gaussian blur.
        noise: largest standard deviation of the noise, in [0, 1].
        erase: probability that a rectangle is painted over.
        mixup: α of the mixture of two crops and their labels (arXiv 1710.09412); 0 = none.
        cutmix: probability that a rectangle comes from another crop instead (arXiv 1905.04899).

    """

    rotation_deg: float = 180.0
    flip: float = 0.5
    smallest_crop: float = 0.7
    stretch: float = 0.1
    crop_border: float = 0.5
    brightness: float = 0.15
    contrast: float = 0.3
    gamma: float = 0.2
    blur: float = 0.1
    noise: float = 0.02
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


@dataclass(frozen=True)
class TerrainTrainConfig(RunConfig):
    """
    A training run of the terrain network, or of a baseline; see RunConfig for the rest.

    Fields:
        network: 'attention' is TerrainModel; 'unet' and 'deeplabv3plus' are
            segmentation-models-pytorch's, with the same pooling of pixel logits.
        backbone: timm's name; for the baselines, an encoder of segmentation-models-pytorch.
        attention, segmentation_head: the paper's ablation (attention networks only).
        head_channels: width between the head's convolutions.
        imagenet: start the backbone from ImageNet weights.
        download: whether those, and `initial`, may be fetched.
        initial: checkpoint (folder or Hub id) of a terrain network to start the backbone and
            its attention from; the head too where its classes are the same.
        generated: learn from generated crops, and only score on real ones.
        size: side in pixels of the network's input in training.
        input_size: the same where it is scored, and of the network that is saved; None = `size`.
            Augmentation cuts crops out and so enlarges what they show: at a somewhat larger side
            whole crops show it as large as it was learnt (arXiv 1906.06423).
        label_smoothing: share of the target that is spread over all classes.
        logit_adjustment: how much of the log of the classes' shares in the training crops is
            added to the logits after training (arXiv 2007.07314); what balanced drawing took
            from the frequent classes is given back in part.
        temperature: of the network that is saved; None = fitted on the held-out crops.

    """

    network: TerrainNetworkName = 'attention'
    backbone: str = 'resnet50'
    attention: bool = True
    segmentation_head: bool = True
    head_channels: int = 256
    imagenet: bool = False
    download: bool = False
    initial: str | None = None
    generated: bool = False
    size: int = 224
    input_size: int | None = None
    label_smoothing: float = 0.0
    logit_adjustment: float = 0.0
    temperature: float | None = None
    data: CropDataConfig = field(default_factory=CropDataConfig)
    augment: CropAugmentConfig = field(default_factory=CropAugmentConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 32:
            raise ValueError('size must be at least 32')
