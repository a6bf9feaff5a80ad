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

"""The unified network: terrain labels and metric depth from one pass over one image."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lunar_perception.camera import LUSNAR_CAMERA
from lunar_perception.models.checkpoint import (
    assign_weights,
    CheckpointedModel,
    CONFIG,
    find_checkpoint,
    read_config,
    read_weights,
)
from lunar_perception.models.configuration import (
    build,
    freeze_counts,
    require_counts,
    require_positive,
)
from lunar_perception.models.encoders import SamEncoder, SamEncoderConfig
from lunar_perception.models.heads import (
    DetailStem,
    DilatedDepthHead,
    LogDepthHead,
    MIN_DEPTH,
    PyramidDecoder,
    SegmentationHead,
    upsample,
)
from lunar_perception.models.sam2 import Sam2Encoder, Sam2EncoderConfig
from lunar_perception.taxonomy import LUNAR_TERRAIN
import torch
from torch import nn, Tensor

PYRAMID_MAPS = 4
"""How many maps the pyramid decoder fuses: strides 4, 8, 16, 32."""


@dataclass(frozen=True)
class UnifiedConfig:
    """
    The unified network's shape and calibration; the defaults are `base`.

    Fields:
        encoder: the image encoder's shape.
        decoder: 'pyramid' fuses four encoder maps and the detail stem, predicts log-depth and
            its scale; 'paper' puts the paper's two heads on the encoder's last map.
        decoder_channels: width of the decoder, or of the paper's heads.
        detail_channels: width of the detail stem's levels, at strides 2, 4, 8, 16 (pyramid).
            Levels up to stride 8 join the decoder; a fourth is added to the encoder's tokens.
        trainable_blocks: how many of the encoder's last blocks are trained, the rest of the
            encoder frozen; None trains all.
        input_size: side in pixels of the square whose area the predictor resizes images to.
        canonical_focal: the canonical camera's focal length in units of the input's width.
        max_depth: farthest depth in metres that is answered, of a square image.
        temperature: logits are divided by it for calibrated probabilities.
        uncertainty_scale: factor that calibrates the depth's uncertainty.

    Raises ValueError for values that make no network.

    """

    encoder: SamEncoderConfig | Sam2EncoderConfig = field(default_factory=SamEncoderConfig)
    decoder: Literal['pyramid', 'paper'] = 'pyramid'
    decoder_channels: int = 128
    detail_channels: tuple[int, ...] = (64,)
    trainable_blocks: int | None = None
    input_size: int = 896
    canonical_focal: float = LUSNAR_CAMERA.fx / LUSNAR_CAMERA.width
    max_depth: float = 1000.0
    temperature: float = 1.0
    uncertainty_scale: float = 1.0

    def __post_init__(self) -> None:
        require_counts(self, 'decoder_channels', 'input_size')
        require_positive(self, 'canonical_focal', 'max_depth', 'temperature', 'uncertainty_scale')
        freeze_counts(self, 'detail_channels')
        if self.trainable_blocks is not None:
            require_counts(self, 'trainable_blocks', least=0)
        sam = self.encoder if isinstance(self.encoder, SamEncoderConfig) else None
        if self.decoder == 'paper':
            if self.detail_channels:
                raise ValueError("decoder 'paper' has no detail stem: detail_channels must be []")
            if self.decoder_channels % 8:
                raise ValueError(f'decoder_channels {self.decoder_channels} must divide by 8')
        elif self.decoder == 'pyramid':
            if self.max_depth <= MIN_DEPTH:
                raise ValueError(f'max_depth {self.max_depth} must be above {MIN_DEPTH} m')
            if not 1 <= len(self.detail_channels) <= 4 or not all(self.detail_channels):
                raise ValueError(f'detail_channels {self.detail_channels} need 1 to 4 widths')
            if sam and (len(sam.taps) != PYRAMID_MAPS or sam.neck_channels):
                raise ValueError(f'decoder pyramid needs {PYRAMID_MAPS} taps and no neck')
            if len(self.detail_channels) == 4 and not (sam and sam.patch_size == 16):
                raise ValueError('a fourth detail level needs a SAM encoder with patch_size 16')
        else:
            raise ValueError(f"decoder {self.decoder!r} must be 'pyramid' or 'paper'")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> 'UnifiedConfig':
        """Return the configuration in config.json; ValueError for an unknown key or bad value."""
        values = dict(values)
        if 'encoder' in values:
            encoder = values['encoder']
            kind = encoder.get('kind', 'sam') if isinstance(encoder, Mapping) else None
            if kind not in ('sam', 'sam2'):
                raise ValueError(f"encoder {encoder!r} must be of kind 'sam' or 'sam2'")
            values['encoder'] = build(
                SamEncoderConfig if kind == 'sam' else Sam2EncoderConfig, encoder
            )
        return build(cls, values)

    @classmethod
    def paper(cls) -> 'UnifiedConfig':
        """
        Return the paper's network (papers/unified-lunar-perception, sections 4.2 and 4.4).

        As the paper has it: the encoder is SAM-ViT-Huge, all but its last four blocks frozen; the
        segmentation head is 3×3 with 128 channels, BatchNorm, ReLU, then 1×1 to five classes; the
        depth head has dilated convolutions, an attention block and a skip, and answers depth
        normalised by a maximum; outputs are upsampled bilinearly.

        What it leaves open, and what stands here:
        - the input's size: 1024, SAM's and LuSNAR's own;
        - which features are F: the neck's 256 channels at stride 16 (its Φ has one output);
        - whether the neck is trained: it is frozen, as all but the last four blocks;
        - the depth head's width: 128, as its first version's;
        - the dilations: 2, 4, 8, one 3×3 convolution with BatchNorm and ReLU each, after one
          undilated convolution that brings 256 channels to 128;
        - the attention: a gate on channels (from their global mean, through a bottleneck of 1/8),
          then one on places (7×7 convolution of the channels' mean and maximum);
        - the skip: around the dilated convolutions and the attention together, added;
        - the last layer: 1×1 to one channel, sigmoid × `max_depth`;
        - the maximum: 100 m, the range the `normalised` depth protocol clips to;
        - where to upsample: the logits, before softmax and before the sigmoid;
        - uncertainty: none (it is the paper's future work), so depth_log_scale is None;
        - the focal length: LuSNAR's, the only camera that it was trained on.
        """
        return cls(
            encoder=SamEncoderConfig.sam_vit_huge(taps=(), neck_channels=256),
            decoder='paper',
            decoder_channels=128,
            detail_channels=(),
            trainable_blocks=4,
            input_size=1024,
            max_depth=100.0,
        )

    @classmethod
    def base(cls) -> 'UnifiedConfig':
        """Return SAM-ViT-B, trained whole, with the pyramid decoder and stride-2 detail."""
        return cls()

    @classmethod
    def rover(cls) -> 'UnifiedConfig':
        """Return the small network whose weights ship: a SAM-shaped encoder, trained at home."""
        blocks = (1, 3, 5, 7)
        return cls(
            encoder=SamEncoderConfig(
                hidden_size=192,
                depth=8,
                heads=3,
                global_blocks=blocks,
                taps=blocks,
                image_size=448,
                stretch_positions=False,
            ),
            decoder_channels=64,
            detail_channels=(32, 48, 64, 96),
            input_size=448,
        )


class UnifiedOutput(NamedTuple):
    """
    What the network says of images (B, 3, H, W), all float32.

    Fields:
        label_logits: (B, 5, H, W), LUNAR_TERRAIN's classes.
        depth: (B, 1, H, W) metres along Z for the canonical camera.
        depth_log_scale: (B, 1, H, W) log of the Laplace scale of log-depth, or None.

    """

    label_logits: Tensor
    depth: Tensor
    depth_log_scale: Tensor | None = None


class UnifiedModel(CheckpointedModel):
    """
    One encoder, one decoder, two heads: terrain labels and metric depth.

    Fields:
        config: its configuration.
        multiple: what an image's sides must be multiples of, in pixels.

    """

    def __init__(self, config: UnifiedConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: SamEncoder | Sam2Encoder = (
            SamEncoder(config.encoder)
            if isinstance(config.encoder, SamEncoderConfig)
            else Sam2Encoder(config.encoder)
        )
        self.multiple = self.encoder.multiple
        detail = config.detail_channels
        self.detail = DetailStem(detail) if detail else None
        self.detail_tokens = (
            nn.Conv2d(detail[3], self.encoder.channels[0], 1) if len(detail) == 4 else None
        )
        self.decoder = None
        width, channels = config.decoder_channels, self.encoder.channels[-1]
        self.depth_head: DilatedDepthHead | LogDepthHead
        if config.decoder == 'paper':
            self.depth_head = DilatedDepthHead(channels, width, config.max_depth)
        else:
            self.decoder = PyramidDecoder(
                self.encoder.channels, self.encoder.strides, width, detail[:3]
            )
            channels = width = detail[0]
            self.depth_head = LogDepthHead(channels, width, config.max_depth)
        self.segmentation_head = SegmentationHead(channels, width, len(LUNAR_TERRAIN))
        if config.trainable_blocks is not None:
            self.encoder.requires_grad_(False)
            frozen = max(len(self.encoder.blocks) - config.trainable_blocks, 0)
            self.encoder.blocks[frozen:].requires_grad_(True)

    def forward(self, images: Tensor) -> UnifiedOutput:
        """
        Predict for ImageNet-normalised RGB images (B, 3, H, W).

        Raises ValueError when H or W is not a multiple of `multiple`.
        """
        size = images.shape[-2:]
        height, width = size
        features = self._features(images)
        depth, log_scale = self.depth_head(features, size)
        if width != height:
            # The heads learn from squares, so what they answer is for the focal length that the
            # square of the image's area has.
            depth = depth * sqrt(width / height)
        logits = self.segmentation_head(features).float()
        return UnifiedOutput(upsample(logits, size), depth, log_scale)

    def _features(self, images: Tensor) -> Tensor:
        """Return the map that both heads read."""
        if self.decoder is None or self.detail is None:
            return self.encoder(images)[-1]
        details = self.detail(images)
        if self.detail_tokens is None:
            maps = self.encoder(images)
        else:
            maps = self.encoder(images, self.detail_tokens(details.pop()))
        return self.decoder(maps, details)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, download: bool = False) -> 'UnifiedModel':
        """
        Return the network of a checkpoint folder, in float32 on the CPU, set to evaluation.

        `source` is a folder or a Hub id; nothing is fetched unless `download`. Raises OSError when
        it is not found, ValueError when config.json or the weights are damaged, pickled, or do
        not belong together.
        """
        folder = find_checkpoint(source, download=download)
        try:
            config = UnifiedConfig.from_dict(read_config(folder))
        except ValueError as error:
            raise ValueError(f'{folder / CONFIG}: {error}') from None
        # Without storage: the initial values would be thrown away.
        with torch.device('meta'):
            model = cls(config)
        assign_weights(model, read_weights(folder), str(folder))
        return model.eval()
