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

"""What a terrain network costs, beside the paper's Table 2."""

from statistics import median
from time import perf_counter

from lunar_perception.machine import processor
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from train.terrain import make_network
from train.terrain_config import TerrainTrainConfig
from train.terrain_study import rows_of
from train.terrain_tables import markdown

PAPER_TABLE_2 = ('ResNet-50', '224 × 224', '~25M', '', '~4', '~25–30')
FIGURES = ('GFLOP', 'GMAC', 'milliseconds')


def cost(model: nn.Module, size: int, runs: int = 20) -> dict[str, float]:
    """
    Return what one image of side `size` costs a network.

    `parameters` counts; `gflop` is 2 × multiply-accumulates of convolutions and products, 1e9;
    `gmac` half of it; `milliseconds` the median of `runs` single images after three.
    """
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, size, size, device=device)
    model.eval()
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            model(image)
        times = []
        for _ in range(runs + 3):
            start = perf_counter()
            model(image)
            if device.type == 'cuda':
                torch.cuda.synchronize()
            times.append(perf_counter() - start)
    flop = counter.get_total_flops()
    return {
        'parameters': sum(parameter.numel() for parameter in model.parameters()),
        'gflop': flop / 1e9,
        'gmac': flop / 2e9,
        'milliseconds': 1000 * median(times[3:]),
    }


def describe_networks(config: TerrainTrainConfig) -> str:
    """
    Return what networks cost beside the paper's Table 2, as Markdown.

    The paper's own network, `config`'s, and the baselines that it is compared with.
    """
    ours = {
        "the paper's network, ours": TerrainTrainConfig(steps=1),
        f'{config.network}, {config.backbone}': config,
        **{name: row for name, row in rows_of(config).items() if row.network != 'attention'},
    }
    chosen = config.device if config.device != 'auto' else 'cpu'
    found = {
        name: cost(make_network(row).to(chosen), row.size, runs=10) for name, row in ours.items()
    }
    table = [['', 'backbone', 'input, pixels', 'parameters', *FIGURES]]
    table.append(['the paper, Table 2', *PAPER_TABLE_2])
    for name, row in ours.items():
        figures = found[name]
        table.append(
            [
                name,
                row.backbone,
                f'{row.size} × {row.size}',
                f'{figures["parameters"] / 1e6:.2f}M',
                f'{figures["gflop"]:.2f}',
                f'{figures["gmac"]:.2f}',
                f'{figures["milliseconds"]:.1f}',
            ]
        )
    where = torch.cuda.get_device_name() if chosen.startswith('cuda') else processor()
    return (
        f'{markdown(table)}\n\n'
        'GFLOP = 2 × multiply-accumulates of convolutions and matrix products, GMAC = half of it. '
        "The paper's '~4 GFLOPs' are multiply-accumulates: it stands under GMAC.\n"
        f'Milliseconds: ours on {where}, {torch.get_num_threads()} threads, one image at once, '
        "median of 10; the paper's on a GPU that it does not name."
    )
