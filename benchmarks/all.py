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

    python -m benchmarks.all [--threads N] [--device D] [--only NAME …] [--resume]
    python -m benchmarks.all --trial FOLDER

Each program runs in a process of its own, one after the other; nothing else should run on the
machine. Two idle cores need about twelve minutes. Records of a GPU are called gpu_<name>.json and
stand beside the CPU's. One program that fails does not keep the others from running; with
`--resume`, what was measured today by the same command on the same machine is not measured again.
A trial runs everything as briefly as can be, and writes records, page and plots to FOLDER only.
"""

from argparse import ArgumentParser
from datetime import date
import json
import os
from pathlib import Path
import subprocess
import sys
from time import perf_counter

from benchmarks.performance import NAMES, RESULTS, ROOT
from lunar_perception.machine import hardware, versions

BRIEFLY = {'memory': ['--frames', '50'], 'stages': ['--backends', 'torch', 'onnxruntime']}
"""What a trial tells a program beside taking everything once."""


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--threads', type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument('--device', default='cpu', help='cpu or cuda (%(default)s)')
    parser.add_argument('--only', nargs='+', choices=NAMES, default=NAMES, help='(all)')
    parser.add_argument('--repeats', type=int, help="of each program (each program's own)")
    parser.add_argument('--resume', action='store_true', help='keep what was measured today')
    parser.add_argument('--trial', type=Path, metavar='FOLDER', help='briefly, into a folder')
    options = parser.parse_args()
    start, failed, took = perf_counter(), [], {}
    prefix = '' if options.device == 'cpu' else 'gpu_'
    folder = options.trial or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    # The paper's whole network is for GPUs alone.
    names = [*options.only, *(['huge'] if prefix else [])]
    for number, name in enumerate(names, start=1):
        path = folder / f'{prefix}{name}.json'
        # Relative, so that the record tells a command that others can give.
        output = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        words = ['--threads', str(options.threads), '--device', options.device]
        if options.repeats or options.trial:
            words += ['--repeats', str(options.repeats or 1)]
        if options.trial:
            words += BRIEFLY.get(name, [])
        words += ['--output', str(output)]
        before = perf_counter()
        print(f'=== {name}, {number} of {len(names)} ({before - start:.0f} s)', flush=True)
        if options.resume and is_current(path, name, words):
            print('measured today already', flush=True)
            continue
        environment = os.environ | {'OMP_NUM_THREADS': str(options.threads)}
        command = [sys.executable, '-m', f'benchmarks.{name}', *words]
        if subprocess.run(command, cwd=ROOT, env=environment).returncode != 0:
            failed.append(name)
        took[name] = round(perf_counter() - before)
    print(f'=== page ({perf_counter() - start:.0f} s)', flush=True)
    command = [sys.executable, '-m', 'benchmarks.performance']
    if options.trial:
        command += ['--folder', str(folder.absolute())]
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        failed.append('page')
    print('seconds:', ', '.join(f'{name} {seconds}' for name, seconds in took.items()))
    if failed:
        sys.exit(f'{", ".join(failed)} failed')


def is_current(path: Path, name: str, words: list[str]) -> bool:
    """Return whether a record was made today by the same command, machine and versions."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return bool(
        record['command'] == ' '.join(['python', '-m', f'benchmarks.{name}', *words])
        and record['date'] == date.today().isoformat()
        and hardware().items() <= record['hardware'].items()
        and record['versions'] == versions()
    )


if __name__ == '__main__':
    main()
