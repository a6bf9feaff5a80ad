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
Measure the unified node as Isaac ROS's benchmarks do: highest rate, latency at fixed rates.

    python -m benchmarks.node [--repeats N] [--sides PX …] [--rates HZ …] [--device D]
                              [--model M] [--output JSON]

The highest rate is the highest at which images can be sent while at most 5 % of them go without
an answer, found by bisection; the latencies are those from sending an image to the last of its
outputs while images come at a fixed rate. The node is a process of its own with its default
parameters; images go in and outputs come back over DDS on this machine.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.client import CameraClient, Stream
from benchmarks.figures import ALLOWED_LOSS, highest_rate
from benchmarks.fixed_outputs import MAIN_TOPICS
from benchmarks.process import cpu_seconds, memory_mib
from benchmarks.record import write_record
from benchmarks.setting import arguments, camera_image, prepare, SIDE
from lunar_perception.commands.local_dds import use_local_dds
from lunar_perception.commands.node_process import NodeProcess
from lunar_perception.timing import percentile, spread
import numpy as np

TRIAL_S = 4.0
TRIAL_FRAMES = 24
"""A trial lasts `TRIAL_S` seconds, or so many frames if that takes longer."""


def main() -> None:
    parser = arguments(__doc__.splitlines()[1], repeats=1)
    parser.add_argument(
        '--sides', type=int, nargs='+', default=[SIDE, 1024], help='of the images (%(default)s)'
    )
    parser.add_argument(
        '--rates', type=float, nargs='+', default=[2.0, 5.0], help='fixed rates, Hz (%(default)s)'
    )
    parser.add_argument('--model', default='', help='checkpoint folder (the shipped weights)')
    options = parser.parse_args()
    prepare(options)
    parameters = {'device': options.device}
    if options.model:
        parameters['model'] = options.model
    results: dict[str, Any] = {'listened_to': list(MAIN_TOPICS), 'by_side': {}}
    with TemporaryDirectory() as folder:
        use_local_dds(Path(folder))
        for side in options.sides:
            with NodeProcess(parameters, Path(folder) / 'node.txt') as node:
                results['by_side'][str(side)] = measure(node, side, options.rates, options.repeats)
            print(side, results['by_side'][str(side)])
    if options.output:
        write_record(options.output, results)


def measure(node: NodeProcess, side: int, rates: list[float], repeats: int) -> dict[str, Any]:
    """Return highest rates, latencies at fixed rates, and what the node used."""
    with CameraClient(node, '/perception', camera_image(side, side), MAIN_TOPICS) as client:
        trial(client, min(rates))  # what a new process does once is over then
        trips = [client.round_trip() for _ in range(10)]
        start = 1 / float(np.median(trips))
        highest = [
            highest_rate(lambda rate: trial(client, rate).loss, start) for _ in range(repeats)
        ]
        before, streams = cpu_seconds(node.pid), []
        for rate in rates:
            streams.append(client.stream(rate, max(TRIAL_S, 10 / rate)))
        frames = sum(stream.sent for stream in streams)
        return {
            'round_trip_ms': spread([1e3 * trip for trip in trips], 3),
            'highest_rate_hz': spread(highest, 2),
            'allowed_loss': ALLOWED_LOSS,
            'fixed_rates': [fixed_rate(stream) for stream in streams],
            'processor_s_per_frame': round((cpu_seconds(node.pid) - before) / frames, 4),
            'memory_mib': round(memory_mib(node.pid), 1),
        }


def trial(client: CameraClient, rate: float) -> Stream:
    """Send images at `rate` for as long as a trial lasts."""
    return client.stream(rate, max(TRIAL_S, TRIAL_FRAMES / rate))


def fixed_rate(stream: Stream) -> dict[str, Any]:
    """Return loss, latencies and jitter of a stream, as Isaac ROS's benchmarks name them."""
    latencies = [1e3 * latency for latency in stream.latencies]
    if not latencies:
        return {'rate_hz': stream.rate, 'sent': stream.sent, 'missed': stream.sent}
    return {
        'rate_hz': stream.rate,
        'sent': stream.sent,
        'missed': stream.sent - len(latencies),
        'latency_ms': {
            **spread(latencies, 2),
            'mean': round(float(np.mean(latencies)), 2),
            'p95': round(percentile(latencies, 95), 2),
            'standard_deviation': round(float(np.std(latencies)), 2),
        },
    }


if __name__ == '__main__':
    main()
