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
Time the stages of a frame by backend, as `lunar-perception bench` does.

    python -m benchmarks.stages [--repeats N] [--threads N] [--device D] [--backends NAME …]
                                [--output JSON]

Without `--backends`, all but int8, which takes minutes to calibrate at its first start.
"""

from benchmarks.record import write_record
from benchmarks.setting import arguments, prepare
from lunar_perception.commands.bench import describe, measure, SIDES
from lunar_perception.inference.backends import BACKENDS


def main() -> None:
    parser = arguments(__doc__.splitlines()[1], repeats=7)
    quick = [name for name in BACKENDS if name != 'int8']
    parser.add_argument('--backends', nargs='+', choices=BACKENDS, default=quick)
    options = parser.parse_args()
    prepare(options)
    results = measure(SIDES, options.repeats, device=options.device, backends=options.backends)
    print(describe(results))
    if options.output:
        write_record(options.output, results)


if __name__ == '__main__':
    main()
