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

"""The node under load, changes of state and of time, with a fake network."""

from collections.abc import Iterator
import ctypes
import gc
from threading import enumerate as all_threads
from time import sleep

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from in_process import (
    ACTIVATE,
    CLEANUP,
    CONFIGURE,
    DEACTIVATE,
    FakeNetwork,
    frames_until_right,
    image_of,
    info_of,
    InProcess,
    keep_to_itself,
    RELIABLE,
    values_of,
)
from lifecycle_msgs.msg import Transition
from lunar_perception.nodes import network, perception_node
from lunar_perception.nodes.diagnostics import resident_memory
import pytest
import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image


@pytest.fixture(scope='module', autouse=True)
def environment() -> Iterator[None]:
    """Keep to a domain of our own, without torch, which takes seconds to import."""
    with pytest.MonkeyPatch.context() as patch:
        keep_to_itself(patch, 75)
        patch.setattr(perception_node, 'network_values', lambda _: {})
        patch.setattr(perception_node, 'free_device_memory', lambda: None)
        yield


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeNetwork:
    fake = FakeNetwork()
    monkeypatch.setattr(network, 'load_predictor', fake.load)
    return fake


@pytest.fixture
def ros(fake: FakeNetwork) -> Iterator[InProcess]:
    with InProcess() as ros:
        ros.start()
        yield ros
        fake.gate.set()


def test_the_newest_frame_is_taken_and_every_frame_is_counted(
    ros: InProcess, fake: FakeNetwork
) -> None:
    """Frames come at 60 Hz while the network is busy for several of them."""
    ros.subscribe(Image, 'label')
    sent, expected = 0, []
    for _ in range(6):
        fake.gate.clear()
        fake.taken.clear()
        sent += 1
        ros.send(image_of(sent))
        expected.append(sent)
        ros.until(fake.taken.is_set, 'a busy network')
        for _ in range(7):
            sent += 1
            ros.send(image_of(sent))
            ros.until(lambda n=sent: ros.node._worker.statistics().received == n, 'the frame')
            sleep(1 / 60)
        expected.append(sent)
        assert ros.node._worker.statistics().waiting == 1
        fake.gate.set()
        ros.counts()
    assert fake.seen == expected
    assert ros.counts() == (48, 12, 36)


def memory_in_use() -> int:
    """Return resident bytes without what earlier tests freed and the C library has kept."""
    ctypes.CDLL(None).malloc_trim(0)
    return resident_memory()


def test_memory_is_flat_over_ten_thousand_frames(ros: InProcess, fake: FakeNetwork) -> None:
    """Handed to the node as DDS does, so that it takes seconds; nobody else works meanwhile."""
    ros.subscribe(Image, 'label', 'depth')
    message, info = image_of(1), info_of()
    info.header = message.header
    at = {}
    for frame in range(1, 10_001):
        ros.node._on_camera_info(info)
        ros.node._on_image(message)
        if frame % 10 == 0:  # the others are dropped
            ros.counts()
            ros.got.clear()
        if frame in (2_000, 10_000):
            ros.diagnostics.clear()
            gc.collect()
            at[frame] = (memory_in_use(), len(gc.get_objects()))
    fake.seen.clear()
    received, processed, dropped = ros.counts()
    assert received == 10_000 == processed + dropped
    print(f'processed {processed}, dropped {dropped}; memory and objects {at}')
    assert at[10_000][0] - at[2_000][0] < 8 * 2**20
    assert at[10_000][1] - at[2_000][1] < 1_000
    assert processed >= 1_000


def test_outputs_are_made_only_while_somebody_subscribes(
    ros: InProcess, fake: FakeNetwork
) -> None:
    for _ in range(3):
        seen = len(fake.seen)
        processed = ros.counts()[1]
        unreadable = image_of(1)
        unreadable.encoding = 'nonsense'
        ros.send(unreadable)
        ros.until(lambda n=processed: ros.counts()[1] == n + 1, 'a frame that is not read')
        assert len(fake.seen) == seen
        ros.subscribe(Image, 'label')
        message = image_of(2)
        ros.send(message)
        ros.answer('label', message.header)
        assert len(fake.seen) == seen + 1
        ros.unsubscribe()
        ros.until(lambda: not ros.node._outputs['label'].get_subscription_count(), 'silence')


def footprint(ros: InProcess) -> tuple[int, int, int, int]:
    """Return the numbers of threads, and of the node's publishers, subscriptions, timers."""
    node = ros.node
    subscriptions = len(list(node.subscriptions))
    return (
        len(all_threads()),
        len(list(node.publishers)),
        subscriptions,
        len(list(node.timers)) + len(list(node.services)) + len(list(node.waitables)),
    )


# Transitions asked for while the network loads, each with whether it succeeds thereafter.
WHILE_LOADING = (
    [(CONFIGURE, False)],
    [(ACTIVATE, True), (DEACTIVATE, True)],
    [(CLEANUP, True), (CONFIGURE, True)],
    [(DEACTIVATE, False)],
    [(ACTIVATE, True), (CLEANUP, False), (DEACTIVATE, True), (CLEANUP, True), (CONFIGURE, True)],
)


def configure_while_asked(
    ros: InProcess, fake: FakeNetwork, *asked: tuple[int, bool], loads: bool = True
) -> None:
    """Configure, and ask for transitions meanwhile: they are answered in turn when it is done."""
    fake.loading.clear()
    fake.loading_gate.clear()
    configured = ros.request(CONFIGURE)
    ros.until(fake.loading.is_set, 'the loading')
    answers = [ros.request(transition) for transition, _ in asked]
    values = ros.status(lambda _, values: values['state'] == 'configuring')
    assert values['waiting_for'] == 'the network to load'
    assert not configured.done() and not any(answer.done() for answer in answers)
    fake.loading_gate.set()
    ros.until(lambda: all(answer.done() for answer in (configured, *answers)), 'the answers')
    assert configured.result().success == loads
    assert [answer.result().success for answer in answers] == [succeeds for _, succeeds in asked]


def test_every_transition_at_every_moment_a_hundred_times(
    ros: InProcess, fake: FakeNetwork
) -> None:
    """While the network loads, with frames that come, wait or are processed; nothing is left."""
    assert ros.change_state(DEACTIVATE, CLEANUP)
    before = footprint(ros)
    memory = {}
    for life in range(100):
        assert ros.state == 'unconfigured'
        assert not ros.change_state(ACTIVATE)
        if life % 2:
            configure_while_asked(ros, fake, *WHILE_LOADING[life % len(WHILE_LOADING)])
        else:
            assert ros.change_state(CONFIGURE)
        if life % 4 == 1:
            assert ros.change_state(CLEANUP, CONFIGURE)
        assert not ros.change_state(DEACTIVATE)
        assert ros.change_state(ACTIVATE)
        assert not ros.change_state(CONFIGURE) and not ros.change_state(CLEANUP)
        for frame in range(life % 3):  # none, one under way, one waiting behind it
            ros.node._on_image(image_of(frame))
        assert ros.change_state(DEACTIVATE)
        if life % 4 == 2:
            assert ros.change_state(ACTIVATE, DEACTIVATE)
        assert ros.change_state(CLEANUP)
        if life in (29, 99):
            gc.collect()
            memory[life] = memory_in_use()
    assert footprint(ros) == before
    print(f'memory after 30 and 100 lives: {memory[29]}, {memory[99]}; {before}')
    assert memory[99] - memory[29] < 8 * 2**20
    received, processed, dropped = ros.counts()
    assert received == processed + dropped
    ros.start()
    ros.subscribe(Image, 'label', 'depth')
    assert frames_until_right(ros, 2, 5.0) <= 2


def test_transitions_while_a_network_loads_that_can_not_be_loaded(
    ros: InProcess, fake: FakeNetwork
) -> None:
    assert ros.change_state(DEACTIVATE, CLEANUP)
    before = footprint(ros)
    fake.damaged = True
    refused = [(ACTIVATE, False), (CLEANUP, False), (CONFIGURE, False)]
    configure_while_asked(ros, fake, *refused, loads=False)
    assert ros.state == 'unconfigured'
    ros.status(lambda status, _: 'can not configure: the weights are damaged' in status.message)
    assert footprint(ros) == before
    fake.damaged = False
    configure_while_asked(ros, fake, (Transition.TRANSITION_INACTIVE_SHUTDOWN, True))
    assert ros.state == 'finalized'
    assert footprint(ros) == before


@pytest.mark.parametrize('transition', [DEACTIVATE, Transition.TRANSITION_ACTIVE_SHUTDOWN])
def test_leaving_while_a_frame_is_processed(
    ros: InProcess, fake: FakeNetwork, transition: int
) -> None:
    """The frame at hand is finished, the one that waits is dropped."""
    ros.subscribe(Image, 'label')
    fake.gate.clear()
    ros.send(image_of(1))
    ros.until(fake.taken.is_set, 'a busy network')
    ros.send(image_of(2))
    ros.until(lambda: ros.node._worker.statistics().waiting, 'a frame that waits')
    future = ros.request(transition)
    ros.until(lambda: not ros.node._worker.statistics().waiting, 'the stop')
    fake.gate.set()
    ros.until(future.done, 'the answer')
    assert future.result().success
    assert ros.counts() == (2, 1, 1)
    assert ros.state in ('inactive', 'finalized')


def test_time_that_jumps(fake: FakeNetwork) -> None:
    """A bag that loops takes the clock back; max_age is by that clock alone."""
    with InProcess(use_sim_time=True, max_age=2.0) as ros:
        clock = ros.peer.create_publisher(Clock, '/clock', RELIABLE)
        ros.start()
        ros.status(lambda _, values: '/clock' in values['waiting_for'])
        ros.subscribe(Image, 'label')
        ros.until(clock.get_subscription_count, 'the node on /clock')
        for now, stamp, accepted in (
            (1000, 999, True),
            (1000, 997, False),
            (10, 9, True),  # the bag starts again
            (10, 7, False),
            (10, 1000, True),  # of the future, as after a jump back
            (90_000, 1000, False),
            (90_000, 89_999, True),
        ):
            clock.publish(Clock(clock=Time(sec=now)))
            ros.until(
                lambda now=now: ros.node.get_clock().now().nanoseconds == now * 10**9, 'the time'
            )
            _, processed, dropped = ros.counts()
            message = image_of(1, sec=stamp)
            ros.send(message)
            if accepted:
                ros.answer('label', message.header)
                assert ros.counts()[1:] == (processed + 1, dropped)
            else:
                ros.status(lambda status, _: 'older than max_age (2.0 s)' in status.message)
                assert ros.counts()[1:] == (processed, dropped + 1)
        ros.status(lambda status, values: 'max_age' not in status.message)


def test_peers_with_another_qos_are_named(ros: InProcess) -> None:
    """Their topic and name, as an ERROR that goes when they go."""
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    subscription = ros.peer.create_subscription(Image, 'depth', lambda _: None, latched)
    values = ros.status(lambda status, _: '/perception/peer' in status.message)
    assert ros.diagnostics[-1].level == DiagnosticStatus.ERROR
    assert values['qos_mismatches'] == '/perception/depth'
    assert 'no messages reach subscriber /perception/peer' in values['message']
    assert 'durability' in values['message'] or 'transient' in values['message']
    ros.peer.destroy_subscription(subscription)
    ros.status(lambda status, values: not values['qos_mismatches'])


def test_the_executor_waits_for_no_events_of_the_topics(ros: InProcess) -> None:
    """A wait set is built several times a frame: each event in it costs more than a message."""
    idle = rclpy.create_node('idle', context=ros.context)
    assert len(list(ros.node.waitables)) <= len(list(idle.waitables))
    idle.destroy_node()


def test_peers_with_another_type_are_named(ros: InProcess) -> None:
    context = rclpy.Context()  # of its own: one participant can't have two types on a topic
    rclpy.init(context=context)
    stranger = rclpy.create_node('stranger', context=context)
    stranger.create_publisher(CompressedImage, '/perception/image', 1)
    values = ros.status(lambda status, _: '/stranger' in status.message)
    assert 'no messages come from publisher /stranger' in values['message']
    assert 'whose type is sensor_msgs/msg/CompressedImage' in values['message']
    stranger.destroy_node()
    context.try_shutdown()
    ros.status(lambda status, values: not values['qos_mismatches'])


def test_qos_is_overridden_by_parameters(fake: FakeNetwork) -> None:
    overrides = {
        'qos_overrides./perception/image.subscription.reliability': 'reliable',
        'qos_overrides./perception/label.publisher.reliability': 'best_effort',
        'qos_overrides./perception/label.publisher.depth': 3,
    }
    with InProcess(**overrides) as ros:
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        unheard = ros.peer.create_publisher(Image, '/perception/image', best_effort)
        ros.start()
        (label,) = ros.peer.get_publishers_info_by_topic('/perception/label')
        assert label.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        (image,) = ros.peer.get_subscriptions_info_by_topic('/perception/image')
        assert image.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        values = ros.status(lambda status, _: '/perception/peer' in status.message)
        assert values['qos_mismatches'] == '/perception/image'
        assert 'no messages come from publisher /perception/peer' in values['message']
        assert 'reliability' in values['message'] or 'reliable' in values['message']
        ros.peer.destroy_publisher(unheard)
        ros.status(lambda status, values: not values['qos_mismatches'])


def test_two_cameras_in_two_namespaces_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = [FakeNetwork(), FakeNetwork()]
    waiting = iter(networks)
    monkeypatch.setattr(network, 'load_predictor', lambda _: next(waiting))
    with InProcess('/left') as left, InProcess('/right') as right:
        for ros in (left, right):
            ros.start()
            ros.subscribe(Image, 'label', 'depth')
        for ros, other, reds in ((left, right, (1, 6, 11)), (right, left, (2, 7, 12))):
            for red in reds:
                message = image_of(red)
                ros.send(message, info_of(fx=float(red)))
                assert values_of(ros.answer('label', message.header)) == {red % 5}
                assert values_of(ros.answer('depth', message.header)) == {float(red)}
            other.executor.spin_once(timeout_sec=0.1)
        assert [fake.seen for fake in networks] == [[1, 6, 11], [2, 7, 12]]
        assert [set(map(len, ros.got.values())) for ros in (left, right)] == [{3}, {3}]
        assert left.counts() == right.counts() == (3, 3, 0)
        assert {ros.node.get_fully_qualified_name() for ros in (left, right)} == {
            '/left/unified',
            '/right/unified',
        }
        rclpy_names = dict(left.peer.get_node_names_and_namespaces()).keys()
        assert {'unified', 'peer'} <= rclpy_names
