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

"""
Measure the paper's network (SAM-ViT-H, 1024²) as a whole: stages, memory, getting ready, node.

    python -m benchmarks.huge --device cuda [--config NAME] [--repeats N] [--output JSON]

Its weights are random. On a GPU it computes in bfloat16. The encoder by itself, beside the rate of
matrix products, is in benchmarks.encoder.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.fixed_outputs import MAIN_TOPICS
from benchmarks.node import measure as measure_node
from benchmarks.record import write_record
from benchmarks.setting import arguments, prepare
from lunar_perception.commands.bench import describe, measure
from lunar_perception.commands.local_dds import use_local_dds
from lunar_perception.commands.node_process import NodeProcess
from lunar_perception.models import UnifiedConfig, UnifiedModel
import torch

CONFIGS = {
    'paper': UnifiedConfig.paper,
    'base': UnifiedConfig.base,
    'rover': UnifiedConfig.rover,
}
BACKENDS = ('torch', 'compile')
RATES = [10.0, 30.0]


def main() -> None:
    parser = arguments(__doc__.splitlines()[1], repeats=7)
    parser.add_argument('--config', choices=CONFIGS, default='paper', help='(%(default)s)')
    options = parser.parse_args()
    prepare(options)
    torch.manual_seed(0)
    config = CONFIGS[options.config]()
    side = config.input_size
    results: dict[str, Any] = {'config': options.config}
    with TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / 'model'
        UnifiedModel(config).save_pretrained(model)
        results |= measure(
            (side,), options.repeats, device=options.device, model=model, backends=BACKENDS
        )
        print(describe(results))
        use_local_dds(folder)
        parameters = {'model': model, 'device': options.device}
        with NodeProcess(parameters, folder / 'node.txt') as node:
            figures = measure_node(node, side, RATES, 1)
        results['node'] = {'listened_to': list(MAIN_TOPICS), 'by_side': {str(side): figures}}
    print(results['node'])
    if options.output:
        write_record(options.output, results)


if __name__ == '__main__':
    main()
