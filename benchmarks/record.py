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

"""Figures as JSON, with what they were measured on."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
import sys
from typing import Any

from lunar_perception.atomic import write_json
from lunar_perception.machine import hardware, versions


def write_record(path: Path, results: Mapping[str, Any]) -> None:
    """Write `results` beside date, command, hardware and versions; the file whole or not."""
    write_json(
        path,
        {
            'date': date.today().isoformat(),
            'command': command(),
            'hardware': hardware(),
            'versions': versions(),
            'results': dict(results),
        },
    )


def command() -> str:
    """Return how this program was called; of folders elsewhere on the machine, only the name."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return ' '.join(['python', '-m', f'benchmarks.{Path(sys.argv[0]).stem}', *words])
