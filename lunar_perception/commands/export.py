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

"""`lunar-perception export`: either network as an ONNX file for other programs."""

from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

from lunar_perception.atomic import atomic_path
from lunar_perception.commands import CommandError
from lunar_perception.inference.backends.onnx_export import export_onnx
from lunar_perception.inference.backends.pixel_network import PixelNetwork
from lunar_perception.inference.predictor import SHIPPED_WEIGHTS
from lunar_perception.models import TerrainModel, UnifiedModel
from lunar_perception.models.checkpoint import find_checkpoint, read_config
from lunar_perception.taxonomy import LUNAR_TERRAIN


class Exported(NamedTuple):
    """A network, the names of what it returns, and what goes into the file's metadata."""

    model: TerrainModel | UnifiedModel
    names: list[str]
    about: dict[str, str]


def run(arguments: Namespace) -> None:
    """Write the file, whole or not at all; CommandError when the network can't be exported."""
    if arguments.output.is_dir():
        raise CommandError(f'{arguments.output} is a folder; name a file, such as network.onnx')
    try:
        model, names, about = load(arguments.model or SHIPPED_WEIGHTS)
        side = model.config.input_size
        with atomic_path(arguments.output) as temporary:
            export_onnx(PixelNetwork(model), names, (side, side), temporary, about)
    except ValueError as error:
        raise CommandError(error) from error
    print(f'{arguments.output}: pixels (1, {side}, {side}, 3) uint8 RGB to {", ".join(names)}')


def load(source: str | Path) -> Exported:
    """Return the network of a checkpoint, of whichever kind it is; raises as `from_pretrained`."""
    if 'class_names' in read_config(find_checkpoint(source)):
        terrain = TerrainModel.from_pretrained(source)
        about = {
            'classes': ', '.join(terrain.config.class_names),
            'temperature': repr(terrain.config.temperature),
        }
        return Exported(terrain, ['class_logits', 'pixel_logits'], about)
    model = UnifiedModel.from_pretrained(source)
    names = ['label_logits', 'depth']
    if model.config.decoder != 'paper':
        names.append('depth_log_scale')
    about = {
        'classes': ', '.join(LUNAR_TERRAIN.names),
        'canonical_focal': repr(model.config.canonical_focal),
        'temperature': repr(model.config.temperature),
        'uncertainty_scale': repr(model.config.uncertainty_scale),
    }
    return Exported(model, names, about)
