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
Time the network alone on every backend that is installed, in turn, on one image.

    python -m benchmarks.backends [--names N …] [--repeats N] [--threads N] [--output JSON]

Each backend is checked against torch first, as it is before use; one that is refused is listed
with the reason. Beside the time that passes, the processor's own time is counted: on a machine
that others use too, it tells backends apart where the clock on the wall can not. `AUTO_ORDER` in
lunar_perception/inference/backends/registry.py follows what this measures.
"""

from functools import partial
from statistics import median
from time import process_time
from typing import Any

from benchmarks.record import write_record
from benchmarks.setting import arguments, camera_image, prepare, SIDE
from lunar_perception import UnifiedPredictor
from lunar_perception.inference.backends import BackendError, BackendRefusedError, BACKENDS
from lunar_perception.timing import run_in_turn, spreads


def main() -> None:
    parser = arguments(__doc__.splitlines()[1], repeats=15)
    parser.add_argument(
        '--names', nargs='+', choices=tuple(BACKENDS), default=list(BACKENDS), metavar='N',
        help='the backends to time (all)',
    )  # fmt: skip
    options = parser.parse_args()
    synchronise = prepare(options)
    image = camera_image()
    runners, agreement, refused, ready = {}, {}, {}, {}
    for name in options.names:
        predictor = UnifiedPredictor.from_pretrained(device=options.device, backend=name)
        start = process_time()
        try:
            predictor.warm_up(SIDE, SIDE)
        except (BackendError, BackendRefusedError) as error:
            refused[name] = str(error)
            continue
        ready[name] = round(process_time() - start, 2)
        runners[name] = predictor._runner
        agreement[name] = predictor._runner.agreement
    spent: dict[str, list[float]] = {name: [] for name in runners}

    def run(name: str) -> None:
        start = process_time()
        runners[name](image)
        synchronise()
        spent[name].append(process_time() - start)

    programs = {name: partial(run, name) for name in runners}
    times = run_in_turn(programs, options.repeats, synchronise=synchronise)
    last = slice(-options.repeats, None)
    spent = {name: samples[last] for name, samples in spent.items()}
    medians = {name: median(samples) for name, samples in spent.items()}
    results: dict[str, Any] = {
        'side': SIDE,
        'threads': options.threads,
        'device': options.device,
        'milliseconds': spreads(times),
        'processor_milliseconds': spreads(spent),
        'processor_seconds_to_get_ready': ready,
        'agreement_with_torch': agreement,
        'refused': refused,
        'order': sorted(medians, key=medians.__getitem__),
    }
    if 'torch' in medians:
        results['times_as_fast_as_torch'] = {
            name: round(medians['torch'] / seconds, 3) for name, seconds in medians.items()
        }
    print(results)
    if options.output:
        write_record(options.output, results)


if __name__ == '__main__':
    main()
