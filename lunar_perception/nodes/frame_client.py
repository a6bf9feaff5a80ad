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

"""A client of the unified node: feed it frames losslessly, collect all it says of each."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from time import monotonic, time_ns
from typing import Any, Protocol

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lunar_perception.camera import PinholeCamera
from lunar_perception.nodes.camera_info import info_from_camera
import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header

NAMESPACE = '/perception'
FRAME_ID = 'camera_left_optical'
TIMEOUT_S = 60.0

LOSSLESS = QoSProfile(
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
    history=HistoryPolicy.KEEP_LAST,
    depth=100,
)

IMAGE_TOPICS: dict[str, tuple[str, np.dtype[Any]]] = {
    'label': ('mono8', np.dtype(np.uint8)),
    'confidence': ('mono8', np.dtype(np.uint8)),
    'depth': ('32FC1', np.dtype('<f4')),
    'depth/uncertainty': ('32FC1', np.dtype('<f4')),
}
POINT_FIELDS = (
    ('x', 0, PointField.FLOAT32),
    ('y', 4, PointField.FLOAT32),
    ('z', 8, PointField.FLOAT32),
    ('rgb', 16, PointField.FLOAT32),
    ('label', 20, PointField.UINT32),
    ('confidence', 24, PointField.FLOAT32),
)
POINT = np.dtype(
    {
        'names': [name for name, _, _ in POINT_FIELDS],
        'formats': ['<u4' if kind == PointField.UINT32 else '<f4' for _, _, kind in POINT_FIELDS],
        'offsets': [offset for _, offset, _ in POINT_FIELDS],
        'itemsize': 32,
    }
)
"""A point of the node's cloud, as the interface lays it down."""


class NodeOutputError(RuntimeError):
    """The node said something about a frame that its interface does not allow, or nothing."""


class CameraFrame(Protocol):
    """What the client sends: `data.lusnar.Frame` is one."""

    stamp_ns: int

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""

    @property
    def camera(self) -> PinholeCamera:
        """Camera that took the image."""


@dataclass(frozen=True)
class NodeOutputs:
    """
    What the node said about one frame; the arrays are read-only views of the messages.

    Fields:
        stamp_ns: the frame's stamp, which every output carried.
        label, confidence: (H, W) uint8; class ids, and round(255 · probability).
        depth, uncertainty: (H, W) float32 metres.
        points: (h, w) of `POINT`.
        latency_ms: from sending the image to the arrival of the last of its outputs.

    """

    stamp_ns: int
    label: np.ndarray
    confidence: np.ndarray
    depth: np.ndarray
    uncertainty: np.ndarray
    points: np.ndarray
    latency_ms: float


class FrameClient:
    """
    Sends frames to a unified node started with `lossless:=true`, and pairs its outputs by stamp.

    A context manager with a ROS context of its own. `alive` is called several times a second
    while the client waits; it raises when waiting has become pointless.
    """

    def __init__(self, *, alive: Callable[[], None]) -> None:
        self._alive = alive
        self._received: dict[int, dict[str, Any]] = {}
        self._arrival_ns: dict[int, int] = {}
        self._diagnostics: dict[str, str] = {}
        self._error = ''

        self._context = Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node(
            'frame_client', context=self._context, namespace=NAMESPACE, enable_rosout=False
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)

        self._image_publisher = self._node.create_publisher(Image, 'image', LOSSLESS)
        self._info_publisher = self._node.create_publisher(CameraInfo, 'camera_info', LOSSLESS)
        for topic in IMAGE_TOPICS:
            self._node.create_subscription(Image, topic, partial(self._keep, topic), LOSSLESS)
        self._node.create_subscription(
            PointCloud2, 'points', partial(self._keep, 'points'), LOSSLESS
        )
        # Last: discovery announces subscriptions in the order of their making, so when
        # diagnostics come in, the node knows of all the others and leaves no output out.
        self._node.create_subscription(
            DiagnosticArray, '/diagnostics', self._keep_diagnostics, LOSSLESS
        )

    def __enter__(self) -> 'FrameClient':
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def wait_until_ready(self, camera: PinholeCamera, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until the node has all it needs to answer; NodeOutputError when it never does."""
        publishers = (self._image_publisher, self._info_publisher)

        def listening() -> bool:
            if self._diagnostics.get('state') == 'unconfigured' and self._error:
                raise NodeOutputError(f'the node reports: {self._error}')
            return all(publisher.get_subscription_count() for publisher in publishers)

        self._spin_until(listening, timeout_s, lambda: 'the node did not become active')
        # DDS keeps no order between topics: the first image must not overtake its camera.
        self._info_publisher.publish(info_from_camera(camera, Header(frame_id=FRAME_ID)))
        self._diagnostics = {}
        self._spin_until(
            lambda: 'CameraInfo' not in self._diagnostics.get('waiting_for', 'CameraInfo'),
            timeout_s,
            lambda: 'the node did not take notice of CameraInfo',
        )

    def stream(self, frames: Iterable[CameraFrame]) -> Iterator[NodeOutputs]:
        """
        Send `frames` and yield each one's outputs, in turn.

        The node has one frame at a time, so no latency holds the wait for another; while it
        works on one, the caller deals with the outputs of the one before.

        Raises NodeOutputError when an output does not come in time, carries another stamp or
        frame than its image, or is not of the size, encoding and layout of the interface.
        """
        outputs = None
        for frame in frames:
            sent_ns = self._send(frame)
            if outputs is not None:
                yield outputs
            outputs = self._collect(frame, sent_ns)
        if outputs is not None:
            yield outputs

    def diagnostics_after(self, frames: int) -> dict[str, str]:
        """Return the node's diagnostics once they count `frames` frames as dealt with."""
        self._diagnostics = {}

        def counted() -> bool:
            dealt_with = (self._diagnostics.get(key, '0') for key in ('processed', 'dropped'))
            return sum(map(int, dealt_with)) >= frames

        self._spin_until(
            counted,
            TIMEOUT_S,
            lambda: f'its diagnostics do not count {frames} frames as processed or dropped',
        )
        return self._diagnostics

    def _send(self, frame: CameraFrame) -> int:
        """Publish a frame and its camera; return the time just before, Unix nanoseconds."""
        image, camera = frame.image, frame.camera
        header = Header(
            stamp=Time(sec=frame.stamp_ns // 10**9, nanosec=frame.stamp_ns % 10**9),
            frame_id=FRAME_ID,
        )
        message = Image(header=header, height=camera.height, width=camera.width)
        message.encoding = 'rgb8'
        message.step = 3 * camera.width
        message.data = array('B', np.ascontiguousarray(image).tobytes())
        sent_ns = time_ns()
        self._info_publisher.publish(info_from_camera(camera, header))
        self._image_publisher.publish(message)
        return sent_ns

    def _keep(self, topic: str, message: Image | PointCloud2, info: dict[str, int]) -> None:
        stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        self._received.setdefault(stamp_ns, {})[topic] = message
        # The middleware's clock reading, where it makes one: this callback may come later.
        arrival_ns = info['received_timestamp'] or time_ns()
        self._arrival_ns[stamp_ns] = max(self._arrival_ns.get(stamp_ns, 0), arrival_ns)

    def _keep_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f'{NAMESPACE}/unified':
                self._diagnostics = {entry.key: entry.value for entry in status.values}
                self._error = status.message if status.level == DiagnosticStatus.ERROR else ''

    def _collect(self, frame: CameraFrame, sent_ns: int) -> NodeOutputs:
        stamp_ns = frame.stamp_ns
        topics = {*IMAGE_TOPICS, 'points'}

        def missing() -> set[str]:
            return topics - self._received.get(stamp_ns, {}).keys()

        self._spin_until(
            lambda: not missing(),
            TIMEOUT_S,
            lambda: f'no {", ".join(sorted(missing()))} came for the frame with stamp {stamp_ns}',
        )
        messages = self._received.pop(stamp_ns)
        if self._received:
            raise NodeOutputError(
                f'outputs came with stamp {min(self._received)}, which no waiting image has'
            )
        for topic, message in messages.items():
            if message.header.frame_id != FRAME_ID:
                raise NodeOutputError(
                    f"{topic} of frame {stamp_ns} says frame_id '{message.header.frame_id}' "
                    f"instead of '{FRAME_ID}'"
                )
        shape = (frame.camera.height, frame.camera.width)
        images = {topic: _image_array(topic, messages[topic], shape) for topic in IMAGE_TOPICS}
        return NodeOutputs(
            stamp_ns=stamp_ns,
            label=images['label'],
            confidence=images['confidence'],
            depth=images['depth'],
            uncertainty=images['depth/uncertainty'],
            points=_point_array(messages['points']),
            latency_ms=(self._arrival_ns.pop(stamp_ns) - sent_ns) / 1e6,
        )

    def _spin_until(
        self, reached: Callable[[], bool], timeout_s: float, failure: Callable[[], str]
    ) -> None:
        deadline = monotonic() + timeout_s
        while not reached():
            self._alive()
            if monotonic() > deadline:
                raise NodeOutputError(f'{failure()} within {timeout_s:g} s')
            self._executor.spin_once(timeout_sec=0.1)


def _image_array(topic: str, message: Image, shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels (H, W) of an output image; NodeOutputError if it is of another form."""
    encoding, dtype = IMAGE_TOPICS[topic]
    form = (message.encoding, message.height, message.width, message.is_bigendian)
    if form != (encoding, *shape, 0) or len(message.data) != message.step * message.height:
        raise NodeOutputError(
            f'{topic} is {message.width}×{message.height} {message.encoding}, step '
            f'{message.step}, {len(message.data)} bytes; expected {shape[1]}×{shape[0]} {encoding}'
        )
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    return rows[:, : message.width * dtype.itemsize].view(dtype)


def _point_array(message: PointCloud2) -> np.ndarray:
    """Return the cloud (h, w) of `POINT`; NodeOutputError if it is laid out otherwise."""
    fields = tuple((field.name, field.offset, field.datatype) for field in message.fields)
    if fields != POINT_FIELDS or message.point_step != POINT.itemsize or message.is_bigendian:
        raise NodeOutputError(f'points have fields {fields}, point_step {message.point_step}')
    size = message.row_step, len(message.data)
    row = message.width * POINT.itemsize
    if size != (row, message.height * row) or message.is_dense:
        raise NodeOutputError(
            f'{message.width}×{message.height} points have row_step {size[0]}, {size[1]} bytes, '
            f'is_dense {message.is_dense}'
        )
    return np.frombuffer(message.data, POINT).reshape(message.height, message.width)
