# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""The unified network: terrain labels and metric depth from one pass."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from huggingface_hub import PyTorchModelHubMixin
from torch import nn, Tensor

from lunar_perception.camera import LUSNAR_CAMERA
from lunar_perception.models.encoders import SamEncoder, SamEncoderConfig
from lunar_perception.models.heads import (
    DetailStem,
    DilatedDepthHead,
    LogDepthHead,
    PyramidDecoder,
    SegmentationHead,
    upsample,
)
from lunar_perception.taxonomy import LUNAR_TERRAIN


@dataclass(frozen=True)
class UnifiedConfig:
    """The unified network's shape and calibration."""

    encoder: SamEncoderConfig = field(default_factory=SamEncoderConfig)
    decoder_channels: int = 128
    detail_channels: tuple[int, ...] = (32,)
    trainable_blocks: int | None = None
    input_size: int = 896
    canonical_focal: float = LUSNAR_CAMERA.fx / LUSNAR_CAMERA.width
    max_depth: float = 1000.0
    temperature: float = 1.0
    uncertainty_scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, 'detail_channels', tuple(self.detail_channels))

    @classmethod
    def paper(cls) -> 'UnifiedConfig':
        return cls(
            encoder=SamEncoderConfig.sam_vit_huge(taps=(), neck_channels=256),
            decoder_channels=128,
            detail_channels=(),
            trainable_blocks=4,
            input_size=1024,
            max_depth=100.0,
        )

    @classmethod
    def base(cls) -> 'UnifiedConfig':
        return cls()

    @classmethod
    def rover(cls) -> 'UnifiedConfig':
        return cls(
            encoder=SamEncoderConfig(
                hidden_size=192,
                depth=8,
                heads=3,
                global_blocks=(1, 3, 5, 7),
                taps=(1, 3, 5, 7),
                image_size=448,
            ),
            decoder_channels=64,
            detail_channels=(32, 48, 64, 96),
            input_size=448,
        )


class UnifiedOutput(NamedTuple):
    """
    What the network says of a batch of images (B, 3, H, W), all float32.

    Attributes:
        label_logits: (B, 5, H, W), LUNAR_TERRAIN's classes.
        depth: (B, 1, H, W) metres along Z for the canonical camera.
        depth_log_scale: (B, 1, H, W) log of the Laplace scale of log-depth, or None.

    """

    label_logits: Tensor
    depth: Tensor
    depth_log_scale: Tensor | None


class UnifiedModel(nn.Module, PyTorchModelHubMixin):
    """Encoder, decoder and the two heads."""

    def __init__(self, config: UnifiedConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SamEncoder(config.encoder)
        width, classes = config.decoder_channels, len(LUNAR_TERRAIN)
        if config.detail_channels:
            detail = config.detail_channels
            self.detail = DetailStem(detail)
            self.to_tokens = nn.Conv2d(detail[3], config.encoder.hidden_size, 1) if len(detail) > 3 else None
            self.decoder = PyramidDecoder(
                self.encoder.channels, self.encoder.strides, width, detail[:3]
            )
            self.segmentation = SegmentationHead(detail[0], detail[0], classes)
            self.depth = LogDepthHead(detail[0], detail[0], config.max_depth)
        else:
            self.decoder = None
            self.segmentation = SegmentationHead(self.encoder.channels[-1], width, classes)
            self.depth = DilatedDepthHead(self.encoder.channels[-1], width, config.max_depth)
        if config.trainable_blocks is not None:
            self.encoder.requires_grad_(False)
            self.encoder.blocks[-config.trainable_blocks :].requires_grad_(True)

    def forward(self, images: Tensor) -> UnifiedOutput:
        """Predict for ImageNet-normalised RGB images (B, 3, H, W); see UnifiedOutput."""
        size = images.shape[-2:]
        if self.decoder is None:
            features = self.encoder(images)[-1]
            depth, log_scale = self.depth(features, size), None
        else:
            details = self.detail(images)
            extra = self.to_tokens(details[3]) if self.to_tokens is not None else None
            features = self.decoder(self.encoder(images, extra), details[:3])
            depth, log_scale = self.depth(features, size)
        logits = upsample(self.segmentation(features).float(), size)
        return UnifiedOutput(logits, depth, log_scale)
