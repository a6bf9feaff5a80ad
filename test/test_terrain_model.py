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

"""The Mars terrain network: outputs, attention, ablation, gradients and checkpoints."""

from dataclasses import asdict, replace
import json
from pathlib import Path

from lunar_perception.models import TerrainConfig, TerrainModel
from lunar_perception.models.attention import ChannelAttention, SpatialAttention
from lunar_perception.models.terrain import ABLATION
from lunar_perception.taxonomy import HIRISE_LANDMARKS
import pytest
from safetensors.torch import load_file
import torch
from torch import nn

torch.set_num_threads(1)  # tiny tensors: threads would only wait for one another

TINY = TerrainConfig(backbone='resnet10t', head_channels=8, input_size=64)


def network(**changes: object) -> TerrainModel:
    torch.manual_seed(0)
    return TerrainModel(replace(TINY, **changes)).eval()


def test_outputs_have_the_inputs_size_and_class_logits_are_the_mean_of_the_pixels() -> None:
    with torch.no_grad():
        output = network()(torch.randn(2, 3, 72, 100))
    assert output.class_logits.shape == (2, 8)
    assert output.pixel_logits.shape == (2, 8, 72, 100)
    torch.testing.assert_close(output.class_logits, output.pixel_logits.mean(dim=(2, 3)))


def test_the_papers_network_is_resnet_50_with_gates_between_its_stages() -> None:
    config = TerrainConfig.paper()
    model = TerrainModel(config)
    assert config.backbone == 'resnet50' and config.input_size == 224
    assert list(model.attention) == ['layer1', 'layer2', 'layer3']
    for gates in model.attention.values():
        assert [type(gate) for gate in gates] == [ChannelAttention, SpatialAttention]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert 23.5e6 < parameters < 26e6  # '~25M'
    kernels = [m.kernel_size for m in model.head.modules() if isinstance(m, nn.Conv2d)]
    assert kernels == [(1, 1), (3, 3)]


def test_channel_attention_is_pooling_two_layers_and_a_sigmoid() -> None:
    torch.manual_seed(1)
    attention, x = ChannelAttention(32, reduction=4), torch.randn(2, 32, 5, 7)
    first, second = attention.gate[2], attention.gate[4]
    hidden = (x.mean(dim=(2, 3)) @ first.weight.T + first.bias).clamp(min=0)
    gate = torch.sigmoid(hidden @ second.weight.T + second.bias)
    torch.testing.assert_close(attention(x), x * gate[:, :, None, None])


def test_spatial_attention_gates_every_channel_alike_at_a_place() -> None:
    torch.manual_seed(1)
    attention, x = SpatialAttention(), torch.rand(2, 6, 9, 9) + 0.5
    gate = attention(x) / x
    torch.testing.assert_close(gate, gate[:, :1].expand_as(gate))
    assert gate.min() > 0 and gate.max() < 1
    assert gate.std() > 0


@pytest.mark.parametrize('row', ABLATION)
def test_each_row_of_the_ablation_is_built_as_it_says(row: str) -> None:
    changes = ABLATION[row]
    model = network(**changes)
    assert bool(len(model.attention)) == changes['channel_attention']
    assert isinstance(model.head, nn.Sequential) == changes['segmentation_head']
    assert model(torch.randn(1, 3, 64, 64)).pixel_logits.shape == (1, 8, 64, 64)


def test_without_a_head_class_logits_are_the_classifier_on_the_pooled_map() -> None:
    model = network(segmentation_head=False)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        pooled = model.features(images).mean(dim=(2, 3))
        expected = pooled @ model.head.weight[:, :, 0, 0].T + model.head.bias
        torch.testing.assert_close(model(images).class_logits, expected)


@pytest.mark.parametrize('backbone', ['resnet10t', 'swin_s3_tiny_224', 'convnext_atto'])
def test_gradients_reach_every_parameter_through_any_kind_of_backbone(backbone: str) -> None:
    model = network(backbone=backbone).train()
    assert len(model.attention) == 3
    output = model(torch.randn(2, 3, 64, 64))
    output.class_logits.square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []


def test_nothing_is_in_place_so_that_hooks_on_gradients_work() -> None:
    model = network()
    assert not any(getattr(module, 'inplace', False) for module in model.modules())
    seen: list[torch.Size] = []
    model.last_map.register_full_backward_hook(lambda _m, _i, out: seen.append(out[0].shape))
    model(torch.randn(1, 3, 64, 64)).class_logits[0, 3].backward()
    assert seen == [torch.Size((1, 512, 2, 2))]


def test_an_image_does_not_depend_on_the_others_in_its_batch() -> None:
    model, images = network(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images).class_logits[1:], model(images[1:]).class_logits)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'backbone': 'resnet5'}, "did you mean 'resnet5"),
        ({'backbone': 'hf-hub:timm/resnet50'}, 'no backbone'),
        ({'head_channels': 0}, 'head_channels'),
        ({'input_size': 'large'}, 'input_size'),
        ({'temperature': 0.0}, 'temperature'),
        ({'channel_attention': 1}, 'channel_attention'),
        ({'class_names': ('crater',)}, 'class_names'),
        ({'class_names': ('crater', 'crater')}, 'class_names'),
    ],
)
def test_a_configuration_that_makes_no_network_is_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


def test_a_backbone_that_is_no_sequence_of_stages_is_refused() -> None:
    with pytest.raises(ValueError, match='does not run as a sequence of stages'):
        network(backbone='vit_tiny_patch16_224')


def test_a_saved_network_says_the_same_when_loaded(tmp_path: Path) -> None:
    model = network(temperature=1.5, class_names=('sand', 'rock', 'ice'))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 64, 64))  # BatchNorm's buffers are saved too
        model.eval().save_pretrained(tmp_path)
        loaded = TerrainModel.from_pretrained(tmp_path)
        torch.testing.assert_close(loaded(images), model(images))
    assert loaded.config == model.config
    assert not loaded.training
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'config.json',
        'model.safetensors',
    ]


def test_half_weights_load_as_float32(tmp_path: Path) -> None:
    network().save_pretrained(tmp_path, half=True)
    stored = load_file(tmp_path / 'model.safetensors')
    assert stored['head.refine.weight'].dtype == torch.float16
    assert stored['head.norm.running_var'].dtype == torch.float32
    loaded = TerrainModel.from_pretrained(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    network().save_pretrained(tmp_path)
    settings = asdict(TINY)
    for changes, message in (
        ({'backbone': 'resnet18'}, 'do not fit'),
        ({'colour': 'red'}, "has no 'colour'"),
        ({'head_channels': -1}, 'head_channels'),
    ):
        (tmp_path / 'config.json').write_text(json.dumps({**settings, **changes}))
        with pytest.raises(ValueError, match=message):
            TerrainModel.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        TerrainModel.from_pretrained(tmp_path / 'absent')


def test_the_taxonomy_has_the_data_sets_ids() -> None:
    assert HIRISE_LANDMARKS.ids_of(('other', 'crater', 'impact ejecta', 'spider')) == (0, 1, 5, 7)
    assert len(HIRISE_LANDMARKS) == len(set(HIRISE_LANDMARKS.colors)) == 8
