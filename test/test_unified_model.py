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

"""The unified network: its configurations, outputs, gradients and checkpoints."""

from copy import deepcopy
from dataclasses import asdict, replace
import json
from math import log
from pathlib import Path
import pickle
import socket

from lunar_perception.models import UnifiedConfig, UnifiedModel
from lunar_perception.models.encoders import SamEncoderConfig
from lunar_perception.models.sam2 import Sam2EncoderConfig
import pytest
from safetensors.torch import load_file, save_file
import torch
from torch import nn, Tensor

torch.set_num_threads(1)  # tiny tensors: threads would only wait for one another


def tiny_encoder(**changes: object) -> SamEncoderConfig:
    shape = {
        'hidden_size': 16,
        'depth': 4,
        'heads': 2,
        'global_blocks': (1, 3),
        'window_size': 3,
        'image_size': 64,
        'taps': (0, 1, 2, 3),
    }
    return SamEncoderConfig(**{**shape, **changes})


def tiny(name: str) -> UnifiedConfig:
    """Return a small network built like `paper`, `base`, `rover`, or with SAM 2's encoder."""
    if name == 'paper':
        encoder = tiny_encoder(taps=(), neck_channels=16)
        return replace(UnifiedConfig.paper(), encoder=encoder, decoder_channels=8, input_size=64)
    if name == 'sam2':
        hiera = Sam2EncoderConfig(
            channels=(8, 12, 16, 24), blocks=(1, 1, 2, 1), heads=(1, 1, 2, 2), global_blocks=(3,)
        )
        return UnifiedConfig(hiera, decoder_channels=8, detail_channels=(6,), input_size=64)
    detail = (6,) if name == 'base' else (6, 6, 8, 8)
    return UnifiedConfig(tiny_encoder(), decoder_channels=8, detail_channels=detail, input_size=64)


NETWORKS = ['paper', 'base', 'rover', 'sam2']


def network(name: str) -> UnifiedModel:
    torch.manual_seed(0)
    return UnifiedModel(tiny(name)).eval()


@pytest.mark.parametrize('name', NETWORKS)
def test_outputs_have_the_inputs_size(name: str) -> None:
    output = network(name)(torch.randn(2, 3, 96, 160))
    assert output.label_logits.shape == (2, 5, 96, 160)
    assert output.depth.shape == (2, 1, 96, 160)
    assert output.depth.min() > 0
    if name == 'paper':
        assert output.depth_log_scale is None
    else:
        assert output.depth_log_scale.shape == (2, 1, 96, 160)
        # A rover's ordinary view before anything is learnt.
        assert 4 < output.depth.median() < 16
    assert all(t.isfinite().all() and t.dtype == torch.float32 for t in output if t is not None)


def test_sides_that_are_odd_multiples_of_the_patch_are_fine() -> None:
    output = network('rover')(torch.randn(1, 3, 48, 80))
    assert output.depth.shape == (1, 1, 48, 80)
    with pytest.raises(ValueError, match='multiples of 16'):
        network('rover')(torch.randn(1, 3, 50, 80))


@pytest.mark.parametrize('name', NETWORKS)
def test_an_image_does_not_depend_on_the_others_in_its_batch(name: str) -> None:
    model = network(name)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        together, alone = model(images), model(images[1:])
    torch.testing.assert_close(together.label_logits[1:], alone.label_logits)
    torch.testing.assert_close(together.depth[1:], alone.depth)


@pytest.mark.parametrize('name', NETWORKS)
def test_gradients_reach_every_parameter_that_is_trained(name: str) -> None:
    model = network(name)
    model.train()
    output = model(torch.randn(2, 3, 64, 64))
    loss = output.label_logits.square().mean() + output.depth.log().square().mean()
    if output.depth_log_scale is not None:
        loss = loss + output.depth_log_scale.square().mean()
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), parameter_name


def test_the_small_network_learns_an_image_by_heart() -> None:
    model = network('rover').train()
    labels = torch.zeros(2, 64, 64, dtype=torch.long)
    labels[0, :, 32:] = labels[1, :20] = 3
    images = 0.2 * torch.randn(2, 3, 64, 64) + labels[:, None]
    depth = 2 + labels[:, None].float() * 10
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        output = model(images)
        loss = nn.functional.cross_entropy(output.label_logits, labels)
        loss = loss + (output.depth.log() - depth.log()).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]


def test_copies_and_pickles_for_other_processes_work() -> None:
    model = network('rover')
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = model(images).depth
    for twin in (deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            torch.testing.assert_close(twin(images).depth, expected)


def test_blocks_are_named_for_layerwise_learning_rates() -> None:
    for name, depth in (('rover', 4), ('sam2', 5)):
        names = {n.split('.')[2] for n, _ in network(name).named_parameters() if '.blocks.' in n}
        assert names == {str(i) for i in range(depth)}
        assert any(n.startswith('encoder.blocks.0.') for n in network(name).state_dict())


def test_paper_is_as_the_paper_has_it() -> None:
    with torch.device('meta'):
        model = UnifiedModel(UnifiedConfig.paper())
    encoder = model.config.encoder
    assert (encoder.hidden_size, encoder.depth, encoder.heads) == (1280, 32, 16)
    trained = {n for n, p in model.encoder.named_parameters() if p.requires_grad}
    expected = {
        n
        for n, _ in model.encoder.named_parameters()
        if n.startswith(('blocks.28.', 'blocks.29.', 'blocks.30.', 'blocks.31.'))
    }
    assert trained == expected
    convolution, norm, relu, last = (
        m for m in model.segmentation_head.modules() if not list(m.children())
    )
    assert (convolution.in_channels, convolution.out_channels) == (256, 128)
    assert convolution.kernel_size == (3, 3)
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(relu, nn.ReLU)
    assert (last.kernel_size, last.out_channels) == ((1, 1), 5)
    dilations = {m.dilation for m in model.depth_head.modules() if isinstance(m, nn.Conv2d)}
    assert max(dilations) > (1, 1)
    assert all(p.requires_grad for p in model.depth_head.parameters())


def test_the_papers_depth_is_a_share_of_its_maximum() -> None:
    model = network('paper')
    for bias, expected in ((30.0, 100.0), (-30.0, 0.0), (0.0, 50.0)):
        nn.init.zeros_(model.depth_head.predict.weight)
        nn.init.constant_(model.depth_head.predict.bias, bias)
        depth = model(torch.randn(1, 3, 64, 64)).depth
        torch.testing.assert_close(depth, torch.full_like(depth, expected))


@pytest.mark.parametrize('name', NETWORKS)
def test_depth_of_an_oblong_image_is_for_the_focal_length_of_its_width(name: str) -> None:
    """What the heads answer is for the square of its area, √(H / W) as wide."""
    model = network(name)
    nn.init.zeros_(model.depth_head.predict.weight)
    depth = {
        size: model(torch.randn(1, 3, *size)).depth.median() for size in ((64, 64), (64, 256))
    }
    torch.testing.assert_close(depth[64, 256], 2 * depth[64, 64])
    torch.testing.assert_close(model(torch.randn(1, 3, 256, 64)).depth.median(), depth[64, 64] / 2)


def test_rover_is_small_enough_to_ship(tmp_path: Path) -> None:
    model = UnifiedModel(UnifiedConfig.rover())
    assert sum(p.numel() for p in model.parameters()) <= 7_000_000
    model.save_pretrained(tmp_path, half=True)
    assert (tmp_path / 'model.safetensors').stat().st_size <= 16 * 2**20
    assert model.config.input_size == 448
    with torch.no_grad():
        assert model.eval()(torch.randn(1, 3, 224, 224)).depth.shape == (1, 1, 224, 224)


@pytest.mark.parametrize('name', ['paper', 'base', 'rover'])
def test_no_activation_works_in_place(name: str) -> None:
    with torch.device('meta'):
        model = UnifiedModel(getattr(UnifiedConfig, name)())
    assert not any(getattr(m, 'inplace', False) for m in model.modules())


def test_depth_stays_in_range_and_keeps_a_gradient_whatever_the_head_says() -> None:
    model = network('rover')
    head = model.depth_head
    nn.init.zeros_(head.predict.weight)
    for bias, expected in ((5.0, torch.e**5), (3000.0, 1000.0), (-3000.0, 0.3)):
        nn.init.constant_(head.predict.bias, bias)
        output = model(torch.randn(1, 3, 64, 64))
        torch.testing.assert_close(
            output.depth, torch.full_like(output.depth, expected), rtol=1e-2, atol=0
        )
        assert output.depth_log_scale.abs().max() < 6
    just_outside = torch.tensor([log(1000) + 0.5, log(0.3) - 0.5], requires_grad=True)
    head.soft_clamp(just_outside, log(0.3), log(1000)).sum().backward()
    assert (just_outside.grad > 0.05).all()


@pytest.mark.parametrize('name', NETWORKS)
def test_lower_precision_answers_in_float32_and_nearly_the_same(name: str) -> None:
    model = network(name)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        full = model(images)
        with torch.autocast('cpu', torch.bfloat16):
            lower = model(images)
    assert all(t.dtype == torch.float32 for t in lower if t is not None)
    torch.testing.assert_close(lower.depth, full.depth, rtol=0.1, atol=0)
    scale = full.label_logits.std()
    assert (lower.label_logits - full.label_logits).abs().max() < 0.3 * scale


# Configurations


@pytest.mark.parametrize('name', ['paper', 'base', 'rover'])
def test_configurations_survive_json(name: str) -> None:
    config = getattr(UnifiedConfig, name)()
    assert UnifiedConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config
    assert hash(config) == hash(getattr(UnifiedConfig, name)())
    sam2 = tiny('sam2')
    assert UnifiedConfig.from_dict(json.loads(json.dumps(asdict(sam2)))) == sam2


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'max_dept': 10.0}, "no 'max_dept'; did you mean 'max_depth'"),
        ({'encoder': {'hiden_size': 8}}, "did you mean 'hidden_size'"),
        ({'encoder': {'kind': 'vgg'}}, "kind 'sam' or 'sam2'"),
        ({'encoder': 5}, "kind 'sam' or 'sam2'"),
        ({'max_depth': -1.0}, 'max_depth = -1.0 must be a positive number'),
        ({'max_depth': '1000'}, 'must be a positive number'),
        ({'temperature': float('nan')}, 'temperature = nan'),
        ({'temperature': 0}, 'temperature = 0'),
        ({'input_size': 448.5}, 'must be an integer'),
        ({'detail_channels': 32}, 'must be a list of integers'),
        ({'detail_channels': []}, 'need 1 to 4 widths'),
        ({'trainable_blocks': -1}, 'at least 0'),
        ({'decoder': 'unet'}, "must be 'pyramid' or 'paper'"),
        ({'decoder': 'paper'}, 'no detail stem'),
        ({'encoder': {'heads': 7}}, '7 heads do not divide'),
        ({'encoder': {'taps': [2, 5, 8, 12]}}, 'go beyond depth 12'),
        ({'encoder': {'taps': [2, 5, 8]}}, 'needs 4 taps'),
        ({'encoder': {'taps': []}}, 'gives no map'),
        ({'encoder': {'image_size': 100}}, 'no multiple of patch_size'),
        ({'encoder': {'stretch_positions': 'no'}}, 'must be true or false'),
        ({'encoder': {'kind': 'sam2', 'blocks': [1, 2]}}, 'each of 4 stages'),
        ({'encoder': {'kind': 'sam2', 'channels': [8, 8, 16, 32]}}, 'must change from stage'),
    ],
)
def test_bad_configurations_are_refused_in_words(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace('(', r'\(')):
        UnifiedConfig.from_dict(values)


# Checkpoints


def assert_equal_outputs(first: UnifiedModel, second: UnifiedModel, tolerance: float) -> None:
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for a, b in zip(first.eval()(images), second(images), strict=True):
            if a is not None:
                torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize('name', NETWORKS)
def test_a_checkpoint_holds_the_network(tmp_path: Path, name: str) -> None:
    model = network(name)
    model.train()(torch.randn(2, 3, 64, 64))  # moves BatchNorm's statistics too
    model.save_pretrained(tmp_path / 'new' / 'folder')
    assert {f.name for f in (tmp_path / 'new' / 'folder').iterdir()} == {
        'config.json',
        'model.safetensors',
    }
    loaded = UnifiedModel.from_pretrained(tmp_path / 'new' / 'folder')
    assert loaded.config == model.config
    assert not loaded.training
    assert_equal_outputs(model, loaded, 0)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == trained


def test_half_precision_weights_load_as_float32(tmp_path: Path) -> None:
    model = network('rover')
    (tmp_path / 'metrics.json').write_text('{}')
    model.save_pretrained(tmp_path)
    whole = (tmp_path / 'model.safetensors').stat().st_size
    model.save_pretrained(str(tmp_path), half=True)  # over an existing one
    assert (tmp_path / 'model.safetensors').stat().st_size < 0.7 * whole
    assert (tmp_path / 'metrics.json').exists()
    loaded = UnifiedModel.from_pretrained(str(tmp_path))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert_equal_outputs(model, loaded, 2e-2)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_loaded_network_does_not_hang_on_its_file(tmp_path: Path) -> None:
    model = network('rover')
    model.save_pretrained(tmp_path)
    loaded = UnifiedModel.from_pretrained(tmp_path)
    weights = tmp_path / 'model.safetensors'
    size = weights.stat().st_size
    with weights.open('r+b') as file:
        file.write(b'\0' * size)
    assert_equal_outputs(model, loaded, 0)


def test_a_failed_save_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network('rover')
    model.save_pretrained(tmp_path)
    before = (tmp_path / 'model.safetensors').read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError('no space left')

    monkeypatch.setattr('lunar_perception.models.checkpoint.save_file', full_disk)
    with pytest.raises(OSError, match='no space'):
        network('base').save_pretrained(tmp_path, half=True)
    assert (tmp_path / 'model.safetensors').read_bytes() == before
    assert {f.name for f in tmp_path.iterdir()} == {'config.json', 'model.safetensors'}
    assert UnifiedModel.from_pretrained(tmp_path).config == model.config


class _Trap:
    """What a hostile pickle may do when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    folder = tmp_path / 'model'
    network('rover').save_pretrained(folder)
    (folder / 'model.safetensors').unlink()
    sprung = tmp_path / 'sprung'
    (folder / 'pytorch_model.bin').write_bytes(pickle.dumps(_Trap(sprung)))
    with pytest.raises(ValueError, match='pickled') as error:
        UnifiedModel.from_pretrained(folder)
    assert '\n' not in str(error.value)
    assert not sprung.exists()


def spoil(folder: Path, fault: str) -> None:
    """Break a sound checkpoint in one way."""
    config, weights = folder / 'config.json', folder / 'model.safetensors'
    tensors: dict[str, Tensor] = load_file(weights)
    name = 'encoder.pos_embed'
    if fault == 'unknown key':
        config.write_text(config.read_text().replace('max_depth', 'max_dept'))
    elif fault == 'no JSON':
        config.write_text(config.read_text()[:40])
    elif fault == 'no object':
        config.write_text('[1, 2]')
    elif fault == 'other config':
        UnifiedModel(tiny('base')).save_pretrained(folder / 'base')
        (folder / 'base' / 'config.json').replace(config)
    elif fault == 'other shape':
        save_file({**tensors, name: tensors[name][..., :8].contiguous()}, weights)
    elif fault == 'missing weight':
        del tensors[name]
        save_file(tensors, weights)
    elif fault == 'cut short':
        weights.write_bytes(weights.read_bytes()[:-100])
    elif fault == 'empty file':
        weights.write_bytes(b'')
    elif fault == 'noise':
        weights.write_bytes(b'\xff' * 1000)


@pytest.mark.parametrize(
    ('fault', 'message'),
    [
        ('unknown key', "did you mean 'max_depth'"),
        ('no JSON', 'not JSON'),
        ('no object', 'not a JSON object'),
        ('other config', 'do not fit'),
        ('other shape', r'1 of another shape \(such as encoder.pos_embed\)'),
        ('missing weight', r'1 missing \(such as encoder.pos_embed\)'),
        ('cut short', 'damaged'),
        ('empty file', 'damaged'),
        ('noise', 'damaged'),
    ],
)
def test_broken_checkpoints_are_refused_in_one_line(
    tmp_path: Path, fault: str, message: str
) -> None:
    network('rover').save_pretrained(tmp_path)
    spoil(tmp_path, fault)
    with pytest.raises(ValueError, match=message) as error:
        UnifiedModel.from_pretrained(tmp_path)
    assert '\n' not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_missing_checkpoints_are_named_and_nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError('the network was used')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        UnifiedModel.from_pretrained(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='allow the download'):
        UnifiedModel.from_pretrained('nobody/no-such-model')
    with pytest.raises(FileNotFoundError, match=r'no config\.json'):
        UnifiedModel.from_pretrained(tmp_path)
    (tmp_path / 'config.json').write_text('{}')
    with pytest.raises(FileNotFoundError, match=r'no model\.safetensors'):
        UnifiedModel.from_pretrained(tmp_path)
