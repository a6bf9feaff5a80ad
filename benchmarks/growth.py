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
Time the shipped network on more and more pixels, and on more and more images at once.

    python -m benchmarks.growth [--repeats N] [--threads N] [--device D] [--output JSON]

The network alone, on torch eager: square images from 224² to 1344² one at a time, and 448² ones
in batches. Sides are multiples of 224 px, at which no attention window is padded.
"""

from functools import partial
from statistics import median
from typing import Any

from benchmarks.record import write_record
from benchmarks.setting import arguments, prepare, SIDE
from lunar_perception.inference.predictor import SHIPPED_WEIGHTS
from lunar_perception.models import UnifiedModel
from lunar_perception.timing import run_in_turn, spread
import torch

SIDES = (224, 448, 672, 896, 1120, 1344)
BATCHES = (1, 2, 4, 8)


def main() -> None:
    parser = arguments(__doc__.splitlines()[1], repeats=3)
    options = parser.parse_args()
    synchronise = prepare(options)
    device = torch.device(options.device)
    model = UnifiedModel.from_pretrained(SHIPPED_WEIGHTS).to(device)

    def run(images: torch.Tensor) -> Any:
        lower = device.type == 'cuda'
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=lower):
            return model(images)

    shapes = {
        **{f'{side}²': (1, side) for side in SIDES},
        **{f'{batch} × {SIDE}²': (batch, SIDE) for batch in BATCHES if batch > 1},
    }
    programs = {
        name: partial(run, torch.randn(batch, 3, side, side, device=device))
        for name, (batch, side) in shapes.items()
    }
    times = run_in_turn(programs, options.repeats, synchronise=synchronise)
    rows = [
        {
            'batch': batch,
            'side': side,
            'milliseconds': spread([1e3 * second for second in times[name]], 3),
            'images_per_s': round(batch / median(times[name]), 3),
            'megapixels_per_s': round(batch * side**2 / median(times[name]) / 1e6, 3),
        }
        for name, (batch, side) in shapes.items()
    ]
    print(rows)
    if options.output:
        write_record(options.output, {'rows': rows})


if __name__ == '__main__':
    main()
