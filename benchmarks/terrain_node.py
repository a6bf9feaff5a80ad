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
Measure what explanations cost the terrain node's classification.

    python -m benchmarks.terrain_node [--repeats N] [--rate HZ] [--side PX] [--device D]
                                      [--model M] [--output JSON]

One node, a process of its own, gets images at a fixed rate over DDS; counted is the time from
sending an image to the last of its label and confidence. In turn, and backwards in every second
round: nobody listens to explanations; somebody listens to Grad-CAM, which then comes once a
second; somebody listens to Integrated Gradients, which then runs all the time. Each round also
gives a ratio of its own, of times taken within a minute, which other work on the machine touches
alike; their median is given beside the ratio of all times together.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from benchmarks.client import CameraClient
from benchmarks.record import write_record
from benchmarks.setting import arguments, camera_image, prepare
from lunar_perception.commands.local_dds import use_local_dds
from lunar_perception.commands.node_process import NodeProcess
from lunar_perception.nodes.terrain_outputs import (
    CONFIDENCE,
    GRADCAM,
    INTEGRATED_GRADIENTS,
    LABEL,
)
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from sensor_msgs.msg import Image
from tqdm import tqdm

LISTENERS = {'nobody': None, 'gradcam': GRADCAM, 'integrated_gradients': INTEGRATED_GRADIENTS}
TOPICS = (LABEL, CONFIDENCE)
STREAM_S = 10.0


def main() -> None:
    parser = arguments(__doc__.splitlines()[1], repeats=4)
    parser.add_argument('--rate', type=float, default=10.0, help='images a second (%(default)s)')
    parser.add_argument('--side', type=int, default=227, help='of the images (%(default)s)')
    parser.add_argument('--model', default='', help='checkpoint folder (the shipped weights)')
    options = parser.parse_args()
    prepare(options)
    with TemporaryDirectory() as folder:
        use_local_dds(Path(folder))
        parameters = {'device': options.device, 'explain_rate': 1.0}
        if options.model:
            parameters['model'] = options.model
        module = 'lunar_perception.nodes.terrain_node'
        with NodeProcess(parameters, Path(folder) / 'node.txt', module) as node:
            results = measure(node, options.side, options.rate, options.repeats)
    print(results)
    if options.output:
        write_record(options.output, results)


def measure(node: NodeProcess, side: int, rate: float, repeats: int) -> dict[str, Any]:
    """Return latencies by who listens, their ratios, and the number of explanations."""
    latencies: dict[str, list[list[float]]] = {name: [] for name in LISTENERS}  # by round
    sent = dict.fromkeys(LISTENERS, 0)
    explained = dict.fromkeys(LISTENERS, 0)
    image = camera_image(side, side)
    types = dict.fromkeys(TOPICS, Image)
    with CameraClient(node, '/perception', image, TOPICS, types) as client:
        for _ in range(20):
            client.round_trip()
        for number in tqdm(range(repeats), desc='terrain node', disable=None):
            names = list(LISTENERS)
            if number % 2:
                names.reverse()
            for name in names:
                with listening(LISTENERS[name]) as got:
                    stream = client.stream(rate, STREAM_S)
                    explained[name] += len(got)
                latencies[name].append(stream.latencies)
                sent[name] += stream.sent
    every = {
        name: [time for times in parts for time in times] for name, parts in latencies.items()
    }
    p95 = {name: float(np.percentile(times, 95)) for name, times in every.items()}
    rounds = {
        name: [
            round(float(np.percentile(times, 95) / np.percentile(usual, 95)), 3)
            for times, usual in zip(latencies[name], latencies['nobody'], strict=True)
        ]
        for name in LISTENERS
    }
    return {
        'rate_hz': rate,
        'side': side,
        'listeners': {
            name: {
                'sent': sent[name],
                'answered': len(times),
                'explanations': explained[name],
                'p50_ms': round(1e3 * float(np.median(times)), 2),
                'p95_ms': round(1e3 * p95[name], 2),
            }
            for name, times in every.items()
        },
        'p95_over_nobody': {name: round(p95[name] / p95['nobody'], 3) for name in LISTENERS},
        'p95_over_nobody_by_round': rounds,
        'p95_over_nobody_median': {name: float(np.median(rounds[name])) for name in LISTENERS},
    }


@contextmanager
def listening(topic: str | None) -> Iterator[list[float]]:
    """Subscribe to a topic from a thread of its own; yield a list that grows with its messages."""
    got: list[float] = []
    if topic is None:
        yield got
        return
    context = rclpy.Context()
    rclpy.init(context=context)
    listener = rclpy.create_node('listener', namespace='/perception', context=context)
    listener.create_subscription(
        Image, topic, lambda message: got.append(message.header.stamp.nanosec), 1
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(listener)

    def spin() -> None:
        with suppress(ExternalShutdownException, RuntimeError):
            executor.spin()

    thread = Thread(target=spin)
    thread.start()
    try:
        yield got
    finally:
        context.try_shutdown()
        thread.join()
        listener.destroy_node()


if __name__ == '__main__':
    main()
