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

"""The Mars terrain network: what a crop shows, and where, from one pass."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from lunar_perception.models.attention import ChannelAttention, SpatialAttention
from lunar_perception.models.checkpoint import (
    assign_weights,
    CheckpointedModel,
    CONFIG,
    find_checkpoint,
    read_config,
    read_weights,
)
from lunar_perception.models.configuration import build, require_counts, require_positive
from lunar_perception.taxonomy import HIRISE_LANDMARKS
from torch import nn, Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class TerrainConfig:
    """
    The terrain network's shape and calibration; the defaults are the paper's.

    Fields:
        backbone: name of a network in timm that runs as a sequence of stages: a CNN
            (resnet50, resnet10t, convnext_tiny …) or a hierarchical transformer (swin_…).
        channel_attention: whether a gate on channels stands between the residual stages.
        spatial_attention: whether a gate on places stands there, after the one on channels.
        segmentation_head: 1×1 and 3×3 convolutions on the last map; without it, one linear layer
            at every place (whose mean is the classifier on the pooled map).
        head_channels: width between the head's two convolutions.
        class_names: names of the classes, by id.
        input_size: side in pixels of the square that images are resized to.
        temperature: logits are divided by it for calibrated probabilities.

    Raises ValueError for values that make no network.

    """

    backbone: str = 'resnet50'
    channel_attention: bool = True
    spatial_attention: bool = True
    segmentation_head: bool = True
    head_channels: int = 256
    class_names: tuple[str, ...] = HIRISE_LANDMARKS.names
    input_size: int = 224
    temperature: float = 1.0

    def __post_init__(self) -> None:
        require_counts(self, 'head_channels', 'input_size')
        require_positive(self, 'temperature')
        for name in ('channel_attention', 'spatial_attention', 'segmentation_head'):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f'{name} = {getattr(self, name)!r} must be true or false')
        names = self.class_names
        if (
            not isinstance(names, list | tuple)
            or not all(isinstance(name, str) and name for name in names)
            or not 2 <= len(set(names)) == len(names)
        ):
            raise ValueError(f'class_names = {names!r} must be two or more different names')
        object.__setattr__(self, 'class_names', tuple(names))
        import timm  # late: it takes as long as torch, and the unified network goes without

        # Other spellings that timm takes ('hf-hub:…', 'local-dir:…') fetch or read files.
        if not isinstance(self.backbone, str) or not timm.is_model(self.backbone):
            close = get_close_matches(str(self.backbone), timm.list_models(), n=1)
            hint = f"did you mean '{close[0]}'?" if close else 'see timm.list_models()'
            raise ValueError(f'timm has no backbone {self.backbone!r}; {hint}')

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> 'TerrainConfig':
        """Return the configuration in config.json; ValueError for an unknown key or bad value."""
        return build(cls, values)

    @classmethod
    def paper(cls) -> 'TerrainConfig':
        """
        Return the paper's network (papers/martian-terrain-mapping, 'Model Architecture').

        As the paper has it: ResNet-50, channel and spatial attention between its residual stages,
        a head of a 1×1 and a 3×3 convolution with bilinear upsampling to the input's size,
        224 × 224 pixels.

        What it leaves open, and what stands here:
        - where 'between the stages' is: after the first, second and third of four;
        - the gates' inner widths, see `models.attention`; channels are gated first;
        - the head's width: 256, BatchNorm and ReLU after its 1×1;
        - how image labels train a segmentation head: the class logits are the mean of the pixel
          logits over the image.
        """
        return cls()

    @classmethod
    def rover(cls) -> 'TerrainConfig':
        """Return the small network of the same design whose weights ship."""
        return cls(backbone='resnet10t', head_channels=128)


ABLATION: Mapping[str, Mapping[str, bool]] = {
    'baseline': {
        'channel_attention': False,
        'spatial_attention': False,
        'segmentation_head': False,
    },
    'segmentation head': {
        'channel_attention': False,
        'spatial_attention': False,
        'segmentation_head': True,
    },
    'attention': {
        'channel_attention': True,
        'spatial_attention': True,
        'segmentation_head': False,
    },
    'full': {
        'channel_attention': True,
        'spatial_attention': True,
        'segmentation_head': True,
    },
}
"""The four rows of the paper's Table 3, as changes of a TerrainConfig."""


class TerrainOutput(NamedTuple):
    """
    What the network says of images (B, 3, H, W), float32.

    Fields:
        class_logits: (B, C), the mean of the pixel logits over the image.
        pixel_logits: (B, C, H, W).

    """

    class_logits: Tensor
    pixel_logits: Tensor


class TerrainModel(CheckpointedModel):
    """
    A timm backbone with attention between its stages, and a segmentation head.

    Fields:
        config: its configuration.
        backbone: timm's stages, by timm's names.
        attention: gates by the name of the stage that they follow.
        last_map: hands on the backbone's last map, (B, K, h, w); Grad-CAM's layer.
        head: from that map to class logits at each of its places.

    """

    def __init__(self, config: TerrainConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone, info = make_backbone(config)
        self.channels_last = str(getattr(self.backbone, 'output_fmt', 'NCHW')).endswith('NHWC')
        channels = info[-1]['num_chs']
        self.attention = nn.ModuleDict()
        if config.channel_attention or config.spatial_attention:
            for stage in info[:-1]:
                gates: list[nn.Module] = []
                if config.channel_attention:
                    gates.append(ChannelAttention(stage['num_chs']))
                if config.spatial_attention:
                    gates.append(SpatialAttention())
                self.attention[stage['module'].replace('.', '_')] = nn.Sequential(*gates)
        self.last_map = nn.Identity()
        classes, width = len(config.class_names), config.head_channels
        self.head: nn.Module = nn.Conv2d(channels, classes, 1)
        if config.segmentation_head:
            self.head = nn.Sequential(
                OrderedDict(
                    reduce=nn.Conv2d(channels, width, 1, bias=False),
                    norm=nn.BatchNorm2d(width),
                    act=nn.ReLU(inplace=False),
                    refine=nn.Conv2d(width, classes, 3, padding=1),
                )
            )

    def forward(self, images: Tensor) -> TerrainOutput:
        """Predict for ImageNet-normalised RGB images (B, 3, H, W)."""
        return self.classify(self.features(images), images.shape[-2:])

    def classify(self, features: Tensor, size: Sequence[int]) -> TerrainOutput:
        """Predict from `features` (B, K, h, w) of images of `size`, (H, W)."""
        logits = self.head(features).float()
        pixel_logits = F.interpolate(
            logits, size=tuple(size), mode='bilinear', align_corners=False
        )
        return TerrainOutput(pixel_logits.mean(dim=(2, 3)), pixel_logits)

    def features(self, images: Tensor) -> Tensor:
        """Return the backbone's last map (B, K, h, w), its stages' maps gated on the way."""
        x = images
        for name, stage in self.backbone.items():
            x = stage(x)
            if name in self.attention:
                # Gates expect channels first, as maps leave the backbone.
                if self.channels_last:
                    x = self.attention[name](x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
                else:
                    x = self.attention[name](x)
        return self.last_map(x.permute(0, 3, 1, 2) if self.channels_last else x)

    def load_imagenet(self) -> None:
        """
        Load timm's own ImageNet weights into the backbone, downloading what is not cached.

        Raises OSError when they can not be had.
        """
        try:
            trained, _ = make_backbone(self.config, pretrained=True)
        except Exception as error:  # the Hub's client raises its transport's errors as they come
            reason = str(error).strip().partition('\n')[0]
            raise OSError(f"no ImageNet weights for '{self.config.backbone}': {reason}") from error
        self.backbone.load_state_dict(trained.state_dict())

    @classmethod
    def from_pretrained(cls, source: str | Path, *, download: bool = False) -> 'TerrainModel':
        """
        Return the network of a checkpoint folder, in float32 on the CPU, set to evaluation.

        `source` is a folder or a Hub id; nothing is fetched unless `download`. Raises OSError when
        it is not found, ValueError when config.json or the weights are damaged, pickled, or do
        not belong together.
        """
        folder = find_checkpoint(source, download=download)
        try:
            model = cls(TerrainConfig.from_dict(read_config(folder)))
        except ValueError as error:
            raise ValueError(f'{folder / CONFIG}: {error}') from None
        assign_weights(model, read_weights(folder), str(folder))
        return model.eval()


def make_backbone(
    config: TerrainConfig, *, pretrained: bool = False
) -> tuple[nn.ModuleDict, list[dict[str, Any]]]:
    """
    Return timm's stages in order, and what timm says of each stage's output.

    Raises ValueError for a network that does not run as a sequence of stages.
    """
    import timm

    name = config.backbone
    default = timm.get_pretrained_cfg(name)
    fixed = default is not None and default.fixed_input_size
    size: dict[str, Any] = {'img_size': config.input_size} if fixed else {}
    try:
        network = timm.create_model(name, features_only=True, pretrained=pretrained, **size)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise ValueError(f"timm's {name} gives no feature maps: {error}") from None
    if not isinstance(network, timm.models.FeatureListNet):
        raise ValueError(f"timm's {name} does not run as a sequence of stages")
    # The map of a stem, finer than the first stage's, is no stage's.
    stages = [dict(stage) for stage in network.feature_info.get_dicts() if stage['reduction'] > 2]
    for module in network.modules():
        # Hooks on gradients need what an in-place operation would overwrite.
        if getattr(module, 'inplace', False):
            module.inplace = False  # type: ignore[assignment]
    return network, stages
