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
The single-task networks that the unified one is held against, built from random weights.

Each has at most 10 million parameters, answers as the unified network does, with None for the
task that it has not, and brings its own loss. The architectures are transformers' and
segmentation-models-pytorch's; only their sizes are chosen here.
"""

from dataclasses import dataclass
from math import log
from typing import Any, NamedTuple

from lunar_perception.models import UnifiedConfig
from lunar_perception.taxonomy import LUNAR_TERRAIN
import segmentation_models_pytorch as smp
import torch
from torch import nn, Tensor
from train.batches import Batch
from train.config import BaselineName, LossConfig
from train.losses import affine_gradient_matching, affine_invariant, upsample_to
from train.objective import depth_terms, label_terms
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DetrConfig,
    Dinov2Config,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SwinConfig,
)

CLASSES = len(LUNAR_TERRAIN)
MAX_DEPTH = UnifiedConfig().max_depth


class Output(NamedTuple):
    """
    What a single-task network says of images (B, 3, H, W).

    Fields:
        label_logits: (B, 5, h, w), or None.
        depth: (B, 1, h, w) metres for the canonical camera, or None.
        depth_log_scale: None.
        inverse_depth: (B, 1, h, w), of unknown scale and shift, or None.
        inside: what else the loss is computed from, of the network's own.

    """

    label_logits: Tensor | None = None
    depth: Tensor | None = None
    depth_log_scale: None = None
    inverse_depth: Tensor | None = None
    inside: Any = None


@dataclass(frozen=True)
class Calibration:
    """What evaluation asks of a network's `config`; the baselines are not calibrated."""

    canonical_focal: float = UnifiedConfig().canonical_focal
    temperature: float = 1.0
    uncertainty_scale: float = 1.0


class Baseline(nn.Module):
    """
    A network and its loss.

    `forward(images)` returns an Output; `terms(batch, config, weights)` the weighted terms of the
    loss, `weights` (5,) being the cross-entropy's.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.config = Calibration()

    def terms(self, batch: Batch, config: LossConfig, weights: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError


class SegFormer(Baseline):
    """SegFormer-B0 (arXiv 2105.15203): logits at stride 4."""

    def __init__(self) -> None:
        super().__init__(SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES)))

    def forward(self, images: Tensor) -> Output:
        return Output(label_logits=self.network(images).logits)

    def terms(self, batch: Batch, config: LossConfig, weights: Tensor) -> dict[str, Tensor]:
        return label_terms(config, self(batch.images).label_logits, batch.label, weights)


class MaskFormer(Baseline):
    """
    MaskFormer (arXiv 2107.06278) on a small Swin, with its own loss: set matching of masks.

    A class that is in the image is one mask. The answer is the paper's semantic inference, the
    sum over queries of class probability × mask probability, as logits.
    """

    def __init__(self) -> None:
        stages = [f'stage{i}' for i in (1, 2, 3, 4)]
        swin = SwinConfig(
            embed_dim=48, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], out_features=stages
        )
        detr = DetrConfig(
            d_model=128,
            encoder_layers=0,
            decoder_layers=4,
            decoder_attention_heads=4,
            decoder_ffn_dim=512,
            num_queries=20,
        )
        config = MaskFormerConfig(
            fpn_feature_size=128,
            mask_feature_size=128,
            backbone_config=swin,
            decoder_config=detr,
            num_labels=CLASSES,
        )
        super().__init__(MaskFormerForInstanceSegmentation(config))

    def forward(self, images: Tensor, **targets: list[Tensor]) -> Output:
        found = self.network(images, **targets)
        classes = found.class_queries_logits.float().softmax(-1)[..., :-1]
        masks = found.masks_queries_logits.float().sigmoid()
        score = torch.einsum('bqc,bqhw->bchw', classes, masks)
        return Output(label_logits=score.clamp(min=1e-6).log(), inside=found.loss)

    def terms(self, batch: Batch, config: LossConfig, weights: Tensor) -> dict[str, Tensor]:
        present = [torch.unique(label[label < CLASSES]) for label in batch.label]
        masks = [
            (label == ids[:, None, None]).float()
            for label, ids in zip(batch.label, present, strict=True)
        ]
        output = self(batch.images, mask_labels=masks, class_labels=present)
        return {'mask_classification': output.inside}


class UNetPlusPlus(Baseline):
    """
    UNet++ (Zhou et al., TMI 2019) of segmentation-models-pytorch, with deep supervision added.

    Every node at the finest skip level, X^(0,1) … X^(0,4), gets a 1×1 convolution to labels, and
    the loss is the mean over those and the last output.
    """

    def __init__(self) -> None:
        network = smp.UnetPlusPlus(
            'mobilenet_v2', encoder_weights=None, decoder_channels=(128, 96, 64, 32, 16),
            classes=CLASSES,
        )  # fmt: skip
        super().__init__(network)
        decoder = network.decoder
        finest = decoder.depth - 1
        widths = [decoder.skip_channels[finest]] * finest + [decoder.out_channels[finest]]
        self.supervised = nn.ModuleList(nn.Conv2d(width, CLASSES, 1) for width in widths)

    def forward(self, images: Tensor) -> Output:
        decoder = self.network.decoder
        features = self.network.encoder(images)[:0:-1]  # coarse to fine, without the image
        nodes: dict[tuple[int, int], Tensor] = {}
        for level in range(decoder.depth):
            for d in range(level, -1, -1):
                below = features[level] if d == level else nodes[d, level - 1]
                skips = [nodes[i, level] for i in range(d + 1, level + 1)]
                skips.append(features[level + 1])
                nodes[d, level] = decoder.blocks[f'x_{d}_{level}'](below, torch.cat(skips, 1))
        finest = decoder.depth - 1
        last = decoder.blocks[f'x_0_{decoder.depth}'](nodes[0, finest])
        supervised = [nodes[d, finest] for d in range(finest, -1, -1)] if self.training else []
        return Output(
            label_logits=self.network.segmentation_head(last),
            inside=[head(x) for head, x in zip(self.supervised, supervised, strict=False)],
        )

    def terms(self, batch: Batch, config: LossConfig, weights: Tensor) -> dict[str, Tensor]:
        output = self(batch.images)
        outputs = [output.label_logits, *output.inside]
        found = [label_terms(config, logits, batch.label, weights) for logits in outputs]
        return {name: sum(terms[name] for terms in found) / len(found) for name in found[0]}


class RelativeDepth(Baseline):
    """
    A depth network of transformers trained to affine-invariant inverse depth, sky at 0.

    Loss: scale-and-shift-invariant + 0.5 · gradient matching (MiDaS's weights), as Depth Anything
    and DPT are trained.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        # These heads end in a ReLU, which must not start dead everywhere.
        *_, last = (m for m in network.head.modules() if isinstance(m, nn.Conv2d))
        nn.init.constant_(last.bias, 1.0)
        _freeze_unused(network)

    def forward(self, images: Tensor) -> Output:
        return Output(inverse_depth=self.network(images).predicted_depth[:, None])

    def terms(self, batch: Batch, config: LossConfig, weights: Tensor) -> dict[str, Tensor]:
        said = upsample_to(self(batch.images).inverse_depth, batch.depth.shape[-2:])
        mask = batch.depth > 0  # sky too: its inverse is 0
        truth = torch.where(mask, 1 / batch.depth, 0)
        return {
            'affine_invariant': affine_invariant(said, truth, mask),
            'affine_gradient': 0.5 * affine_gradient_matching(said, truth, mask),
        }


class MetricDepth(Baseline):
    """Depth Anything V2's metric version: sigmoid × max_depth, with the terms configured."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        _freeze_unused(network)
        # Start 8 m away, as the unified network does, not at half of max_depth.
        nn.init.constant_(network.head.conv3.bias, log(8 / (MAX_DEPTH - 8)))

    def forward(self, images: Tensor) -> Output:
        return Output(depth=self.network(images).predicted_depth[:, None].clamp(min=1e-3))

    def terms(self, batch: Batch, config: LossConfig, weights: Tensor) -> dict[str, Tensor]:
        return depth_terms(
            config, self(batch.images).depth, None, batch.depth, batch.label, MAX_DEPTH
        )


def depth_anything(size: int, kind: str) -> DepthAnythingForDepthEstimation:
    """Return Depth Anything V2 (arXiv 2406.09414), 'relative' or 'metric', on a ViT-Ti/14."""
    vit = Dinov2Config(
        hidden_size=192,
        num_hidden_layers=12,
        num_attention_heads=3,
        image_size=size,
        patch_size=14,
        out_features=['stage3', 'stage6', 'stage9', 'stage12'],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=vit,
        patch_size=14,
        reassemble_hidden_size=192,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
        depth_estimation_type=kind,
        max_depth=round(MAX_DEPTH) if kind == 'metric' else 1,
    )
    return DepthAnythingForDepthEstimation(config)


def build_baseline(name: BaselineName, size: int) -> Baseline:
    """
    Return a network of random weights for images of `size` × `size`.

    Raises ValueError when the network can not take that size.
    """
    step = 14 if name.startswith('depth_anything') else 32
    if size % step:
        raise ValueError(f'{name} takes images whose side is a multiple of {step}, not {size}')
    if name == 'segformer':
        return SegFormer()
    if name == 'maskformer':
        return MaskFormer()
    if name == 'unetplusplus':
        return UNetPlusPlus()
    if name == 'depth_anything':
        return RelativeDepth(depth_anything(size, 'relative'))
    return MetricDepth(depth_anything(size, 'metric'))


def _freeze_unused(network: nn.Module) -> None:
    """Freeze the token that stands for masked patches: nothing is masked, and DDP would wait."""
    for name, parameter in network.named_parameters():
        if name.endswith('mask_token'):
            parameter.requires_grad_(False)
