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

"""The rows of the tables: which networks, by which configuration, in which table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """
    One row of a table.

    Fields:
        name: of its configuration in configs/protocol/, and of its folder.
        title: what the tables call it.
        baseline: whether it is a single-task network.
        distilled: whether it needs the teacher.
        pretrained: whether its encoder starts from the one trained on other scenes.

    """

    name: str
    title: str
    baseline: bool = False
    distilled: bool = False
    pretrained: bool = False


GROUPS: dict[str, tuple[Row, ...]] = {
    'comparison': (
        Row('unified', 'Unified'),
        Row('segformer', 'SegFormer', baseline=True),
        Row('unetplusplus', 'UNet++', baseline=True),
        Row('maskformer', 'MaskFormer', baseline=True),
        Row('depth_anything', 'DA v2, aligned to the truth', baseline=True),
        Row('depth_anything_metric', 'DA v2, metric', baseline=True),
    ),
    'distillation': (
        Row('unified', 'Unified, no teacher'),
        Row('unified_distilled', 'Unified, inverse depth distilled', distilled=True),
        Row('unified_distilled_literal', "Unified, the paper's literal form", distilled=True),
    ),
    'story': (
        Row('story_plain', 'Plain heads, frozen encoder', pretrained=True),
        Row('story_dilated', '+ dilated, attention, skip', pretrained=True),
        Row('story_last_four', '+ last four blocks', pretrained=True),
        Row('story_distilled', '+ distillation (literal)', pretrained=True, distilled=True),
    ),
    'ours': (
        Row('ours_full', 'Every layer trained', pretrained=True),
        Row('ours_taps', '+ multi-scale taps', pretrained=True),
        Row('ours_detail', '+ stride-2 detail', pretrained=True),
        Row('ours_losses', '+ losses and sampling', pretrained=True),
        Row('ours_uncertainty', '+ uncertainty', pretrained=True),
        Row('ours_transformer_head', '… with a transformer head', pretrained=True),
        Row('ours_l2_adversarial', '… with L2 and adversarial depth', pretrained=True),
    ),
}
