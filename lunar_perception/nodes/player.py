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

"""Plays a rosbag2 through rclpy: as recorded, at another rate, or frame by frame losslessly."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
import signal
from threading import Event
from time import monotonic
from typing import Any

from lunar_perception.data.bag_reader import BagMessage, BagReader, BagTopic
from lunar_perception.data.bag_topics import (
    CAMERA_INFO,
    FRAME_PARTS,
    FRAME_TOPICS,
    header_stamp_ns,
    PROCESSED,
)
from lunar_perception.nodes.qos import latched_qos, output_qos
from lunar_perception.nodes.recorded_qos import recorded_qos
import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from std_msgs.msg import UInt64
from std_srvs.srv import Trigger

CLOCK_PERIOD_S = 0.025
IDLE_PERIOD_S = 0.05
READY_TIMEOUT_S = 600.0
"""For the evaluator to say that the node is ready, which loads a network first."""

SETTLED_S = 2.0
"""For subscriptions that the evaluator has heard of to be discovered here as well."""

SCORED_TIMEOUT_S = 120.0
DELIVERY_TIMEOUT_S = 10.0
DELIVERY_PERIOD_S = 0.1


class PlayerError(RuntimeError):
    """The bag can not be played, or not as it was asked; says what to do."""


@dataclass(frozen=True)
class PlayerOptions:
    """
    How to play.

    Fields:
        rate: factor of speed; of no effect with `lossless`.
        loop: begin anew at the end.
        clock: publish /clock.
        lossless: publish reliably, and after each frame wait until the evaluator has scored it.
        topics: only these; None plays all.

    """

    rate: float = 1.0
    loop: bool = False
    clock: bool = False
    lossless: bool = False
    topics: tuple[str, ...] | None = None


class Player(Node):
    """
    Node `player`: publishes a bag's messages as they were recorded, byte for byte.

    Publishers offer the recorded QoS; lossless ones are reliable with a deep queue. A topic
    whose message type is not installed is left out and named. Services `~/pause`, `~/resume` and
    `~/step` (std_srvs/Trigger); a step plays what bears the next stamp.
    """

    def __init__(
        self, reader: BagReader, options: PlayerOptions, interrupted: Event, **node_options: Any
    ) -> None:
        """
        Advertise the bag's topics; who sets `interrupted` ends `play`.

        Raises PlayerError when `options` names a topic that the bag lacks, or no topic is left.
        """
        super().__init__('player', **node_options)
        self._interrupted = interrupted
        self._reader = reader
        self._options = options
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self)
        self._publishers_by_topic: dict[str, Publisher] = {}
        for topic in self._chosen_topics():
            publisher = self._advertise(topic)
            if publisher is not None:
                self._publishers_by_topic[topic.name] = publisher
        if not self._publishers_by_topic:
            raise PlayerError(f'{reader.path} has no message of a type that is installed')
        self._clock_publisher = (
            self.create_publisher(Clock, '/clock', 10) if options.clock else None
        )

        self._paused = False
        self._steps = 0
        self._first_ns = self._now_ns = 0
        self._origin = 0.0  # when on the wall the first message was due
        for name, answer in (
            ('pause', self._pause),
            ('resume', self._resume),
            ('step', self._step),
        ):
            self.create_service(Trigger, f'~/{name}', answer)

        self._frames_due = 0
        self._parts_sent: defaultdict[int, set[str]] = defaultdict(set)
        self._scored: int | None = None
        if options.lossless:
            self.create_subscription(UInt64, PROCESSED, self._on_processed, latched_qos())

    def play(self) -> None:
        """
        Publish all.

        Raises PlayerError when lossless playing gets no answer, BagError for a damaged bag, and
        KeyboardInterrupt once `interrupted` is set.
        """
        if self._options.lossless:
            self._wait_until_ready()
        while True:
            self._first_ns = 0
            for message in self._reader.messages(set(self._publishers_by_topic)):
                self._wait_until_due(message.stamp_ns)
                self._publish(message)
            if not self._options.loop:
                break
        self._deliver(self._publishers_by_topic.values())

    def destroy_node(self) -> None:
        self._executor.shutdown()
        super().destroy_node()

    def _chosen_topics(self) -> list[BagTopic]:
        recorded = self._reader.topics
        if self._options.topics is None:
            return list(recorded.values())
        for name in self._options.topics:
            if name not in recorded:
                known = ', '.join(sorted(recorded))
                raise PlayerError(f'{self._reader.path} has no topic {name}; it has {known}')
        return [recorded[name] for name in self._options.topics]

    def _advertise(self, topic: BagTopic) -> Publisher | None:
        try:
            package, folder, name = topic.msgtype.split('/')
            kind = getattr(import_module(f'{package}.{folder}'), name)
        except (AttributeError, ImportError, ValueError):
            self.get_logger().warning(
                f'{topic.name} is left out: {topic.msgtype or "a topic of several types"} '
                'is not installed'
            )
            return None
        qos = recorded_qos(topic.qos)
        if self._options.lossless:
            durability, qos = qos.durability, output_qos(lossless=True)
            qos.durability = durability
        return self.create_publisher(kind, topic.name, qos)

    def _publish(self, message: BagMessage) -> None:
        part = FRAME_TOPICS.get(message.topic)
        if self._options.lossless and part == 'image':
            # DDS keeps no order between topics: what goes with the image must not come after.
            self._deliver(
                self._publishers_by_topic[topic]
                for topic in CAMERA_INFO.values()
                if topic in self._publishers_by_topic
            )
        self._publishers_by_topic[message.topic].publish(message.data)
        if self._options.lossless and part is not None:
            self._wait_until_scored(header_stamp_ns(message.data), part)

    def _wait_until_due(self, stamp_ns: int) -> None:
        """Return when the message is to be sent; meanwhile, serve and keep the clock."""
        if not self._first_ns:
            self._first_ns = stamp_ns
            self._origin = monotonic()
        while True:
            self._serve(0)
            if self._paused and stamp_ns != self._now_ns:  # a stamp's messages stay together
                self._start_over_at(stamp_ns)
                if self._steps:
                    self._steps -= 1
                    break
                self._serve(IDLE_PERIOD_S)
                self._publish_clock(self._now_ns or stamp_ns)
                continue
            left = self._time_left(stamp_ns)
            if left <= 0:
                break
            self._serve(min(left, CLOCK_PERIOD_S))
            ahead_s = max(self._time_left(stamp_ns), 0) * self._options.rate
            self._publish_clock(stamp_ns - round(ahead_s * 1e9))
        if stamp_ns != self._now_ns:
            self._now_ns = stamp_ns
            self._publish_clock(stamp_ns)

    def _time_left(self, stamp_ns: int) -> float:
        """Return the seconds until a message is due; none in lossless playing or for a step."""
        if self._options.lossless or self._paused:
            return 0.0
        due = self._origin + (stamp_ns - self._first_ns) / 1e9 / self._options.rate
        return due - monotonic()

    def _start_over_at(self, stamp_ns: int) -> None:
        """Let the next message be due now, so that a pause is not caught up with."""
        self._origin = monotonic() - (stamp_ns - self._first_ns) / 1e9 / self._options.rate

    def _publish_clock(self, stamp_ns: int) -> None:
        if self._clock_publisher is not None:
            self._clock_publisher.publish(Clock(clock=Time(nanoseconds=stamp_ns).to_msg()))

    def _wait_until_ready(self) -> None:
        """Wait until the evaluator is there and all who listen to frames are connected."""
        self.get_logger().info(f'waiting for the evaluator on {PROCESSED}')

        def ready() -> bool:
            return self._scored is not None and all(
                publisher.get_subscription_count() >= self.count_subscribers(topic)
                for topic, publisher in self._publishers_by_topic.items()
                if topic in FRAME_TOPICS or topic in CAMERA_INFO.values()
            )

        failure = 'no evaluator says that it and the node are ready; start both'
        self._spin_until(ready, READY_TIMEOUT_S, failure)
        # The evaluator may know of the node before its subscriptions are discovered here, and a
        # CameraInfo that it does not get is missing from its first frame.
        settled = monotonic() + SETTLED_S
        self._spin_until(lambda: monotonic() > settled and ready(), READY_TIMEOUT_S, failure)
        self._frames_due = self._scored or 0

    def _wait_until_scored(self, stamp_ns: int, part: str) -> None:
        sent = self._parts_sent[stamp_ns]
        sent.add(part)
        if len(sent) < len(FRAME_PARTS):
            return
        del self._parts_sent[stamp_ns]
        self._frames_due += 1
        self._spin_until(
            lambda: (self._scored or 0) >= self._frames_due,
            SCORED_TIMEOUT_S,
            f'frame {stamp_ns} was not scored; /diagnostics tells what the node makes of it',
        )

    def _spin_until(self, reached: Callable[[], bool], timeout_s: float, failure: str) -> None:
        deadline = monotonic() + timeout_s
        while not reached():
            if monotonic() > deadline:
                raise PlayerError(f'within {timeout_s:g} s, {failure}')
            self._serve(IDLE_PERIOD_S)

    def _serve(self, timeout_s: float) -> None:
        """Answer a service or hear the evaluator, and end what was interrupted."""
        self._executor.spin_once(timeout_sec=timeout_s)
        if self._interrupted.is_set():
            raise KeyboardInterrupt

    def _deliver(self, publishers: Iterable[Publisher]) -> None:
        """Wait until reliable subscribers have what was published, but not for ever."""
        deadline = monotonic() + DELIVERY_TIMEOUT_S
        for publisher in publishers:
            while not publisher.wait_for_all_acked(Duration(seconds=DELIVERY_PERIOD_S)):
                if monotonic() > deadline:
                    return
                self._serve(0)

    def _on_processed(self, message: UInt64) -> None:
        self._scored = message.data

    def _pause(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._paused = True
        return _answer(response, True, 'paused')

    def _resume(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._paused = False
        self._steps = 0
        return _answer(response, True, 'playing')

    def _step(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._paused:
            return _answer(response, False, 'not paused; call ~/pause first')
        self._steps += 1
        return _answer(response, True, 'one step')


def _answer(response: Trigger.Response, success: bool, message: str) -> Trigger.Response:
    response.success, response.message = success, message
    return response


def play_bag(reader: BagReader, options: PlayerOptions) -> None:
    """Play a bag from a node of its own; raises as `Player.play`, and KeyboardInterrupt."""
    # Noted, not raised: inside rclpy's C++ a KeyboardInterrupt becomes some other error.
    interrupted = Event()
    former = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        player = Player(reader, options, interrupted)
        try:
            player.play()
        finally:
            player.destroy_node()
    finally:
        rclpy.try_shutdown()
        signal.signal(signal.SIGINT, former)
