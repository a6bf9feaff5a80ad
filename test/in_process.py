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

"""The unified node within the test's own process, with a network that can be held."""

from array import array
from collections import defaultdict
from collections.abc import Callable
import os
from threading import Event, Thread
from time import monotonic
from types import SimpleNamespace
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from lunar_perception.camera import PinholeCamera
from lunar_perception.commands.local_dds import FAST_DDS_PROFILE
from lunar_perception.nodes import diagnostics, perception_node
from lunar_perception.nodes.unified_node import UnifiedNode
import numpy as np
import pytest
from rcl_interfaces.msg import Log
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

TIMEOUT_S = 60.0
HEIGHT, WIDTH = 6, 9
RELIABLE = QoSProfile(depth=100)
CONFIGURE, ACTIVATE = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
DEACTIVATE, CLEANUP = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP


def keep_to_itself(patch: pytest.MonkeyPatch, domain: int) -> None:
    """Keep to a domain of the test's own; let diagnostics and log lines come at once."""
    patch.setenv('ROS_DOMAIN_ID', str(1 + (os.getpid() + domain) % 100))
    patch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    patch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', str(FAST_DDS_PROFILE))
    patch.setattr(perception_node, 'DIAGNOSTICS_PERIOD_S', 0.05)
    patch.setattr(diagnostics, 'LOG_CHANGE_S', 0.0)


class FakeNetwork:
    """
    Stands in for a predictor: sees class r % 5 in red r, and depth fx metres.

    Close `gate` to hold it in a frame; `seen` has the red of each frame that it took. Close
    `loading_gate` to hold `load`.
    """

    device, precision = SimpleNamespace(type='fake'), 'fake'

    def __init__(self) -> None:
        self.gate, self.loading_gate = Event(), Event()
        self.gate.set()
        self.loading_gate.set()
        self.taken, self.loading = Event(), Event()
        self.seen: list[int] = []
        self.damaged = False

    def load(self, _: object) -> 'FakeNetwork':
        """Stand in for `load_predictor`; ValueError while it is `damaged`."""
        self.loading.set()
        assert self.loading_gate.wait(TIMEOUT_S)
        if self.damaged:
            raise ValueError('the weights are damaged')
        return self

    def __call__(self, image: np.ndarray, camera: PinholeCamera | None) -> SimpleNamespace:
        self.seen.append(int(image[0, 0, 0]))
        self.taken.set()
        assert self.gate.wait(TIMEOUT_S)
        shape, focal = image.shape[:2], camera.fx if camera else np.nan
        return SimpleNamespace(
            label=(image[..., 0] % 5).astype(np.uint8),
            confidence=np.full(shape, 0.6, np.float32),
            depth=np.full(shape, focal, np.float32),
            uncertainty=np.full(shape, 0.1, np.float32),
        )


class InProcess:
    """
    A unified node whose executor spins in a thread, and a peer that the caller spins.

    Fields:
        node: the unified node; `peer`: the other node, in the same namespace.
        got: messages by topic; `diagnostics`: statuses of the node; `log`: its log lines.

    """

    def __init__(self, namespace: str = '/perception', **parameters: Any) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = UnifiedNode(
            context=self.context,
            cli_args=['--ros-args', '-r', f'__ns:={namespace}'],
            parameter_overrides=[
                Parameter(name, value=value)
                for name, value in {'autostart': False, **parameters}.items()
            ],
        )
        self.peer = rclpy.create_node('peer', namespace=namespace, context=self.context)
        self._node_executor = SingleThreadedExecutor(context=self.context)
        self._node_executor.add_node(self.node)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.peer)
        self.images = self.peer.create_publisher(Image, 'image', RELIABLE)
        self.infos = self.peer.create_publisher(CameraInfo, 'camera_info', RELIABLE)
        self.got: dict[str, list[Any]] = defaultdict(list)
        self.diagnostics: list[DiagnosticStatus] = []
        self.log: list[str] = []
        self._subscriptions: list[Any] = []
        self._transitions = self.peer.create_client(ChangeState, 'unified/change_state')
        self.peer.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self.peer.create_subscription(Log, '/rosout', self._on_log, 100)
        self._thread = Thread(target=self._spin, name='node')

    def __enter__(self) -> 'InProcess':
        self._thread.start()
        self.until(self._transitions.service_is_ready, 'the services')
        return self

    def __exit__(self, *_: object) -> None:
        self.context.try_shutdown()
        self._thread.join()
        self.node.destroy_node()
        self.executor.shutdown()
        self.peer.destroy_node()

    def _spin(self) -> None:
        try:
            self._node_executor.spin()
        except (ExternalShutdownException, RuntimeError):  # RCLError, of a shutdown in between
            if self.context.ok():
                raise

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        name = self.node.get_fully_qualified_name()
        self.diagnostics += [status for status in message.status if status.name == name]

    def _on_log(self, message: Log) -> None:
        if message.name == self.node.get_logger().name:
            self.log.append(message.msg)

    def until(self, reached: Callable[[], Any], what: str, timeout: float = TIMEOUT_S) -> Any:
        """Spin the peer until `reached` answers with something, which is returned."""
        deadline = monotonic() + timeout
        while not (answer := reached()):
            assert monotonic() < deadline, f'{what} did not come; {self.diagnostics[-1:]}'
            self.executor.spin_once(timeout_sec=0.02)
        return answer

    def status(self, fits: Callable[[DiagnosticStatus, dict[str, str]], Any]) -> dict[str, str]:
        """Return message and values of the next diagnostics that fit."""
        self.diagnostics.clear()

        def fitting() -> dict[str, str]:
            for status in self.diagnostics:
                values = {entry.key: entry.value for entry in status.values}
                if fits(status, values):
                    return {**values, 'message': status.message}
            return {}

        return self.until(fitting, 'fitting diagnostics')

    def request(self, transition: int) -> Future:
        """Ask for a transition, and leave the answer to come."""
        return self._transitions.call_async(
            ChangeState.Request(transition=Transition(id=transition))
        )

    def change_state(self, *transitions: int) -> bool:
        """Ask for transitions, one after the other; return whether all succeeded."""
        for transition in transitions:
            future = self.request(transition)
            self.until(future.done, 'an answer to change_state')
            if not future.result().success:
                return False
        return True

    def start(self) -> None:
        """Bring the node to active, and wait until it hears the peer."""
        assert self.change_state(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
        self.until(
            lambda: self.images.get_subscription_count() and self.infos.get_subscription_count(),
            'the subscriptions',
        )

    @property
    def state(self) -> str:
        return self.node._state_machine.current_state[1]

    def subscribe(self, message_type: type, *topics: str) -> None:
        """Subscribe, and wait until the node knows of it."""
        for topic in topics:
            self._subscriptions.append(
                self.peer.create_subscription(
                    message_type, topic, lambda m, t=topic: self.got[t].append(m), RELIABLE
                )
            )
            self.until(self.node._outputs[topic].get_subscription_count, topic)

    def unsubscribe(self) -> None:
        while self._subscriptions:
            self.peer.destroy_subscription(self._subscriptions.pop())
        self.got.clear()

    def send(self, message: Image, info: CameraInfo | None = None) -> None:
        if info is not None:
            info.header = message.header
            self.infos.publish(info)
        self.images.publish(message)

    def answer(self, topic: str, header: Header, timeout: float = TIMEOUT_S) -> Any:
        """Return the message with this header."""
        return self.until(
            lambda: next((m for m in self.got[topic] if m.header == header), None),
            f'{topic} of {header}',
            timeout,
        )

    def counts(self) -> tuple[int, int, int]:
        """Return the numbers received, processed and dropped, once they add up."""

        def adding_up() -> tuple[int, int, int] | None:
            counts = self.node._worker.statistics()
            done = counts.received == counts.processed + counts.dropped
            return (counts.received, counts.processed, counts.dropped) if done else None

        return self.until(adding_up, 'counts that add up')


STAMPS = iter(range(1, 10**9))


def image_of(red: int, *, sec: int = 0, frame_id: str = 'eye') -> Image:
    """Return an image of one red, with a stamp that is no other's."""
    header = Header(stamp=Time(sec=sec, nanosec=next(STAMPS)), frame_id=frame_id)
    message = Image(header=header, height=HEIGHT, width=WIDTH, encoding='rgb8', step=3 * WIDTH)
    message.data = array('B', bytes([red, 0, 0]) * (HEIGHT * WIDTH))
    return message


def info_of(fx: float = 5.0, **changes: Any) -> CameraInfo:
    """Return a CameraInfo of such images."""
    info = CameraInfo(height=HEIGHT, width=WIDTH)
    info.k = [fx, 0.0, 4.0, 0.0, 5.0, 2.5, 0.0, 0.0, 1.0]
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def values_of(message: Image) -> set[float]:
    """Return the different values in an output image."""
    dtype = {'mono8': np.uint8, '32FC1': np.float32}[message.encoding]
    return set(np.unique(np.frombuffer(message.data, dtype)).tolist())


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
