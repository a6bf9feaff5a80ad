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
Follow the unified node's memory over thousands of frames, and take the default network's.

    python -m benchmarks.memory [--frames N] [--device D] [--output JSON]

The long run is a node in a process of its own whose network, a tiny one of random weights, is
loaded and run as any other; every topic is listened to, and images come one at a time over DDS.
It tells of leaks, which do not depend on the network's size. What the shipped network needs is
taken from a process that loads it, predicts a few times and does nothing else.
"""

import json
from pathlib import Path
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.client import CameraClient
from benchmarks.figures import growth
from benchmarks.process import memory_mib
from benchmarks.record import write_record
from benchmarks.setting import arguments, camera_image, prepare, SIDE
from lunar_perception.commands.local_dds import use_local_dds
from lunar_perception.commands.node_process import NodeProcess
from lunar_perception.models import UnifiedConfig, UnifiedModel
from lunar_perception.models.encoders import SamEncoderConfig
from lunar_perception.nodes.outputs import OUTPUTS
import torch
from tqdm import tqdm

SIDE_OF_LONG_RUN = 96
CHECKPOINTS = 50
"""How often the long run looks at the memory."""

USE = """
import json, sys
from benchmarks.process import memory_mib
found = {'python': memory_mib()}
import torch
torch.set_num_threads(int(sys.argv[2]))
found['torch'] = memory_mib()
from benchmarks.setting import camera_image
from lunar_perception import UnifiedPredictor
predictor = UnifiedPredictor.from_pretrained(device=sys.argv[1])
found['network'] = memory_mib()
image = camera_image(int(sys.argv[3]), int(sys.argv[3]))
for _ in range(10):
    prediction = predictor(image)
    prediction.label, prediction.confidence, prediction.depth, prediction.uncertainty
found['predicting'] = memory_mib()
found['most'] = memory_mib(key='VmHWM')
if sys.argv[1] != 'cpu':
    found['gpu_most'] = torch.cuda.max_memory_allocated() / 2**20
print(json.dumps(found))
"""
"""What the other process does: memory in MiB at each step of using the shipped network."""


def main() -> None:
    parser = arguments(__doc__.splitlines()[1], repeats=1)
    parser.add_argument('--frames', type=int, default=10_000, help='(%(default)s)')
    options = parser.parse_args()
    prepare(options)
    uses = [use_network(options.device, options.threads) for _ in range(options.repeats)]
    with TemporaryDirectory() as folder:
        use_local_dds(Path(folder))
        model = save_tiny_network(Path(folder) / 'model')
        parameters = {'model': model, 'device': options.device}
        with NodeProcess(parameters, Path(folder) / 'node.txt') as node:
            long_run = follow(node, options.frames)
    results = {'shipped_network_mib': uses[-1], 'long_run': long_run}
    print(results)
    if options.output:
        write_record(options.output, results)


def use_network(device: str, threads: int) -> dict[str, float]:
    """Return the memory in MiB at each step of using the shipped network in a process."""
    answer = subprocess.run(
        [sys.executable, '-c', USE, device, str(threads), str(SIDE)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(answer.stdout.splitlines()[-1])
    return {step: round(mib, 1) for step, mib in found.items()}


def follow(node: NodeProcess, frames: int) -> dict[str, Any]:
    """Return the node's memory in MiB by the number of frames that it has answered."""
    image = camera_image(SIDE_OF_LONG_RUN, SIDE_OF_LONG_RUN)
    rows: list[tuple[int, float]] = []
    with CameraClient(node, '/perception', image, tuple(OUTPUTS)) as client:
        for number in tqdm(range(1, frames + 1), desc='long run', disable=None):
            client.round_trip()
            if number % max(frames // CHECKPOINTS, 1) == 0:
                rows.append((number, round(memory_mib(node.pid), 2)))
    return {
        'frames': frames,
        'side': SIDE_OF_LONG_RUN,
        'memory_mib_by_frames': rows,
        'last_over_a_tenth': round(growth(rows), 4),
    }


def save_tiny_network(folder: Path) -> Path:
    """Save a checkpoint of random weights for tiny images, and return its folder."""
    blocks = (0, 1, 2, 3)
    encoder = SamEncoderConfig(
        hidden_size=16, depth=4, heads=2, global_blocks=blocks, taps=blocks, image_size=64
    )
    config = UnifiedConfig(encoder, decoder_channels=8, detail_channels=(6,), input_size=64)
    model = UnifiedModel(config)
    # Undecided labels would not bear rounding: the backend would not be the shipped network's.
    with torch.no_grad():
        model.segmentation_head[-1].bias[0] += 1
    model.save_pretrained(folder)
    return folder


if __name__ == '__main__':
    main()
