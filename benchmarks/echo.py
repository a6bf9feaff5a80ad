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
Time the unified node without its network against a node that only echoes.

    python -m benchmarks.echo [--repeats N] [--side PX] [--output JSON]

The unified node runs with a network that always answers with the same arrays; the echo node
receives the same image and publishes ready messages of the same types and sizes. Both are
processes of their own and get one image at a time over DDS, in turn. Counted are the time from
sending the image to the last output, and what the node's process spends on the processor; once
with what a planner listens to, once with every topic.
"""

from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.client import CameraClient
from benchmarks.fixed_outputs import MAIN_TOPICS
from benchmarks.process import cpu_seconds
from benchmarks.record import write_record
from benchmarks.setting import arguments, camera_image, prepare, SIDE
from lunar_perception.commands.local_dds import use_local_dds
from lunar_perception.commands.node_process import NodeProcess
from lunar_perception.nodes.outputs import OUTPUTS
from lunar_perception.timing import spreads
from tqdm import tqdm

NODES = {
    'unified': ('benchmarks.fixed_node', '/perception'),
    'echo': ('benchmarks.echo_node', '/echo'),
}
LISTENERS = {'main': MAIN_TOPICS, 'all': tuple(OUTPUTS)}
WARM_UPS = 20
BURST = 10


def main() -> None:
    parser = arguments(__doc__.splitlines()[1], repeats=20)
    parser.add_argument('--side', type=int, default=SIDE, help='of the image (%(default)s)')
    options = parser.parse_args()
    prepare(options)
    with TemporaryDirectory() as folder:
        use_local_dds(Path(folder))
        results = {
            'side': options.side,
            'topics': {
                name: {
                    'listened_to': list(topics),
                    **measure(topics, options.side, options.repeats, Path(folder)),
                }
                for name, topics in LISTENERS.items()
            },
        }
    print(results)
    if options.output:
        write_record(options.output, results)


def measure(topics: tuple[str, ...], side: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Return the spread of both times by node, and the ratios of their medians."""
    image = camera_image(side, side)
    trips: dict[str, list[float]] = {name: [] for name in NODES}
    spent: dict[str, list[float]] = {name: [] for name in NODES}
    with ExitStack() as stack:
        processes, clients = {}, {}
        for name, (module, namespace) in NODES.items():
            log = folder / f'{name}.txt'
            processes[name] = stack.enter_context(NodeProcess({}, log, module))
            clients[name] = stack.enter_context(
                CameraClient(processes[name], namespace, image, topics)
            )
        for number in tqdm(range(-1, repeats), desc='echo', disable=None):
            names = list(NODES)
            if number % 2:
                names.reverse()
            for name in names:
                before = cpu_seconds(processes[name].pid)
                times = [
                    clients[name].round_trip() for _ in range(WARM_UPS if number < 0 else BURST)
                ]
                if number >= 0:
                    trips[name] += times
                    spent[name].append((cpu_seconds(processes[name].pid) - before) / BURST)
    return {
        'round_trip_ms': spreads(trips),
        'processor_ms': spreads(spent),
        'round_trip_over_echo': round(median(trips['unified']) / median(trips['echo']), 3),
        'processor_over_echo': round(median(spent['unified']) / median(spent['echo']), 3),
    }


if __name__ == '__main__':
    main()
