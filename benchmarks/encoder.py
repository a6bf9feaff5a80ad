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
Time our SAM encoder against transformers' SamVisionModel and against bare matrix products.

    python -m benchmarks.encoder [--repeats N] [--threads N] [--device D] [--output JSON]

Both hold the same weights, and what they say is compared first. The roofline is the rate of one
large matrix product, measured in the same rounds; operations are those that transformers' plain
implementation spells out. On the CPU in float32: the rover's encoder at 448² and SAM-ViT-B's at
1024². On a GPU in bfloat16: SAM-ViT-H's at 1024² too.
"""

from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from benchmarks.record import write_record
from benchmarks.roofline import matrix_product
from benchmarks.sam import encoder_flops, sam_vision_model
from benchmarks.setting import arguments, camera_image, prepare
from lunar_perception.inference.backends import NetworkRunner, PixelNetwork
from lunar_perception.models import UnifiedConfig
from lunar_perception.models.encoders import SamEncoder, SamEncoderConfig
from lunar_perception.timing import run_in_turn, spreads
import numpy as np
import torch
from torch import nn, Tensor
from transformers import SamVisionModel


class Case(NamedTuple):
    """An encoder, and the side in pixels of its square images."""

    config: SamEncoderConfig
    side: int


CASES = {
    'rover': Case(UnifiedConfig.rover().encoder, 448),
    'sam-vit-base': Case(SamEncoderConfig.sam_vit_base(neck_channels=256), 1024),
    'sam-vit-huge': Case(SamEncoderConfig.sam_vit_huge(neck_channels=256), 1024),
}


def main() -> None:
    parser = arguments(__doc__.splitlines()[1], repeats=3)
    parser.add_argument('--cases', nargs='+', choices=CASES, help='(all that suit the device)')
    options = parser.parse_args()
    synchronise = prepare(options)
    device = torch.device(options.device)
    suited = [name for name in CASES if device.type == 'cuda' or 'huge' not in name]
    results = {}
    for name in options.cases or suited:
        # A small one varies more, and costs little.
        repeats = options.repeats * (5 if name == 'rover' else 1)
        results[name] = measure(CASES[name], device, repeats, synchronise)
        print(name, results[name])
    if options.output:
        write_record(options.output, results)


def measure(
    case: Case, device: torch.device, repeats: int, synchronise: Callable[[], None]
) -> dict[str, Any]:
    """Return times of both encoders and of the matrix product, and their ratios."""
    torch.manual_seed(0)
    precision = torch.bfloat16 if device.type == 'cuda' else torch.float32
    ours = SamEncoder(case.config).to(device).eval()
    enliven(ours)
    theirs = sam_vision_model(ours, case.side)
    runner = NetworkRunner(LastMap(ours), device=device, precision=precision, backend='auto')
    pixels = camera_image(case.side, case.side)
    images = normalised(pixels).to(device)
    product, product_operations = matrix_product(device, precision)

    def lower(program: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with (
                torch.inference_mode(),
                torch.autocast(device.type, precision, enabled=precision != torch.float32),
            ):
                return program()

        return run

    programs = {
        'default': lambda: runner(pixels)[0],
        'eager': lower(lambda: ours(images)[-1]),
        'transformers': lower(lambda: last_map(theirs, images)),
        'product': product,
    }
    reference = programs['transformers']()
    differences = {
        name: (programs[name]() - reference).abs().max().item() for name in ('default', 'eager')
    }
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        programs['eager']()
    times = run_in_turn(programs, repeats, synchronise=synchronise)
    seconds = {name: median(samples) for name, samples in times.items()}
    operations = encoder_flops(case.config, case.side)
    product_rate = product_operations / seconds['product']
    return {
        'side': case.side,
        'precision': str(precision).removeprefix('torch.'),
        'backend': runner.backend,
        'largest_difference': differences,
        'milliseconds': spreads(times),
        'gflop': round(operations / 1e9, 1),
        'product_gflop_per_s': round(product_rate / 1e9, 1),
        'share_of_roofline': {
            name: round(operations / seconds[name] / product_rate, 3)
            for name in ('default', 'eager', 'transformers')
        },
        'speed_over_transformers': {
            name: round(seconds['transformers'] / seconds[name], 3)
            for name in ('default', 'eager')
        },
        **(
            {'peak_memory_mib': round(torch.cuda.max_memory_allocated(device) / 2**20)}
            if device.type == 'cuda'
            else {}
        ),
    }


class LastMap(nn.Module):
    """An encoder of which only the map that comes last is wanted."""

    def __init__(self, encoder: SamEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images)[-1]


def normalised(pixels: np.ndarray) -> Tensor:
    """Return an image (H, W, 3) uint8 RGB as the networks take it, (1, 3, H, W) float32."""
    network = PixelNetwork(nn.Conv2d(1, 1, 1))
    return (torch.from_numpy(pixels).permute(2, 0, 1)[None] * network.scale) + network.offset


def last_map(model: SamVisionModel, images: Tensor) -> Tensor:
    """Return the map (B, C, h, w) that comes last; without a neck it comes as (B, h, w, C)."""
    features, neck = model(images).last_hidden_state, model.vision_encoder.neck
    return features.permute(0, 3, 1, 2) if isinstance(neck, nn.Identity) else features


def enliven(encoder: SamEncoder) -> None:
    """Give the position tables random values, so that comparing outputs tests them too."""
    for name, parameter in encoder.named_parameters():
        if 'pos' in name:
            nn.init.normal_(parameter, std=0.02)


if __name__ == '__main__':
    main()
