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
Measure everything that docs/performance.md tells, then write it.

    python -m benchmarks.all [--threads N] [--device D] [--only NAME …]

Each program runs in a process of its own, one after the other; nothing else should run on the
machine. Two idle cores need about twelve minutes. Records of a GPU are called gpu_<name>.json and
stand beside the CPU's. One program that fails does not keep the others from running.
"""

from argparse import ArgumentParser
import os
import subprocess
import sys
from time import perf_counter

from benchmarks.performance import NAMES, RESULTS, ROOT


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--threads', type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument('--device', default='cpu', help='cpu or cuda (%(default)s)')
    parser.add_argument('--only', nargs='+', choices=NAMES, default=NAMES, help='(all)')
    parser.add_argument('--repeats', type=int, help="of each program (each program's own)")
    options = parser.parse_args()
    start, failed = perf_counter(), []
    prefix = '' if options.device == 'cpu' else 'gpu_'
    # The paper's whole network is for GPUs alone.
    for name in [*options.only, *(['huge'] if prefix else [])]:
        # Relative, so that the record tells a command that others can give.
        output = (RESULTS / f'{prefix}{name}.json').relative_to(ROOT)
        words = ['--threads', str(options.threads), '--device', options.device]
        if options.repeats:
            words += ['--repeats', str(options.repeats)]
        command = [sys.executable, '-m', f'benchmarks.{name}', *words, '--output', str(output)]
        print(f'=== {name} ({perf_counter() - start:.0f} s)', flush=True)
        environment = os.environ | {'OMP_NUM_THREADS': str(options.threads)}
        if subprocess.run(command, cwd=ROOT, env=environment).returncode != 0:
            failed.append(name)
    print(f'=== page ({perf_counter() - start:.0f} s)', flush=True)
    subprocess.run([sys.executable, '-m', 'benchmarks.performance'], cwd=ROOT, check=True)
    if failed:
        sys.exit(f'{", ".join(failed)} failed')


if __name__ == '__main__':
    main()
