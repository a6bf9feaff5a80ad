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

"""The evaluator: holds what the unified node says against the truth in the bag being played."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
import signal
import sys
from threading import Event
from time import monotonic, time_ns
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lunar_perception.data.bag_reader import BagError, BagReader
from lunar_perception.data.bag_topics import (
    CAMERA_INFO,
    COMPRESSED_SUFFIX,
    DEPTH,
    IMAGE,
    LABEL,
    PROCESSED,
)
from lunar_perception.data.bags import LusnarBag
from lunar_perception.data.pairing import StampPairing
from lunar_perception.nodes.camera_info import camera_of_image, CameraInfoError, RecentCameraInfos
from lunar_perception.nodes.codec import decode_compressed_rgb, decode_rgb, pixels
from lunar_perception.nodes.diagnostics import diagnostic_status, Problems, WARN
from lunar_perception.nodes.qos import input_qos, latched_qos
from lunar_perception.reference_rows import PositionPrior
from lunar_perception.report import write_results
from lunar_perception.scoreboard import Scoreboard
import numpy as np
from rcl_interfaces.msg import ParameterDescriptor
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import UInt64

PERCEPTION = '/perception'
UNIFIED = f'{PERCEPTION}/unified'
PREDICTIONS = {
    'label': f'{PERCEPTION}/label',
    'confidence': f'{PERCEPTION}/confidence',
    'depth': f'{PERCEPTION}/depth',
    'uncertainty': f'{PERCEPTION}/depth/uncertainty',
}
TRUTH = {'true label': LABEL, 'true depth': DEPTH}
PARTS = ('image', *TRUTH, *PREDICTIONS)

DIAGNOSTICS_PERIOD_S = 1.0
LATE_S = 5.0
"""How long after the end of the bag predictions may still come."""

COUNTS_S = 3.0
"""How long to wait for the node's last counts."""

COUNTS = ('received', 'processed', 'dropped')


class EvaluatorNode(Node):
    """
    Node `/evaluation/evaluator`: pairs predictions and truth by exact stamp and scores them.

    Says on /evaluation/processed how many frames it has scored, for the first time (0) once the
    unified node is active, and with each of its diagnostics again. The bag has ended when the
    truth's publishers are gone.
    """

    def __init__(self, **options: Any) -> None:
        """Subscribe; BagError when parameter `bag` names one that can not be read."""
        super().__init__('evaluator', namespace='/evaluation', **options)
        self._output = Path(self._text('output', 'evaluation', 'Folder for the results.'))
        self._bag = self._text(
            'bag', '', 'The bag being played: tells how its camera is mounted, names the data.'
        )
        self._model = self._text('model', '', "The node's weights, as the report names them.")
        self._problems = Problems(self.get_logger())
        self.scoreboard = Scoreboard(PositionPrior.shipped())
        self._frames_recorded = 0
        self._damage: str | None = None
        if self._bag:
            self._look_into_bag()
        self._pairing: StampPairing[Any] = StampPairing(PARTS)
        self._camera_infos = RecentCameraInfos()
        self._arrival_ns: dict[int, dict[str, int]] = {}
        self._latency_ms: list[float] = []
        self._node_values: dict[str, str] = {}
        self._node_reports = 0
        self._ready = False
        self._last_arrival = monotonic()
        self._played = False

        self._processed = self.create_publisher(UInt64, PROCESSED, latched_qos())
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._subscribe()
        self.create_timer(
            DIAGNOSTICS_PERIOD_S,
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    @property
    def missing(self) -> dict[int, tuple[str, ...]]:
        """Reasons why frames were not scored, by stamp in ns."""
        return self._pairing.missing

    @property
    def node_reports(self) -> int:
        """How often the unified node has told its counts."""
        return self._node_reports

    def bag_ended(self) -> bool:
        """Whether the truth was played, its publishers are gone, and nothing more is to come."""
        playing = any(self.count_publishers(topic) for topic in TRUTH.values())
        self._played = self._played or playing
        if playing or not self._played:
            return False
        return not self._pairing.waiting or monotonic() - self._last_arrival > LATE_S

    def counts_settled(self) -> bool:
        """Whether the node's counts are of all that it has received."""
        received, processed, dropped = (int(self._node_values.get(k, -1)) for k in COUNTS)
        return received >= 0 and received == processed + dropped

    def finish(self, interrupted: bool) -> bool:
        """
        Write metrics.json and report.html.

        Returns whether all that the bag holds was scored. What was not is named, and results of
        less than the whole bag are marked as partial.
        """
        self._pairing.flush()
        seen = self.scoreboard.network.frames + len(self.missing)
        ended_early = None
        if self._damage is not None:
            ended_early = self._damage
        elif seen < self._frames_recorded:
            ended_early = f'{seen} of the {self._frames_recorded} frames of the bag came'
        elif interrupted:
            ended_early = 'interrupted before the end of the bag'
        for stamp_ns, parts in self.missing.items():
            self.get_logger().warning(f'frame {stamp_ns} was not scored: no {", no ".join(parts)}')
        frames = self.scoreboard.network.frames
        counts = {key: int(self._node_values[key]) for key in COUNTS if key in self._node_values}
        write_results(
            self._output,
            self.scoreboard,
            title='Evaluation of the running node',
            data=f'{frames}, of {self._bag or "what was played"}',
            model=f'{self._model or "the rover weights that ship with the package"}, '
            'in the ROS 2 node',
            latency_ms=self._latency_ms,
            counts=counts,
            missing=self.missing,
            partial=ended_early,
        )
        self.get_logger().info(
            f'{frames} frames scored, {len(self.missing)} missing; look at '
            f'{self._output / "report.html"}'
        )
        return ended_early is None and not self.missing

    def _text(self, name: str, default: str, description: str) -> str:
        descriptor = ParameterDescriptor(description=description, read_only=True)
        return str(self.declare_parameter(name, default, descriptor).value)

    def _look_into_bag(self) -> None:
        """Find out how the camera is mounted, how much there is to play, and if that is all."""
        with BagReader(self._bag) as reader:
            mounting = LusnarBag(reader).mounting()
            self._frames_recorded = reader.topics[LABEL].message_count
            self._damage = reader.damage
        if mounting is not None:
            self.scoreboard.mount_camera(mounting.height, mounting.pitch_deg)

    def _subscribe(self) -> None:
        """Subscribe to everything, to the node's diagnostics last."""
        qos = input_qos(lossless=True)

        def listen(kind: type, topic: str, callback: Callable[..., None]) -> None:
            self.create_subscription(kind, topic, callback, qos)

        listen(CameraInfo, CAMERA_INFO['left'], self._camera_infos.add)
        image = IMAGE['left']
        listen(Image, image, partial(self._keep, 'image'))
        listen(CompressedImage, image + COMPRESSED_SUFFIX, partial(self._keep, 'image'))
        for part, topic in {**TRUTH, **PREDICTIONS}.items():
            listen(Image, topic, partial(self._keep, part))
        # Discovery announces subscriptions in the order of their making: a node that has sent
        # diagnostics knows of all the others, and leaves no output out.
        listen(DiagnosticArray, '/diagnostics', self._keep_diagnostics)

    def _keep(self, part: str, message: Any, info: dict[str, int]) -> None:
        stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        self._last_arrival = monotonic()
        # The middleware's clock reading, where it makes one: this callback may come later.
        arrivals = self._arrival_ns.setdefault(stamp_ns, {})
        arrivals[part] = info['received_timestamp'] or time_ns()
        parts = self._pairing.add(part, stamp_ns, message)
        if parts is not None:
            self._score(stamp_ns, parts)
            results = max(arrivals[part] for part in PREDICTIONS)
            self._latency_ms.append((results - arrivals['image']) / 1e6)
            del self._arrival_ns[stamp_ns]
            self._publish_processed()
        for given_up in self.missing.keys() & self._arrival_ns.keys():
            del self._arrival_ns[given_up]

    def _score(self, stamp_ns: int, parts: dict[str, Any]) -> None:
        message = parts['image']
        compressed = isinstance(message, CompressedImage)
        try:
            image = (decode_compressed_rgb if compressed else decode_rgb)(message)
            arrays = {part: pixels(parts[part]) for part in PARTS if part != 'image'}
            info = self._camera_infos.at(message.header.stamp) or self._camera_infos.latest
            camera = camera_of_image(info, message.header.frame_id, *image.shape[1::-1])
            uncertainty = arrays['uncertainty']
            self.scoreboard.add(
                str(stamp_ns),
                image,
                camera,
                label=arrays['label'],
                confidence=arrays['confidence'],
                depth=arrays['depth'],
                # All NaN is how the node says that its network gives none.
                uncertainty=None if np.isnan(uncertainty).all() else uncertainty,
                truth_label=arrays['true label'],
                truth_depth=arrays['true depth'],
            )
        except (CameraInfoError, ValueError) as error:
            self.missing[stamp_ns] = (f'sound messages: {error}',)
            self._problems.report('frame', WARN, f'frame {stamp_ns} can not be scored: {error}')

    def _keep_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == UNIFIED:
                self._node_values = {entry.key: entry.value for entry in status.values}
                self._node_reports += 1
                if not self._ready and self._node_values.get('state') == 'active':
                    self._ready = True
                    self._publish_processed()

    def _publish_processed(self) -> None:
        self._processed.publish(UInt64(data=self.scoreboard.network.frames))

    def _publish_diagnostics(self) -> None:
        metrics = self.scoreboard.to_dict()
        running = {
            'frames': metrics['frames'],
            'missing_pairs': len(self.missing),
            'waiting_pairs': self._pairing.waiting,
            **{key: metrics[key] for key in ('miou', 'abs_rel', 'rmse', 'delta1', 'ece', 'ause')},
            **{f'iou_{name}': value for name, value in metrics['iou'].items()},
        }
        status = diagnostic_status(
            self.get_fully_qualified_name(),
            'evaluating' if self._ready else 'starting',
            [] if self._ready else [f'{UNIFIED} to be active'],
            self._problems.for_diagnostics(),
            {key: '' if value is None else value for key, value in running.items()},
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)
        if self._ready:
            self._publish_processed()  # a player that missed it would wait for it in vain


def evaluate(node: EvaluatorNode) -> bool:
    """Spin until the bag has ended; return whether it was interrupted before."""
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    # Noted, not raised: inside rclpy's C++ a KeyboardInterrupt becomes some other error.
    interrupted = Event()
    former = signal.signal(signal.SIGINT, lambda *_: interrupted.set())

    def spin_until(reached: Callable[[], bool], timeout_s: float = float('inf')) -> None:
        deadline = monotonic() + timeout_s
        while not (interrupted.is_set() or reached()) and monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)

    try:
        spin_until(node.bag_ended)
        reports = node.node_reports
        spin_until(lambda: node.node_reports > reports and node.counts_settled(), COUNTS_S)
        return interrupted.is_set()
    except ExternalShutdownException:
        return True
    finally:
        executor.shutdown()
        signal.signal(signal.SIGINT, former)


def main(args: list[str] | None = None) -> None:
    """Evaluate until the bag ends or SIGINT comes; exit status 1 for results that lack frames."""
    # Our own handling of SIGINT: the results are written after it.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = EvaluatorNode()
    except BagError as error:
        rclpy.try_shutdown()
        sys.exit(f'evaluator_node: {error}')
    try:
        interrupted = evaluate(node)
        if not node.scoreboard.network.frames:
            sys.exit('evaluator_node: nothing was scored, so there are no results')
        if not node.finish(interrupted):
            sys.exit(1)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
