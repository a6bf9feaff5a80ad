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

"""`lunar-perception bag play` over DDS, with bags that others wrote."""

from collections.abc import Callable, Iterator
import os
from pathlib import Path
import signal
import subprocess
import sys
from time import monotonic

from lunar_perception.cli import main
from lunar_perception.data.bag_writer import convert_scene
from lunar_perception.data.lusnar import Scene
from lunar_perception.nodes.recorded_qos import recorded_qos
from lunar_perception.synthetic import generate_scene, MoonConfig, read_trajectory
from nav_msgs.msg import Odometry
import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.duration import Infinite
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores
from rosgraph_msgs.msg import Clock
from std_msgs.msg import UInt32
from std_srvs.srv import Trigger

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # not on PyPI
    TFMessage = None

TYPES = get_typestore(Stores.ROS2_JAZZY)
POSES = Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'lusnar_poses'
TIMEOUT_S = 60.0
START_NS = 1_700_000_000_000_000_000
STEP_NS = 50_000_000
COUNT = 40


def offered(reliability: QosReliability, durability: QosDurability, **changes: object) -> Qos:
    """Return what a recorder notes of a publisher; discovery does not tell it the history."""
    endless = QosTime(2147483647, 4294967295)
    profile = Qos(
        QosHistory.UNKNOWN, 0, reliability, durability, endless, endless,
        QosLiveliness.AUTOMATIC, endless, False,
    )  # fmt: skip
    return profile._replace(**changes)


BEST_EFFORT = offered(QosReliability.BEST_EFFORT, QosDurability.VOLATILE)
LATCHED = offered(QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL)


@pytest.fixture(scope='module')
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two messages every 50 ms, one latched, one of a type that nobody has; zstd in sqlite3."""
    folder = tmp_path_factory.mktemp('bags') / 'foreign'
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    uint32 = TYPES.types['std_msgs/msg/UInt32']
    with writer:
        connections = [
            writer.add_connection(
                topic, 'std_msgs/msg/UInt32', typestore=TYPES, offered_qos_profiles=[qos]
            )
            for topic, qos in (('/latched', LATCHED), ('/a', BEST_EFFORT), ('/b', BEST_EFFORT))
        ]
        unknown = writer.add_connection(
            '/unknown', 'acme_msgs/msg/Thing', msgdef='uint32 data', rihs01='RIHS01_0'
        )

        def write(connection: object, stamp_ns: int, value: int) -> None:
            data = TYPES.serialize_cdr(uint32(data=value), 'std_msgs/msg/UInt32')
            writer.write(connection, stamp_ns, bytes(data))

        write(connections[0], START_NS, 7)
        write(unknown, START_NS, 1)
        for i in range(COUNT):
            for connection in connections[1:]:
                write(connection, START_NS + i * STEP_NS, i)
    return folder


class Listener:
    """Hears the player from a process of its own."""

    def __init__(self) -> None:
        self.heard: dict[str, list[int]] = {'/a': [], '/b': [], '/latched': []}
        self.clock: list[int] = []
        self.context = Context()
        rclpy.init(context=self.context)
        self.node: Node = rclpy.create_node('listener', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        for topic, heard in self.heard.items():
            self.node.create_subscription(
                UInt32,
                topic,
                lambda message, heard=heard: heard.append(message.data),
                QoSProfile(
                    depth=100,
                    reliability=ReliabilityPolicy.BEST_EFFORT,
                    durability=DurabilityPolicy.TRANSIENT_LOCAL
                    if topic == '/latched'
                    else DurabilityPolicy.VOLATILE,
                ),
            )
        self.node.create_subscription(
            Clock,
            '/clock',
            lambda m: self.clock.append(m.clock.sec * 10**9 + m.clock.nanosec),
            100,
        )

    def until(self, reached: Callable[[], object]) -> None:
        deadline = monotonic() + TIMEOUT_S
        while not reached():
            assert monotonic() < deadline
            self.executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds: float) -> None:
        end = monotonic() + seconds
        while monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)

    def call(self, service: str) -> Trigger.Response:
        client = self.node.create_client(Trigger, service)
        self.until(client.service_is_ready)
        future = client.call_async(Trigger.Request())
        self.until(future.done)
        response = future.result()
        assert response is not None
        return response

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.setenv('ROS_DOMAIN_ID', str(1 + (os.getpid() + 50) % 100))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    listener = Listener()
    yield listener
    listener.close()


def start(bag: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, '-m', 'lunar_perception.cli', 'bag', 'play', str(bag), *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def end(player: subprocess.Popen[str]) -> str:
    _, errors = player.communicate(timeout=TIMEOUT_S)
    return errors


def test_recorded_qos_clock_pause_step_and_resume(bag: Path, listener: Listener) -> None:
    player = start(bag, '--clock', '--loop')
    try:
        a, b = listener.heard['/a'], listener.heard['/b']
        listener.until(lambda: len(a) > 3 and len(b) > 3 and listener.heard['/latched'])
        assert a[:4] == list(range(a[0], a[0] + 4))
        for topic, reliable, durability in (
            ('/a', False, DurabilityPolicy.VOLATILE),
            ('/latched', True, DurabilityPolicy.TRANSIENT_LOCAL),
        ):
            (publisher,) = listener.node.get_publishers_info_by_topic(topic)
            expected = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
            assert publisher.qos_profile.reliability == expected
            assert publisher.qos_profile.durability == durability
        assert not listener.node.get_publishers_info_by_topic('/unknown')

        assert not listener.call('/player/step').success  # not while it plays
        assert listener.call('/player/pause').success
        listener.spin(0.4)
        before, last = len(a), a[-1]
        clock = listener.clock[-1]
        assert START_NS <= clock < START_NS + COUNT * STEP_NS
        listener.spin(0.4)
        assert len(a) == before
        assert listener.clock[-1] == clock  # time stands still, and is still told
        for step in (1, 2):
            assert listener.call('/player/step').success
            listener.until(lambda step=step: len(a) == before + step)
            listener.spin(0.2)
            assert a[before:] == b[-step:] == [(last + 1 + i) % COUNT for i in range(step)]
        assert listener.clock[-1] == START_NS + a[-1] * STEP_NS

        assert listener.call('/player/resume').success
        listener.until(lambda: 0 in a[before:] and a[-1] > 1)  # round the loop
        assert player.poll() is None
    finally:
        player.send_signal(signal.SIGINT)
    errors = end(player)
    assert player.returncode == 130
    assert '/unknown is left out: acme_msgs/msg/Thing is not installed' in errors
    assert 'Traceback' not in errors


@pytest.mark.parametrize(
    'moment',
    ['as it starts', 'while it waits for the evaluator', 'at full speed', 'while it pauses'],
)
def test_ctrl_c_ends_it_with_one_line(moment: str, bag: Path, listener: Listener) -> None:
    waiting = ['--lossless'] if 'evaluator' in moment else ['--loop', '--rate', '100000']
    player = start(bag, *waiting)
    listener.until(lambda: listener.node.count_publishers('/b'))
    if moment == 'while it pauses':
        assert listener.call('/player/pause').success
    elif moment == 'at full speed':
        listener.until(lambda: len(listener.heard['/a']) > 5 * COUNT)
    player.send_signal(signal.SIGINT)
    lines = end(player).splitlines()
    assert player.returncode == 130
    logged = [line for line in lines if line.startswith('[')]
    assert [line for line in lines if line not in logged] == ['lunar-perception bag: interrupted']
    assert not any('ERROR' in line for line in logged)


def test_chosen_topics_play_to_the_end(bag: Path, listener: Listener) -> None:
    player = start(bag, '--topics', '/a', '--rate', '0.25')
    listener.until(lambda: player.poll() is not None)
    assert 'Traceback' not in end(player)
    assert player.returncode == 0
    # Best effort, as recorded: on a busy machine some may be lost, the last one too.
    heard = listener.heard['/a']
    assert heard
    assert heard == sorted(heard)
    assert not listener.heard['/b'] and not listener.clock


def test_a_trajectory_of_lusnar_is_replayed(listener: Listener, tmp_path: Path) -> None:
    """What is heard of /ground_truth/odometry is the way of the file, and /tf says the same."""
    file = POSES / 'Moon_1.csv'
    if not file.is_file():
        pytest.skip(f'{file} is not here')
    frames, scene, played = 4, tmp_path / 'scene', tmp_path / 'bag'
    course = read_trajectory(file)
    generate_scene(scene, MoonConfig(seed=2, size=32, course=course), frames)
    convert_scene(Scene(scene), played)
    odometry: dict[int, Odometry] = {}
    transforms = {}

    def stamp_ns(message: object) -> int:
        return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec

    def hear_transforms(message: object) -> None:
        (transform,) = message.transforms
        transforms[stamp_ns(transform)] = transform

    listener.node.create_subscription(
        Odometry, '/ground_truth/odometry', lambda m: odometry.update({stamp_ns(m): m}), 10
    )
    if TFMessage is not None:
        listener.node.create_subscription(TFMessage, '/tf', hear_transforms, 10)
    expected = frames if TFMessage is not None else 0
    player = start(played, '--loop')  # the first may be gone before the two have met
    try:
        listener.until(lambda: len(odometry) == frames and len(transforms) == expected)
    finally:
        player.send_signal(signal.SIGINT)
    errors = end(player)
    assert ('/tf is left out: tf2_msgs/msg/TFMessage is not installed' in errors) == (not expected)
    rows = np.loadtxt(file, delimiter=',', skiprows=1, max_rows=frames)
    stamps = np.loadtxt(file, np.int64, delimiter=',', skiprows=1, max_rows=frames, usecols=0)
    assert sorted(odometry) == stamps.tolist()
    for stamp, row in zip(stamps.tolist(), rows, strict=True):
        message = odometry[stamp]
        assert (message.header.frame_id, message.child_frame_id) == ('odom', 'base_link')
        p, q = message.pose.pose.position, message.pose.pose.orientation
        # Heights follow the generated ground; the way over it is LuSNAR's, mirrored to y left.
        np.testing.assert_allclose([p.x, p.y], [row[1], -row[2]], atol=0.02)
        if expected:
            transform = transforms[stamp]
            assert (transform.header, transform.child_frame_id) == (message.header, 'base_link')
            t = transform.transform.translation
            assert (t.x, t.y, t.z) == (p.x, p.y, p.z)
            assert transform.transform.rotation == q


def test_errors_are_one_line(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(['bag', 'play', str(tmp_path)]) == 1
    assert 'not a bag' in capsys.readouterr().err
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    assert main(['bag', 'play', str(bag), '--topics', '/c']) == 1
    assert 'has no topic /c; it has /a, /b, /latched, /unknown' in capsys.readouterr().err
    assert main(['bag', 'play', str(bag), '--topics', '/unknown']) == 1
    assert 'no message of a type that is installed' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(['bag', 'play', str(bag), '--lossless', '--rate', '2'])


def test_recorded_profiles() -> None:
    default = recorded_qos([])
    assert (default.reliability, default.depth) == (ReliabilityPolicy.RELIABLE, 10)
    assert recorded_qos([BEST_EFFORT, LATCHED]).durability == DurabilityPolicy.VOLATILE
    assert recorded_qos([BEST_EFFORT, BEST_EFFORT]).reliability == ReliabilityPolicy.BEST_EFFORT
    exact = LATCHED._replace(history=QosHistory.KEEP_LAST, depth=3, deadline=QosTime(2, 5))
    profile = recorded_qos([exact])
    assert (profile.history, profile.depth) == (HistoryPolicy.KEEP_LAST, 3)
    assert profile.deadline.nanoseconds == 2_000_000_005
    assert profile.lifespan == Infinite
    all_kept = recorded_qos([LATCHED._replace(history=QosHistory.KEEP_ALL)])
    assert all_kept.history == HistoryPolicy.KEEP_ALL
