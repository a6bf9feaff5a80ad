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

"""A camera and a listener for a node in another process, over DDS."""

from collections.abc import Mapping
from functools import partial
from time import monotonic, perf_counter
from types import TracebackType
from typing import Any, NamedTuple

from builtin_interfaces.msg import Time
from lunar_perception.camera import LUSNAR_CAMERA
from lunar_perception.commands.node_process import NodeProcess
from lunar_perception.nodes.camera_info import info_from_camera
from lunar_perception.nodes.codec import encode
from lunar_perception.nodes.outputs import OUTPUTS
import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

FRAME_ID = 'camera_left_optical'
READY_TIMEOUT_S = 180.0
ANSWER_TIMEOUT_S = 30.0
DRAIN_S = 1.0


class Stream(NamedTuple):
    """
    What became of images sent at a fixed rate.

    Fields:
        rate: images a second that were asked for; `sent`: images that were sent.
        seconds: from the first image to the last.
        latencies: seconds from just before sending an image to the last of its outputs, in the
            order of sending, of each image that was answered in full.

    """

    rate: float
    sent: int
    seconds: float
    latencies: list[float]

    @property
    def loss(self) -> float:
        """Share of the images that were not answered in full."""
        return 1 - len(self.latencies) / self.sent


class CameraClient:
    """
    Sends the same image over and over, with ever new stamps, and awaits its outputs.

    A context manager with a ROS context of its own. It publishes with a depth of one, as camera
    drivers do, and so that an image that waits is replaced, not queued.
    """

    def __init__(
        self,
        node: NodeProcess,
        namespace: str,
        image: np.ndarray,
        topics: tuple[str, ...],
        message_types: Mapping[str, type] | None = None,
    ) -> None:
        self._process = node
        self._topics = topics
        self._stamp = 0
        self._sent: dict[int, float] = {}
        self._missing: dict[int, set[str]] = {}
        self._answered: dict[int, float] = {}
        height, width = image.shape[:2]
        self._message = encode(image, 'rgb8', Header(frame_id=FRAME_ID))
        self._info = info_from_camera(LUSNAR_CAMERA.resized(width, height), self._message.header)

        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._context = Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node('camera', context=self._context, namespace=namespace)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._images = self._node.create_publisher(Image, 'image', qos)
        self._infos = self._node.create_publisher(CameraInfo, 'camera_info', qos)
        types = message_types or {name: output.message_type for name, output in OUTPUTS.items()}
        for topic in topics:
            self._node.create_subscription(types[topic], topic, partial(self._keep, topic), qos)

    def __enter__(self) -> 'CameraClient':
        """Wait until an image has been answered in full; CommandError when the node ends."""
        deadline = monotonic() + READY_TIMEOUT_S
        while not self._answered:
            self._process.check_alive()
            if monotonic() > deadline:
                raise TimeoutError(f'no answer within {READY_TIMEOUT_S:g} s')
            if self._images.get_subscription_count():
                self._send()
            self._spin_until(monotonic() + 0.5)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def round_trip(self) -> float:
        """Send an image; return the seconds until the last of its outputs was here."""
        stamp = self._send()
        deadline = monotonic() + ANSWER_TIMEOUT_S
        while stamp not in self._answered:
            if monotonic() > deadline:
                self._process.check_alive()
                raise TimeoutError(f'no answer within {ANSWER_TIMEOUT_S:g} s')
            self._executor.spin_once(timeout_sec=1.0)
        latency = self._answered[stamp] - self._sent[stamp]
        self._forget()
        return latency

    def stream(self, rate: float, seconds: float) -> Stream:
        """Send images at `rate` for so long, or three at least, and await what comes of them."""
        count = max(round(rate * seconds), 3)
        self._forget()
        start = monotonic()
        for number in range(count):
            self._spin_until(start + number / rate)
            self._send()
        sending = monotonic() - start
        self._spin_until(monotonic() + max(DRAIN_S, 2 / rate))
        self._process.check_alive()
        latencies = [self._answered[s] - self._sent[s] for s in self._sent if s in self._answered]
        self._forget()
        return Stream(rate, count, sending, latencies)

    def _send(self) -> int:
        self._stamp += 1
        stamp = self._stamp
        header = self._message.header
        header.stamp = Time(sec=stamp // 10**9, nanosec=stamp % 10**9)
        self._info.header = header
        self._missing[stamp] = set(self._topics)
        self._sent[stamp] = perf_counter()
        self._infos.publish(self._info)
        self._images.publish(self._message)
        return stamp

    def _keep(self, topic: str, message: Any) -> None:
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        missing = self._missing.get(stamp)
        if missing is None:
            return
        missing.discard(topic)
        if not missing:
            self._answered.setdefault(stamp, perf_counter())

    def _forget(self) -> None:
        for book in (self._sent, self._missing, self._answered):
            book.clear()

    def _spin_until(self, deadline: float) -> None:
        while (left := deadline - monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)
