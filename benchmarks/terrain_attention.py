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
Measure what trained terrain networks lose on their held-out crops without their attention.

    python -m benchmarks.terrain_attention RUN [RUN …] --data DATA --output RECORD.json

Runs are folders of `python -m train terrain`; those that differ only in a number at the end of
their names (full-0, full-1 …) are seeds of one, and told of as one.
"""

from argparse import ArgumentParser
from collections import defaultdict
from pathlib import Path
import re

from benchmarks.record import write_record
from train.terrain_study import without_attention


def main() -> None:
    """Write the record."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('runs', type=Path, nargs='+', metavar='RUN')
    parser.add_argument('--data', type=Path, required=True, help='folder of the crops')
    parser.add_argument('--output', type=Path, required=True)
    arguments = parser.parse_args()
    groups: dict[str, list[Path]] = defaultdict(list)
    for run in arguments.runs:
        groups[re.sub(r'-\d+$', '', run.name)].append(run)
    found = {name: without_attention(runs, arguments.data) for name, runs in groups.items()}
    write_record(arguments.output, found)


if __name__ == '__main__':
    main()
