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
Time the start of the unified node, to active, against the least that it must do.

    python -m benchmarks.start [--repeats N] [--device D] [--output JSON]

The least: a process that imports torch and rclpy and reads the shipped weights. Both are whole
processes, timed in turn from the call that starts them to a line that they write. Counted are
second starts: what a backend compiles or exports on the first is in its cache by then. The first
start, with that cache empty, is given beside them. Both have Python's byte code at hand, as any
installed package has.
"""

from functools import partial
import os
from pathlib import Path
from statistics import median
import subprocess
import sys
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks.record import write_record
from benchmarks.setting import arguments, prepare
from lunar_perception.commands.local_dds import use_local_dds
from lunar_perception.inference.predictor import SHIPPED_WEIGHTS
from lunar_perception.timing import run_in_turn, spreads

LEAST = f"""
import rclpy, torch
from safetensors.torch import load_file
weights = load_file({str(SHIPPED_WEIGHTS / 'model.safetensors')!r})
print('active', flush=True)
"""

NODE = """
import sys
import rclpy
from lunar_perception.nodes.unified_node import UnifiedNode
rclpy.init(args=sys.argv)
node = UnifiedNode()
node.autostart()
print(node._state_machine.current_state[1], flush=True)
"""
"""As the node's own main function, up to where it waits for images."""


def main() -> None:
    parser = arguments(__doc__.splitlines()[1], repeats=5)
    options = parser.parse_args()
    prepare(options)
    with TemporaryDirectory() as folder:
        use_local_dds(Path(folder))
        os.environ.pop('PYTHONDONTWRITEBYTECODE', None)
        os.environ['PYTHONPYCACHEPREFIX'] = str(Path(folder) / 'byte_code')
        device = ['--ros-args', '-p', f'device:={options.device}']
        for cache in ('unused', 'cache'):
            os.environ['XDG_CACHE_HOME'] = str(Path(folder) / cache)
            start = perf_counter()
            until_active(NODE, device)
            first = perf_counter() - start
        programs = {
            'node': partial(until_active, NODE, device),
            'least': partial(until_active, LEAST, []),
        }
        times = run_in_turn(programs, options.repeats)
    results: dict[str, Any] = {
        'first_start_s': round(first, 2),
        'seconds': spreads(times, 1),
        'node_over_least': round(median(times['node']) / median(times['least']), 3),
    }
    print(results)
    if options.output:
        write_record(options.output, results)


def until_active(program: str, words: list[str]) -> None:
    """Run a Python program until it writes 'active'; RuntimeError when it writes anything else."""
    with subprocess.Popen(
        [sys.executable, '-c', program, *words], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        # What comes after the line is not counted, but must not disturb what is timed next.
        process.kill()
    if line != 'active':
        raise RuntimeError(f"the program wrote '{line}' instead of 'active'")


if __name__ == '__main__':
    main()
