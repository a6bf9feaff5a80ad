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

"""`lunar-perception export`: the unified network as an ONNX file for other programs."""

from argparse import Namespace

from lunar_perception.atomic import atomic_path
from lunar_perception.commands import CommandError
from lunar_perception.inference.backends.onnx_export import export_onnx
from lunar_perception.inference.backends.pixel_network import PixelNetwork
from lunar_perception.inference.predictor import SHIPPED_WEIGHTS
from lunar_perception.models import UnifiedModel
from lunar_perception.taxonomy import LUNAR_TERRAIN


def run(arguments: Namespace) -> None:
    """Write the file, whole or not at all; CommandError when the network can't be exported."""
    if arguments.output.is_dir():
        raise CommandError(f'{arguments.output} is a folder; name a file, such as network.onnx')
    try:
        model = UnifiedModel.from_pretrained(arguments.model or SHIPPED_WEIGHTS)
        names = ['label_logits', 'depth']
        if model.config.decoder != 'paper':
            names.append('depth_log_scale')
        side = model.config.input_size
        about = {
            'classes': ', '.join(LUNAR_TERRAIN.names),
            'canonical_focal': repr(model.config.canonical_focal),
            'temperature': repr(model.config.temperature),
            'uncertainty_scale': repr(model.config.uncertainty_scale),
        }
        with atomic_path(arguments.output) as temporary:
            export_onnx(PixelNetwork(model), names, (side, side), temporary, about)
    except ValueError as error:
        raise CommandError(error) from error
    print(f'{arguments.output}: pixels (1, {side}, {side}, 3) uint8 RGB to {", ".join(names)}')
