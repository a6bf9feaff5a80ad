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

"""transformers' SamVisionModel with the weights of our encoder, and our network upon it."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

from lunar_perception.models import UnifiedModel
from lunar_perception.models.encoders import SamEncoder, SamEncoderConfig
import torch
from torch import nn, Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import SamVisionConfig, SamVisionModel


def sam_vision_config(config: SamEncoderConfig, side: int) -> SamVisionConfig:
    """Return transformers' configuration of the same encoder for square images of `side` px."""
    return SamVisionConfig(
        hidden_size=config.hidden_size,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        mlp_dim=round(config.hidden_size * config.mlp_ratio),
        global_attn_indexes=list(config.global_blocks),
        window_size=config.window_size,
        patch_size=config.patch_size,
        image_size=side,
        output_channels=config.neck_channels or 256,
    )


def sam_vision_model(encoder: SamEncoder, side: int) -> SamVisionModel:
    """
    Return transformers' model with the encoder's weights, for square images of `side` px.

    Where the encoder has no neck, neither has it. Raises ValueError when the encoder's tables are
    stored for another size.
    """
    if encoder.config.image_size != side:
        raise ValueError(f'the tables are for {encoder.config.image_size} px, not {side}')
    model = SamVisionModel(sam_vision_config(encoder.config, side))
    if encoder.neck is None:
        model.vision_encoder.neck = nn.Identity()
    weights = {
        f'vision_encoder.{name.replace("blocks.", "layers.", 1)}': value
        for name, value in encoder.state_dict().items()
    }
    model.load_state_dict(weights)
    return model.to(encoder.pos_embed.device).eval()


class SamVisionPyramid(nn.Module):
    """
    transformers' SamVisionModel in the place of our `SamEncoder`, giving the same maps.

    Its own code makes every map; a hook adds the detail tokens to its patch embeddings.
    """

    def __init__(self, encoder: SamEncoder, side: int) -> None:
        super().__init__()
        self.model = sam_vision_model(encoder, side)
        self.taps = encoder.config.taps
        self.channels, self.strides = encoder.channels, encoder.strides
        self.multiple = encoder.multiple
        self._extra: Tensor | None = None
        self.model.vision_encoder.patch_embed.register_forward_hook(self._add_extra)

    def _add_extra(self, module: nn.Module, inputs: Any, tokens: Tensor) -> Tensor:
        if self._extra is None:
            return tokens
        return tokens + self._extra.permute(0, 2, 3, 1)

    def forward(self, images: Tensor, extra: Tensor | None = None) -> tuple[Tensor, ...]:
        self._extra = extra
        states = self.model(images, output_hidden_states=True).hidden_states
        return tuple(states[i + 1].permute(0, 3, 1, 2) for i in self.taps)


def with_sam_vision_model(model: UnifiedModel, side: int) -> UnifiedModel:
    """Return a copy of the network that has transformers' SamVisionModel as its encoder."""
    copy = deepcopy(model)
    copy.encoder = cast(SamEncoder, SamVisionPyramid(cast(SamEncoder, model.encoder), side))
    return copy.eval()


def flops(program: Callable[[], Any]) -> int:
    """Return the floating-point operations of the products in a program: 2 × multiply-adds."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        program()
    return counter.get_total_flops()


def encoder_flops(config: SamEncoderConfig, side: int, batch: int = 1) -> int:
    """
    Return the operations of one pass as transformers' plain implementation spells them out.

    It is counted without computing: attention as two matrix products, relative positions as two
    more, windows with their padding. So it does not depend on how we compute the same.
    """
    with torch.device('meta'):
        model = SamVisionModel._from_config(
            sam_vision_config(config, side), attn_implementation='eager'
        )
        if not config.neck_channels:
            model.vision_encoder.neck = nn.Identity()
        images = torch.empty(batch, 3, side, side)
        return flops(lambda: model(images))
