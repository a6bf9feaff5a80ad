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

"""The node under bad input, load, changes of state and of time, with a fake network."""

from array import array
from collections.abc import Iterator
import gc
import os
from pathlib import Path
import pickle
from threading import enumerate as all_threads
from time import sleep
from typing import Any, NamedTuple

from builtin_interfaces.msg import Time
import cv2
from diagnostic_msgs.msg import DiagnosticStatus
from in_process import (
    FakeNetwork,
    HEIGHT,
    image_of,
    info_of,
    InProcess,
    RELIABLE,
    values_of,
    WIDTH,
)
from lifecycle_msgs.msg import Transition
from lunar_perception.commands.local_dds import FAST_DDS_PROFILE
from lunar_perception.nodes import diagnostics, network, perception_node
from lunar_perception.nodes.diagnostics import resident_memory
import numpy as np
import pytest
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

CONFIGURE, ACTIVATE = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
DEACTIVATE, CLEANUP = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP


@pytest.fixture(scope='module', autouse=True)
def environment() -> Iterator[pytest.MonkeyPatch]:
    """Keep to a domain of our own on this machine; diagnostics and log lines come at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('ROS_DOMAIN_ID', str(1 + (os.getpid() + 75) % 100))
        patch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        patch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', str(FAST_DDS_PROFILE))
        patch.setattr(perception_node, 'DIAGNOSTICS_PERIOD_S', 0.05)
        patch.setattr(diagnostics, 'LOG_CHANGE_S', 0.0)
        patch.setattr(perception_node, 'network_values', lambda _: {})
        patch.setattr(perception_node, 'free_device_memory', lambda: None)
        yield patch


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeNetwork:
    fake = FakeNetwork()
    monkeypatch.setattr(network, 'load_predictor', lambda _: fake)
    return fake


@pytest.fixture
def ros(fake: FakeNetwork) -> Iterator[InProcess]:
    with InProcess() as ros:
        ros.start()
        yield ros
        fake.gate.set()


def with_changes(message: Image, **changes: Any) -> Image:
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def float_image(value: float) -> dict[str, Any]:
    values = np.full((HEIGHT, WIDTH), value, '<f4')
    return {'encoding': '32FC1', 'step': 4 * WIDTH, 'data': array('B', values.tobytes())}


BAD_IMAGES: dict[str, dict[str, Any]] = {
    "encoding 'rgb24' is not one of": {'encoding': 'rgb24'},
    "encoding '' is not one of": {'encoding': ''},
    'the data is cut off: 100 of 162 bytes': {'data': array('B', bytes(100))},
    'the data is cut off: 0 of 162 bytes': {'data': array('B')},
    'the image is empty (0×6)': {'width': 0},
    'the image is empty (9×0)': {'height': 0},
    f'step 27 is less than a row of {2**32 - 1} rgb8 pixels': {'width': 2**32 - 1},
    f'the data is cut off: 162 of {27 * (2**32 - 1)} bytes': {'height': 2**32 - 1},
    'the float image holds NaN': float_image(float('nan')),
    'the float image holds values from 40 to 40': float_image(40.0),
    'a yuyv image has an even width, not 9': {'encoding': 'yuyv'},
}


def bad_infos() -> dict[str, Any]:
    focal = [-5.0, 0.0, 4.0, 0.0, 5.0, 2.5, 0.0, 0.0, 1.0]
    nan = [float('nan'), *focal[1:]]
    return {
        'CameraInfo is uncalibrated (K[0] = 0)': info_of(k=[0.0] * 9),
        'fx = -5': info_of(k=focal),
        'fx = nan': info_of(k=nan),
        'CameraInfo is of 640×480 pixels, the image of 9×6': info_of(width=640, height=480),
        'camera size 0×6 must be positive': info_of(width=0),
        "CameraInfo is of frame 'ear', the image of 'eye'": info_of(),
    }


def frames_until_right(ros: InProcess, red: int, fx: float) -> int:
    """Return how many good frames it takes until label and depth of one are right."""
    for frame in (1, 2, 3):
        message = image_of(red)
        ros.send(message, info_of(fx))
        try:
            label = ros.answer('label', message.header, timeout=2.0)
            depth = ros.answer('depth', message.header, timeout=2.0)
        except AssertionError:
            continue
        if (values_of(label), values_of(depth)) == ({red % 5}, {fx}):
            return frame
    raise AssertionError('the outputs did not become right again')


def test_each_bad_input_is_named_once_and_the_node_lives_on(ros: InProcess) -> None:
    """One row for each bad input: what it says, the state afterwards, frames to recover."""
    ros.subscribe(Image, 'label', 'depth')
    assert frames_until_right(ros, 1, 5.0) <= 2
    rows = []
    for says, changes in BAD_IMAGES.items():
        _, _, dropped = ros.counts()
        for number in range(1, 4):
            ros.send(with_changes(image_of(7), **changes), info_of())
            ros.until(lambda n=dropped + number: ros.counts()[2] == n, 'the drop')
        values = ros.status(lambda status, _, says=says: says in status.message)
        assert ros.diagnostics[-1].level == DiagnosticStatus.ERROR
        rows.append((values['message'], values['state'], frames_until_right(ros, 3, 6.0)))
        assert sum(says in line for line in ros.log) == 1
        ros.status(lambda status, _: status.level == DiagnosticStatus.OK)
    for says, info in bad_infos().items():
        # Labels go on without a camera; the depth of such a frame is not made up.
        message = image_of(8)
        info.header = Header(stamp=message.header.stamp, frame_id='eye')
        if "'ear'" in says:
            info.header.frame_id = 'ear'
        ros.infos.publish(info)
        stamp = info.header.stamp
        ros.until(lambda s=stamp: ros.node._camera_infos.at(s), 'the CameraInfo')
        ros.images.publish(message)
        assert values_of(ros.answer('label', message.header)) == {3}
        values = ros.status(lambda status, _, says=says: says in status.message)
        assert ros.diagnostics[-1].level == DiagnosticStatus.WARN
        assert all(depth.header != message.header for depth in ros.got['depth'])
        rows.append((values['message'], values['state'], frames_until_right(ros, 3, 6.0)))
        assert sum(says in line for line in ros.log) == 1
        ros.status(lambda status, _: status.level == DiagnosticStatus.OK)
    for row in rows:
        print(' | '.join(map(str, row)))
    assert {state for _, state, _ in rows} == {'active'}
    assert max(frames for *_, frames in rows) <= 2


def test_camera_info_that_comes_late_or_changes(ros: InProcess) -> None:
    ros.subscribe(Image, 'label', 'depth')
    first = image_of(1)
    ros.send(first)
    ros.answer('label', first.header)
    values = ros.status(lambda status, _: 'no CameraInfo has come' in status.message)
    assert values['waiting_for'] == 'CameraInfo on /perception/camera_info'
    assert frames_until_right(ros, 2, 5.0) == 1
    ros.status(lambda status, _: status.level == DiagnosticStatus.OK)
    assert [frames_until_right(ros, 3, fx) for fx in (7.0, 9.0)] == [1, 1]
    assert len(ros.got['depth']) == 3
    # A field of view stands in for a calibration.
    ros.node.set_parameters([Parameter('default_fov_deg', value=90.0)])
    message = image_of(4)
    ros.send(message, info_of(k=[0.0] * 9))
    assert values_of(ros.answer('depth', message.header)) == {WIDTH / 2}


def test_bad_compressed_images(fake: FakeNetwork) -> None:
    with InProcess(image_transport='compressed', lossless=True) as ros:
        pictures = ros.peer.create_publisher(CompressedImage, 'image/compressed', RELIABLE)
        assert ros.change_state(CONFIGURE, ACTIVATE)
        ros.until(pictures.get_subscription_count, 'the subscription')
        (endpoint,) = ros.peer.get_subscriptions_info_by_topic('/perception/image/compressed')
        assert endpoint.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        ros.subscribe(Image, 'label')
        image = np.full((HEIGHT, WIDTH, 3), 3, np.uint8)
        png = cv2.imencode('.png', image)[1].tobytes()
        for data in (b'', png[:30], b'nonsense'):
            pictures.publish(CompressedImage(format='png', data=array('B', data)))
            ros.status(lambda status, _: 'not a sound JPEG or PNG' in status.message)
            good = CompressedImage(format='png', data=array('B', png))
            good.header = image_of(0).header
            pictures.publish(good)
            assert values_of(ros.answer('label', good.header)) == {3}
        assert ros.counts() == (6, 3, 3)


class BadConfiguration(NamedTuple):
    """A start that must fail: what is set, what is said of it."""

    parameters: dict[str, Any]
    says: str


def bad_configurations(folder: Path) -> tuple[Path, list[BadConfiguration]]:
    """Return good weights and configurations that are not."""
    from tiny_network import save_tiny_network

    good, cut, other, pickled, torch_file = (
        save_tiny_network(folder / name)
        for name in ('good', 'cut', 'other', 'pickled', 'torch_file')
    )
    weights = good / 'model.safetensors'
    (cut / weights.name).write_bytes(weights.read_bytes()[:1000])
    wider = save_tiny_network(folder / 'wider', decoder_channels=12)
    (other / weights.name).write_bytes((wider / weights.name).read_bytes())
    with (pickled / weights.name).open('wb') as file:
        pickle.dump({'weight': 1}, file)
    (torch_file / weights.name).rename(torch_file / 'pytorch_model.bin')
    empty = folder / 'empty'
    empty.mkdir()
    bad = BadConfiguration
    return good, [
        bad({'model': '/no/such/folder'}, 'there is no folder /no/such/folder'),
        bad({'model': str(empty)}, 'it has no config.json'),
        bad({'model': str(cut)}, 'model.safetensors is damaged or no safetensors file'),
        bad({'model': str(other)}, 'do not fit its configuration'),
        bad({'model': str(pickled)}, 'model.safetensors is damaged or no safetensors file'),
        bad({'model': str(torch_file)}, 'pickled weights only (.bin), which are never loaded'),
        bad({'model': str(good), 'device': 'abacus'}, "unknown device 'abacus'"),
        bad({'model': str(good), 'device': 'cuda:99'}, 'cuda:99'),
    ]


def test_configure_fails_with_the_reason_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perception_node, 'network_values', network.network_values)
    monkeypatch.setattr(perception_node, 'free_device_memory', network.free_device_memory)
    good, bads = bad_configurations(tmp_path)
    with InProcess(max_age=-1.0, hazard_classes=['boulder']) as ros:
        rows = []
        for says, name, value in (
            ('max_age must lie in 0.0 … 3600.0', 'max_age', 0.0),
            ("unknown class 'boulder'", 'hazard_classes', ['rock']),
        ):
            assert not ros.change_state(CONFIGURE)
            values = ros.status(lambda status, _, says=says: says in status.message)
            rows.append((values['message'], values['state']))
            assert ros.node.set_parameters([Parameter(name, value=value)])[0].successful
        for parameters, says in bads:
            changes = {'device': 'cpu', **parameters}
            results = ros.node.set_parameters(
                [Parameter(name, value=value) for name, value in changes.items()]
            )
            assert all(result.successful for result in results)
            for _ in range(2):
                assert not ros.change_state(CONFIGURE)
            values = ros.status(lambda status, _, says=says: says in status.message)
            assert ros.diagnostics[-1].level == DiagnosticStatus.ERROR
            rows.append((values['message'], values['state']))
            assert not ros.node._outputs
            changes = {'model': str(good), 'device': 'cpu'}
            ros.node.set_parameters([Parameter(n, value=value) for n, value in changes.items()])
            assert ros.change_state(CONFIGURE)
            ros.status(lambda status, values: values.get('device') == 'cpu')
            assert ros.change_state(CLEANUP)
        for row in rows:
            print(' | '.join(row))
        assert {state for _, state in rows} == {'unconfigured'}
        said = [message for message, _ in rows]
        ros.until(lambda: set(said) <= set(ros.log), 'the log')


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
            at[frame] = (resident_memory(), len(gc.get_objects()))
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
        ros.send(with_changes(image_of(1), encoding='nonsense'))
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


def test_every_transition_at_every_moment_a_hundred_times(
    ros: InProcess, fake: FakeNetwork
) -> None:
    """With frames that come, wait or are being processed; nothing is left behind."""
    assert ros.change_state(DEACTIVATE, CLEANUP)
    before = footprint(ros)
    memory = {}
    for life in range(100):
        assert ros.state == 'unconfigured'
        assert not ros.change_state(ACTIVATE)
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
            memory[life] = resident_memory()
    assert footprint(ros) == before
    print(f'memory after 30 and 100 lives: {memory[29]}, {memory[99]}; {before}')
    assert memory[99] - memory[29] < 8 * 2**20
    received, processed, dropped = ros.counts()
    assert received == processed + dropped
    ros.start()
    ros.subscribe(Image, 'label', 'depth')
    assert frames_until_right(ros, 2, 5.0) <= 2


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
    client = ros._transitions
    request = type(client.srv_type.Request())(transition=Transition(id=transition))
    future = client.call_async(request)
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
