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

"""The evaluator: with the real node and a lossless player, and with a node that fails."""

from collections.abc import Callable, Iterator
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from time import monotonic
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lunar_perception.cli import main
from lunar_perception.commands.local_dds import FAST_DDS_PROFILE
from lunar_perception.data.bag_writer import convert_scene
from lunar_perception.data.lusnar import Scene
from lunar_perception.synthetic import generate_scene, MoonConfig
import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header, UInt64
from tiny_network import save_tiny_network

TIMEOUT_S = 120.0
FRAMES = 3
SIDE = 8
PROCESSED = '/evaluation/processed'


@pytest.fixture(scope='module', autouse=True)
def graph() -> Iterator[None]:
    """Keep to a domain of our own on this machine, with the processes that are started."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv('ROS_DOMAIN_ID', str(1 + (os.getpid() + 25) % 100))
        environment.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        environment.setenv('OMP_NUM_THREADS', '1')
        environment.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', str(FAST_DDS_PROFILE))
        yield


@pytest.fixture(scope='module')
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Generate a short drive with a camera that is not LuSNAR's."""
    folder = tmp_path_factory.mktemp('moon') / 'Moon_1'
    generate_scene(folder, MoonConfig(seed=6, size=72, mount=None), FRAMES)
    return Scene(folder)


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny network of random weights that says several labels and depths."""
    return save_tiny_network(tmp_path_factory.mktemp('weights'))


def start(*command: str, stderr: int | None = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start a module; with `stderr` None, pytest shows what it says beside a failure."""
    return subprocess.Popen([sys.executable, '-m', *command], stderr=stderr, text=True)


def end(process: subprocess.Popen[str], status: int) -> str:
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == status, errors
    return errors


def numbers(metrics: dict[str, Any], prefix: str = '') -> dict[str, float | None]:
    """Return the numbers by their path."""
    found: dict[str, float | None] = {}
    for key, value in metrics.items():
        if isinstance(value, dict):
            found |= numbers(value, f'{prefix}{key}.')
        else:
            found[prefix + key] = value
    return found


def test_the_graph_says_what_evaluate_says(scene: Scene, weights: Path, tmp_path: Path) -> None:
    model = ['--model', str(weights)]
    assert main(['evaluate', str(scene.path), '--output', str(tmp_path / 'alone'), *model]) == 0
    alone = json.loads((tmp_path / 'alone' / 'metrics.json').read_text())
    bag, output = tmp_path / 'bag', tmp_path / 'output'
    convert_scene(scene, bag)
    node = start(
        'lunar_perception.nodes.unified_node',
        *('--ros-args', '-p', 'lossless:=true', '-p', f'model:={weights}'),
        *('-r', 'image:=/camera/left/image_raw', '-r', 'camera_info:=/camera/left/camera_info'),
        stderr=None,
    )
    evaluator = start(
        'lunar_perception.nodes.evaluator_node',
        *('--ros-args', '-p', f'bag:={bag}', '-p', f'output:={output}'),
        stderr=None,
    )
    player = start('lunar_perception.cli', 'bag', 'play', str(bag), '--lossless')
    try:
        end(player, 0)
        end(evaluator, 0)
    finally:
        for process in (player, evaluator):
            process.kill()
        node.send_signal(signal.SIGINT)
    end(node, 0)
    metrics = json.loads((output / 'metrics.json').read_text())
    counts = [metrics[key] for key in ('received', 'processed', 'dropped')]
    assert counts == [FRAMES, FRAMES, 0]
    assert 0 < metrics['latency_ms']['p50'] <= metrics['latency_ms']['p95']
    assert metrics['missing_pairs'] == {} and 'partial' not in metrics
    through_the_graph = numbers(metrics)
    for key, value in numbers(alone).items():
        assert through_the_graph[key] == pytest.approx(value, abs=1e-6), key
    assert 'Latency of a frame' in (output / 'report.html').read_text()


class FakeGraph:
    """Plays the bag and the unified node for an evaluator."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('fake', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.processed: list[int] = []
        self.values: dict[str, str] = {}
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(
            UInt64, PROCESSED, lambda m: self.processed.append(m.data), latched
        )
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._keep, 10)
        self.diagnostics = self.node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.info = self.node.create_publisher(CameraInfo, '/camera/left/camera_info', 10)
        self.images = {
            topic: self.node.create_publisher(Image, topic, 10)
            for topic in (
                '/camera/left/image_raw', '/camera/left/label', '/camera/left/depth',
                '/perception/label', '/perception/confidence', '/perception/depth',
                '/perception/depth/uncertainty',
            )
        }  # fmt: skip

    def _keep(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == '/evaluation/evaluator':
                self.values = {entry.key: entry.value for entry in status.values}

    def until(self, reached: Callable[[], object]) -> None:
        deadline = monotonic() + TIMEOUT_S
        while not reached():
            assert monotonic() < deadline
            self.executor.spin_once(timeout_sec=0.05)

    def report(self, received: int) -> None:
        values = {'state': 'active', 'received': received, 'processed': received, 'dropped': 0}
        status = DiagnosticStatus(
            name='/perception/unified',
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        self.diagnostics.publish(DiagnosticArray(status=[status]))

    def send(self, topic: str, sec: int, array: np.ndarray, encoding: str) -> None:
        self.images[topic].publish(
            Image(
                header=Header(stamp=Time(sec=sec, nanosec=7), frame_id='camera'),
                height=SIDE,
                width=SIDE,
                encoding=encoding,
                step=array.nbytes // SIDE,
                data=array.tobytes(),
            )
        )

    def frame(self, sec: int, *, without: str = '') -> None:
        """Send a frame of all regolith at 4 m, predicted a quarter too far; one part not."""
        header = Header(stamp=Time(sec=sec, nanosec=7), frame_id='camera')
        k = [8.0, 0.0, 4.0, 0.0, 8.0, 4.0, 0.0, 0.0, 1.0]
        self.info.publish(CameraInfo(header=header, width=SIDE, height=SIDE, k=k))
        label = np.zeros((SIDE, SIDE), np.uint8)
        depth = np.full((SIDE, SIDE), 4, np.float32)
        for topic, array, encoding in (
            ('/camera/left/image_raw', np.full((SIDE, SIDE, 3), 90, np.uint8), 'rgb8'),
            ('/camera/left/label', label, 'mono8'),
            ('/camera/left/depth', depth, '32FC1'),
            ('/perception/label', label, 'mono8'),
            ('/perception/confidence', np.full((SIDE, SIDE), 255, np.uint8), 'mono8'),
            ('/perception/depth', depth * np.float32(1.25), '32FC1'),
            ('/perception/depth/uncertainty', np.full((SIDE, SIDE), np.nan, 'f4'), '32FC1'),
        ):
            if topic != without:
                self.send(topic, sec, array, encoding)

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.mark.parametrize('ending', ['interrupted', 'played'])
def test_missing_pairs_are_named_and_a_partial_result_is_marked(
    ending: str, tmp_path: Path
) -> None:
    fake = FakeGraph()
    evaluator = start(
        'lunar_perception.nodes.evaluator_node', '--ros-args', '-p', f'output:={tmp_path}'
    )
    try:
        # Ready only when the node is: nothing is said before.
        fake.until(lambda: fake.values.get('state') == 'starting')
        assert not fake.processed
        fake.report(0)
        fake.until(lambda: fake.processed)
        assert set(fake.processed) == {0}
        fake.frame(10)
        fake.until(lambda: fake.processed[-1] == 1)  # latched: an older count may be overtaken
        fake.frame(11, without='/perception/depth')
        fake.frame(12, without='/camera/left/label')
        fake.frame(13)
        fake.until(lambda: fake.processed[-1] == 2)
        fake.until(lambda: fake.processed.count(2) > 1)  # for whoever missed it
        assert fake.processed == sorted(fake.processed) and set(fake.processed) == {0, 1, 2}
        fake.until(lambda: fake.values.get('waiting_pairs') == '2')
        assert fake.values['frames'] == '2'
        assert float(fake.values['miou']) == 1.0
        assert float(fake.values['abs_rel']) == pytest.approx(0.25)
        assert fake.values['ause'] == ''  # a network without uncertainty says NaN
        if ending == 'interrupted':
            evaluator.send_signal(signal.SIGINT)
        else:
            for publisher in fake.images.values():
                fake.node.destroy_publisher(publisher)

            def counted() -> bool:
                fake.report(4)
                return evaluator.poll() is not None

            fake.until(counted)
        errors = end(evaluator, 1)
    finally:
        evaluator.kill()
        fake.close()
    assert 'frame 11000000007 was not scored: no depth' in errors
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert metrics['missing_pairs'] == {'11000000007': ['depth'], '12000000007': ['true label']}
    assert metrics['frames'] == 2
    assert metrics['miou'] == 1.0 and metrics['abs_rel'] == pytest.approx(0.25)
    assert metrics['received'] == (4 if ending == 'played' else 0)
    page = (tmp_path / 'report.html').read_text()
    assert '12000000007 (true label)' in page
    partial = 'interrupted before the end of the bag'
    assert metrics.get('partial') == (partial if ending == 'interrupted' else None)
    assert (partial in page) == (ending == 'interrupted')


def test_nothing_scored_is_an_error(tmp_path: Path) -> None:
    evaluator = start(
        'lunar_perception.nodes.evaluator_node', '--ros-args', '-p', f'bag:={tmp_path}/none'
    )
    assert end(evaluator, 1).strip().endswith('none: no such bag')
