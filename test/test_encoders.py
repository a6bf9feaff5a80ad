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

"""Encoders against transformers' own, at native sizes and others; loading; kept tables."""

from collections import Counter
import copy
from pathlib import Path
import socket

from lunar_perception.models import vit
from lunar_perception.models.encoders import SamEncoder, SamEncoderConfig
from lunar_perception.models.sam2 import Sam2Encoder, Sam2EncoderConfig
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    Sam2Config,
    Sam2Model,
    Sam2VisionConfig,
    Sam2VisionModel,
    SamConfig,
    SamModel,
    SamVisionConfig,
    SamVisionModel,
)

torch.set_num_threads(1)  # tiny tensors: threads would only wait for one another

TOLERANCE = 1e-4


def vision_config(**changes: object) -> SamVisionConfig:
    """Return a tiny SAM whose windows of 3 tokens do not divide its grid of 8."""
    shape = {
        'hidden_size': 32,
        'num_hidden_layers': 4,
        'num_attention_heads': 2,
        'global_attn_indexes': [1, 3],
        'window_size': 3,
        'image_size': 128,
        'output_channels': 24,
        'num_pos_feats': 16,
        'initializer_range': 0.02,
    }
    return SamVisionConfig(**{**shape, **changes})


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Give every parameter a value that matters, positions included (they start at zero)."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            std = 0.5 if 'pos' in name else 0.1
            parameter.add_(torch.randn(parameter.shape, generator=generator) * std)
    return model.eval()


def ours(reference: SamVisionModel | SamModel, tmp_path: Path, **changes: object) -> SamEncoder:
    """Return our encoder, loaded from what transformers saves."""
    reference.save_pretrained(tmp_path)
    return SamEncoder.from_pretrained(tmp_path, neck_channels=24, **changes).eval()


def at_other_size(model: SamVisionModel, size: int) -> SamVisionModel:
    """Return transformers' model built for another native size, its tables resized exactly."""
    config = copy.deepcopy(model.config)
    config.image_size = size
    tokens = size // config.patch_size
    state = model.state_dict()
    for name, value in state.items():
        if name.endswith('pos_embed'):
            grid = value.permute(0, 3, 1, 2)
            grid = F.interpolate(grid, (tokens, tokens), mode='bicubic', align_corners=False)
            state[name] = grid.permute(0, 2, 3, 1)
        elif 'rel_pos' in name and len(value) != 2 * config.window_size - 1:
            line = F.interpolate(value.T[None], 2 * tokens - 1, mode='linear', align_corners=False)
            state[name] = line[0].T
    other = SamVisionModel(config)
    other.load_state_dict(state)
    return other.eval()


def assert_same(maps: tuple[Tensor, ...], reference: SamVisionModel, images: Tensor) -> None:
    """Hold taps after blocks 1 and 3, and the neck, against transformers'."""
    with torch.no_grad():
        expected = reference(images, output_hidden_states=True)
    states = [expected.hidden_states[i + 1].permute(0, 3, 1, 2) for i in (1, 3)]
    for result, truth in zip(maps, (*states, expected.last_hidden_state), strict=True):
        torch.testing.assert_close(result, truth, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize('window', [3, 4])
def test_equals_transformers_at_the_native_size(tmp_path: Path, window: int) -> None:
    reference = randomised(SamVisionModel(vision_config(window_size=window)))
    images = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        assert_same(ours(reference, tmp_path)(images), reference, images)


def test_equals_transformers_at_1024(tmp_path: Path) -> None:
    config = vision_config(
        hidden_size=16,
        num_hidden_layers=2,
        global_attn_indexes=[1],
        window_size=14,
        image_size=1024,
    )
    reference = randomised(SamVisionModel(config))
    images = torch.randn(1, 3, 1024, 1024)
    with torch.no_grad():
        tap, neck = ours(reference, tmp_path)(images)
        expected = reference(images, output_hidden_states=True)
    truth = expected.hidden_states[2].permute(0, 3, 1, 2)
    torch.testing.assert_close(tap, truth, atol=TOLERANCE, rtol=TOLERANCE)
    truth = expected.last_hidden_state
    torch.testing.assert_close(neck, truth, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize('size', [64, 96, 208])
def test_equals_transformers_built_for_another_size(tmp_path: Path, size: int) -> None:
    reference = randomised(SamVisionModel(vision_config()))
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        maps = ours(reference, tmp_path)(images)
    assert_same(maps, at_other_size(reference, size), images)


def test_equals_transformers_layers_on_a_wide_image(tmp_path: Path) -> None:
    """Transformers refuses images that are not square, but its layers do not."""
    reference = randomised(SamVisionModel(vision_config()))
    images = torch.randn(1, 3, 96, 208)
    encoder = reference.vision_encoder
    with torch.no_grad():
        positions = F.interpolate(
            encoder.pos_embed.permute(0, 3, 1, 2), (6, 13), mode='bicubic', align_corners=False
        )
        x = (encoder.patch_embed.projection(images) + positions).permute(0, 2, 3, 1)
        for layer in encoder.layers:
            x = layer(x)
        *_, tap, neck = ours(reference, tmp_path)(images)
        torch.testing.assert_close(tap, x.permute(0, 3, 1, 2), atol=TOLERANCE, rtol=TOLERANCE)
        torch.testing.assert_close(neck, encoder.neck(x), atol=TOLERANCE, rtol=TOLERANCE)


def test_an_oblong_image_can_keep_the_squares_relative_positions(tmp_path: Path) -> None:
    """On request: offsets as in the square of its area, its ends' where they go beyond."""
    table = torch.randn(2 * 8 - 1, 4)
    rows = vit.gather_relative(table, 4, side=8)
    columns = vit.gather_relative(table, 16, side=8)
    query, key = torch.meshgrid(torch.arange(16), torch.arange(16), indexing='ij')
    torch.testing.assert_close(columns, table[(query - key).clamp(-7, 7) + 7])
    torch.testing.assert_close(rows, columns[:4, :4])

    reference = randomised(SamVisionModel(vision_config()))
    stretches = ours(reference, tmp_path)
    keeps = ours(reference, tmp_path, stretch_positions=False)
    with torch.no_grad():
        for size in (128, 96, 208):
            square = torch.randn(1, 3, size, size)
            for kept, stretched in zip(keeps(square), stretches(square), strict=True):
                torch.testing.assert_close(kept, stretched, atol=0, rtol=0)
        # 4 × 16 tokens have the area of 8 × 8, the native grid.
        for block, positions in zip(keeps.blocks, keeps._tables(4, 16).relative, strict=True):
            if not block.window:
                expected = vit.gather_relative(block.attn.rel_pos_w, 16, side=8)
                torch.testing.assert_close(positions.columns, expected)


def test_taps_come_in_the_order_asked_for(tmp_path: Path) -> None:
    reference = randomised(SamVisionModel(vision_config()))
    images = torch.randn(1, 3, 64, 128)
    forwards = ours(reference, tmp_path)(images)
    backwards = SamEncoder.from_pretrained(tmp_path, taps=(3, 1)).eval()
    assert backwards.channels == (32, 32)
    assert backwards.strides == (16, 16)
    maps = backwards(images)
    assert [tuple(m.shape) for m in maps] == [(1, 32, 4, 8)] * 2
    torch.testing.assert_close(maps[::-1], forwards[:2])


def test_a_whole_sam_loads_as_its_vision_model_does(tmp_path: Path) -> None:
    vision = vision_config()
    config = SamConfig(
        vision_config=vision.to_dict(),
        prompt_encoder_config={'hidden_size': 24, 'image_size': 128, 'image_embedding_size': 8},
        mask_decoder_config={
            'hidden_size': 24,
            'num_hidden_layers': 1,
            'num_attention_heads': 2,
            'mlp_dim': 8,
            'iou_head_hidden_dim': 8,
        },
    )
    reference = randomised(SamModel(config))
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        *_, neck = ours(reference, tmp_path)(images)
        truth = reference.vision_encoder(images).last_hidden_state
    torch.testing.assert_close(neck, truth, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize(
    'shape', [(1, 3, 100, 128), (1, 3, 128, 100), (1, 1, 64, 64), (3, 64, 64)]
)
def test_refuses_images_that_do_not_fit_the_patch(shape: tuple[int, ...]) -> None:
    encoder = SamEncoder(small())
    with pytest.raises(ValueError, match=r'multiples of 16|\(B, 3, H, W\)'):
        encoder(torch.zeros(shape))


def small() -> SamEncoderConfig:
    return SamEncoderConfig(
        hidden_size=16,
        depth=2,
        heads=2,
        global_blocks=(1,),
        window_size=3,
        image_size=64,
        taps=(1,),
        neck_channels=8,
    )


def test_gradients_reach_the_positions_at_any_size() -> None:
    torch.manual_seed(0)
    encoder = SamEncoder(small()).train()
    sum(m.square().sum() for m in encoder(torch.randn(1, 3, 96, 48))).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_tables_are_computed_once_a_size_and_forgotten_when_weights_change() -> None:
    torch.manual_seed(0)
    encoder = SamEncoder(small()).eval()
    images = torch.randn(1, 3, 96, 48)

    def fresh() -> tuple[Tensor, ...]:
        twin = SamEncoder(small()).eval()
        twin.load_state_dict(encoder.state_dict())
        with torch.no_grad():
            return twin(images)

    with torch.inference_mode():
        first = encoder(images)
        kept = encoder._tables(6, 3)
        encoder(images)
        assert encoder._tables(6, 3) is kept
        assert encoder._tables(3, 6) is not kept

    with torch.no_grad():
        encoder.pos_embed.mul_(50)  # in place, as an averaged copy is updated
        assert not torch.allclose(encoder(images)[0], first[0])
        torch.testing.assert_close(encoder(images), fresh())

        doubled = {name: 2 * value for name, value in encoder.state_dict().items()}
        encoder.load_state_dict(doubled)
        torch.testing.assert_close(encoder(images), fresh())

        for parameter in encoder.parameters():
            parameter.data = parameter.data / 2  # seen by nobody until train() or eval()
        encoder.train()
        encoder.eval()
        torch.testing.assert_close(encoder(images), fresh())

        assert encoder.to(torch.float64)(images.double())[0].dtype == torch.float64


@pytest.mark.parametrize('size', [(64, 64), (96, 48), (208, 160)])
def test_folded_and_added_biases_are_the_same(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = randomised(SamEncoder(small()))
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        added = encoder(images)
        encoder.folded = True
        folded = encoder(images)
        assert encoder._tables(size[0] // 16, size[1] // 16).relative[0].places is not None
        encoder.folded = False
        monkeypatch.setattr(vit, 'BIAS_VALUES', 1)  # as where many biases would fill the memory
        by_rows = encoder(images)
    for truth, *others in zip(added, folded, by_rows, strict=True):
        for other in others:
            torch.testing.assert_close(other, truth, atol=TOLERANCE, rtol=TOLERANCE)


def test_folding_leaves_heads_alone_that_would_be_too_wide_for_flash_attention() -> None:
    attention = vit.RelativeAttention(192, 3, 14)
    assert attention.positions(14, 14, folded=True).places.shape == (196, 32)  # 28, padded to 8s
    assert attention.positions(96, 96, folded=True).places.shape == (96 * 96, 192)
    assert attention.positions(97, 97, folded=True).places is None


class Operations(TorchDispatchMode):
    """Counts what is computed within it, by the operation's name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func._overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('held', [False, True])
def test_a_pass_looks_nothing_up_and_resizes_no_table(held: bool) -> None:
    """What would need the CPU, or would be computed anew for every frame."""
    encoder = SamEncoder(small()).eval()
    images = torch.randn(1, 3, 96, 48)
    with torch.inference_mode():
        if held:
            encoder.hold_size(96, 48)
        else:
            encoder(images)
        with Operations() as frame:
            encoder(images)
    looked_up = {'index', 'arange', 'upsample_linear1d', 'upsample_bicubic2d', '_to_copy', 'item'}
    assert not looked_up & set(frame.counts)
    with Operations() as anew:
        encoder.train()(images)
    assert {'index', 'arange', 'upsample_linear1d', 'upsample_bicubic2d'} <= set(anew.counts)


def test_a_held_size_lasts_until_the_weights_change() -> None:
    encoder = randomised(SamEncoder(small()))
    images = torch.randn(1, 3, 96, 48)
    with torch.inference_mode():
        expected = encoder(images)
        encoder.hold_size(96, 48)
        torch.testing.assert_close(encoder(images), expected)
        with pytest.raises(RuntimeError):
            encoder(torch.randn(1, 3, 64, 64))
        encoder.eval()
        assert encoder(torch.randn(1, 3, 64, 64))[0].shape == (1, 16, 4, 4)


def test_kept_tables_serve_a_later_pass_with_gradients() -> None:
    encoder = SamEncoder(small()).eval().requires_grad_(False)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        encoder(images)
    images.requires_grad_()
    encoder(images)[0].sum().backward()
    assert images.grad is not None


def test_shapes_are_those_of_the_published_sams() -> None:
    expected = {'base': 89.67e6, 'large': 308.28e6, 'huge': 637.03e6}
    for name, parameters in expected.items():
        with torch.device('meta'):
            config = getattr(SamEncoderConfig, f'sam_vit_{name}')(neck_channels=256)
            encoder = SamEncoder(config)
        count = sum(p.numel() for p in encoder.parameters())
        assert count == pytest.approx(parameters, rel=1e-3), name
        assert len(config.taps) == 4
        assert config.taps[-1] == config.depth - 1


def test_loading_refuses_what_it_cannot_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SamEncoder(small())
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        encoder.load_pretrained(tmp_path / 'nowhere')

    SamVisionModel(vision_config()).save_pretrained(tmp_path / 'other')
    with pytest.raises(ValueError, match='do not fit'):
        encoder.load_pretrained(tmp_path / 'other')

    pickled = tmp_path / 'pickled'
    pickled.mkdir()
    (pickled / 'config.json').write_text('{}')
    (pickled / 'pytorch_model.bin').write_bytes(b'anything')
    with pytest.raises(ValueError, match='pickled'):
        encoder.load_pretrained(pickled)

    def refuse(*_: object) -> None:
        raise AssertionError('the network was used')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    with pytest.raises(FileNotFoundError, match='allow the download'):
        encoder.load_pretrained('nobody/no-such-model')


def sam2_vision_config() -> Sam2VisionConfig:
    return Sam2VisionConfig(
        backbone_config={
            'model_type': 'sam2_hiera_det_model',
            'hidden_size': 8,
            'embed_dim_per_stage': [8, 16, 32, 64],
            'blocks_per_stage': [1, 2, 3, 1],
            'num_attention_heads_per_stage': [1, 2, 4, 8],
            'window_size_per_stage': [8, 4, 6, 3],
            'global_attention_blocks': [4],
        },
        backbone_channel_list=[64, 32, 16, 8],
        fpn_hidden_size=16,
    )


@pytest.mark.parametrize('whole', [False, True])
def test_sam2_gives_its_four_stages(tmp_path: Path, whole: bool) -> None:
    torch.manual_seed(0)
    vision = sam2_vision_config()
    if whole:
        reference = Sam2Model(
            Sam2Config(
                vision_config=vision.to_dict(),
                prompt_encoder_config={'hidden_size': 16},
                mask_decoder_config={'hidden_size': 16, 'num_attention_heads': 2, 'mlp_dim': 8},
            )
        )
        backbone = reference.vision_encoder.backbone
    else:
        reference = Sam2VisionModel(vision)
        backbone = reference.backbone
    randomised(reference).save_pretrained(tmp_path)
    encoder = Sam2Encoder.from_pretrained(tmp_path).eval()
    images = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        maps = encoder(images)
        truth = backbone(images).intermediate_hidden_states
    assert encoder.multiple == 32
    for i, (result, expected) in enumerate(zip(maps, truth, strict=True)):
        assert result.shape == (1, encoder.channels[i], 96 // (4 << i), 160 // (4 << i))
        torch.testing.assert_close(result, expected.permute(0, 3, 1, 2), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match='multiples of 32'):
        encoder(torch.zeros(1, 3, 48, 64))


def test_sam2s_defaults_are_tinys() -> None:
    with torch.device('meta'):
        encoder = Sam2Encoder(Sam2EncoderConfig())
        backbone = Sam2VisionModel(Sam2VisionConfig()).backbone
    assert {name: p.shape for name, p in encoder.named_parameters()} == {
        name: p.shape for name, p in backbone.named_parameters()
    }
