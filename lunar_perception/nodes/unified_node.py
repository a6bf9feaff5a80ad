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

"""The unified node: camera images in; labels, depth and labelled clouds out."""

from concurrent.futures import wait
from dataclasses import dataclass
import os
import sys
from typing import Any, TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import (
    LifecycleNode,
    LifecyclePublisher,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from lunar_perception.nodes.camera_info import find_camera, RecentCameraInfos
from lunar_perception.nodes.codec import decode_compressed_rgb, decode_rgb
from lunar_perception.nodes.diagnostics import (
    diagnostic_status,
    ERROR,
    first_line,
    Problems,
    statistics_values,
    WARN,
)
from lunar_perception.nodes.label_info import label_info, LabelInfo
from lunar_perception.nodes.lifecycle import refuse_impossible_transitions
from lunar_perception.nodes.network import free_device_memory, network_values, start_loading
from lunar_perception.nodes.outputs import FrameOutputs, OUTPUTS
from lunar_perception.nodes.parameters import NodeParameters, UnifiedParameters
from lunar_perception.nodes.qos import (
    input_qos,
    latched_qos,
    output_qos,
    qos_overrides,
    QosWatch,
)
from lunar_perception.nodes.worker import FrameWorker, WorkerStatistics
from lunar_perception.taxonomy import LUNAR_TERRAIN

if TYPE_CHECKING:  # importing torch takes seconds, and topics are to be advertised before
    from lunar_perception.inference.predictor import UnifiedPredictor

LABEL_INFO_TOPICS = ('label_info', 'costmap/label_info')
DIAGNOSTICS_PERIOD_S = 1.0


@dataclass(frozen=True)
class ReceivedFrame:
    """An image, and the latest CameraInfo when the image came."""

    message: Image | CompressedImage
    camera_info: CameraInfo | None


class UnifiedNode(LifecycleNode):
    """
    Lifecycle node `unified` in namespace `/perception`.

    configure advertises the topics, then loads the network; activate subscribes; deactivate
    unsubscribes; cleanup frees all. Callbacks only hand frames over: a worker thread decodes,
    predicts and publishes. Every output carries its image's header as it came, and what nobody
    subscribes to is not made. A frame that fails is counted as dropped, and named in diagnostics.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__('unified', namespace='/perception', **options)
        refuse_impossible_transitions(self)
        self._problems = Problems(self.get_logger())
        self._settings = NodeParameters(self, on_change=self._publish_label_info)
        self._qos_watch = QosWatch(self, self._problems)
        self._predictor: UnifiedPredictor | None = None
        self._worker: FrameWorker[ReceivedFrame] = FrameWorker(self._process, self._on_failure)
        self._outputs: dict[str, LifecyclePublisher] = {}
        self._label_infos: list[LifecyclePublisher] = []
        self._inputs: list[Subscription] = []
        self._camera_infos = RecentCameraInfos()
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # On the steady clock: with use_sim_time and no /clock, diagnostics still come.
        self.create_timer(
            DIAGNOSTICS_PERIOD_S,
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def autostart(self) -> None:
        """Go to active, if parameter `autostart` says so."""
        if (
            self._settings.values.autostart
            and self.trigger_configure() == TransitionCallbackReturn.SUCCESS
        ):
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._problems.resolve_all()
        try:
            for reason in self._settings.refused.values():
                raise ValueError(reason)
            self._advertise()
            self._predictor = self._load()
        except Exception as error:  # rclpy would swallow it
            self._free()
            self._report_failure('configure', error)
            return TransitionCallbackReturn.FAILURE
        self._settings.configured = True
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._subscribe()
        except Exception as error:  # rclpy would swallow it
            self._stop()
            self._report_failure('activate', error)
            return TransitionCallbackReturn.FAILURE
        self._problems.resolve('activate')
        result = super().on_activate(state)
        self._publish_label_info()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._free()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._free()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._free()
        return super().on_error(state)

    def destroy_node(self) -> None:
        self._free()
        super().destroy_node()

    def _report_failure(self, transition: str, error: Exception) -> None:
        if self.context.ok():  # not because ROS is shutting down
            text = f'can not {transition}: {first_line(error)}'
            self._problems.report(transition, ERROR, text, log_always=True)

    def _advertise(self) -> None:
        lossless = self._settings.values.lossless
        for topic, output in OUTPUTS.items():
            self._outputs[topic] = self.create_lifecycle_publisher(
                output.message_type,
                topic,
                output_qos(lossless),
                event_callbacks=self._qos_watch.publisher_events(topic),
                qos_overriding_options=qos_overrides(lossless),
            )
        if LabelInfo is None:
            self.get_logger().warning(
                'vision_msgs is not installed: label_info and costmap/label_info are not published'
            )
            return
        self._label_infos = [
            self.create_lifecycle_publisher(
                LabelInfo,
                topic,
                latched_qos(),
                event_callbacks=self._qos_watch.publisher_events(topic),
            )
            for topic in LABEL_INFO_TOPICS
        ]

    def _load(self) -> 'UnifiedPredictor':
        """Load the network, while diagnostics keep coming."""
        loading = start_loading(self._settings.values)
        while not wait([loading], timeout=DIAGNOSTICS_PERIOD_S).done:
            if not self.context.ok():
                raise RuntimeError('ROS was shut down while the network was loading')
            self._publish_diagnostics()
        return loading.result()

    def _subscribe(self) -> None:
        settings = self._settings.values
        image_type, image_topic = Image, 'image'
        if settings.image_transport == 'compressed':
            # As image_transport has it, after remapping the base topic.
            image_type = CompressedImage
            image_topic = self.resolve_topic_name('image') + '/compressed'
        # CameraInfo first: the executor asks subscriptions in their order, so that of a
        # CameraInfo and an image that came together, the CameraInfo is known before.
        for message_type, topic, callback in (
            (CameraInfo, 'camera_info', self._on_camera_info),
            (image_type, image_topic, self._on_image),
        ):
            self._inputs.append(
                self.create_subscription(
                    message_type,
                    topic,
                    callback,
                    input_qos(settings.lossless),
                    event_callbacks=self._qos_watch.subscription_events(topic),
                    qos_overriding_options=qos_overrides(settings.lossless),
                )
            )
        self._worker.start(keep_all=settings.lossless)

    def _stop(self) -> None:
        """Stop taking frames."""
        while self._inputs:
            self.destroy_subscription(self._inputs.pop())
        self._worker.stop()
        self._camera_infos.clear()
        for subject in ('age', 'image', 'camera_info'):
            self._problems.resolve(subject)

    def _free(self) -> None:
        """Give back all that configure took."""
        self._stop()
        for publisher in (*self._outputs.values(), *self._label_infos):
            self.destroy_lifecycle_publisher(publisher)
        self._outputs, self._label_infos = {}, []
        self._settings.configured = False
        if self._predictor is not None:
            self._predictor = None
            free_device_memory()

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_infos.add(message)

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._worker.put(ReceivedFrame(message, self._camera_infos.latest))

    def _process(self, frame: ReceivedFrame) -> bool:
        """Publish what is subscribed to of one frame; return False when it is too old."""
        settings = self._settings.values
        if settings.max_age > 0 and self._age(frame.message) > settings.max_age:
            self._problems.report(
                'age', WARN, f'images older than max_age ({settings.max_age} s) are dropped'
            )
            return False
        self._problems.resolve('age')
        topics = [topic for topic in OUTPUTS if self._outputs[topic].get_subscription_count()]
        if topics:
            self._perceive(frame, topics, settings)
        return True

    def _perceive(
        self, frame: ReceivedFrame, topics: list[str], settings: UnifiedParameters
    ) -> None:
        header = frame.message.header
        compressed = isinstance(frame.message, CompressedImage)
        image = (decode_compressed_rgb if compressed else decode_rgb)(frame.message)
        self._problems.resolve('image')
        # Its own CameraInfo, or else the latest when it came; of the very first image, one after.
        infos = self._camera_infos
        info = infos.at(header.stamp) or frame.camera_info or infos.latest
        height, width = image.shape[:2]
        camera, wrong = find_camera(info, header.frame_id, width, height, settings.default_fov_deg)
        if wrong:
            self._problems.report('camera_info', WARN, wrong)
        else:
            self._problems.resolve('camera_info')
        topics = [topic for topic in topics if camera or not OUTPUTS[topic].needs_camera]
        if topics:
            assert self._predictor is not None  # the worker runs only while the node is active
            prediction = self._predictor(image, camera)
            outputs = FrameOutputs(header, image, prediction, camera, settings)
            # All are made before the first is sent: costmaps need hazards and clearing together.
            for topic, message in [(topic, OUTPUTS[topic].make(outputs)) for topic in topics]:
                self._outputs[topic].publish(message)

    def _on_failure(self, error: Exception) -> None:
        if self.context.ok():  # not when publishing failed because ROS is shutting down
            self._problems.report('image', ERROR, f'image dropped: {first_line(error)}')

    def _age(self, message: Image | CompressedImage) -> float:
        """Return an image's age in seconds; in integers, for stamps that rclpy's Time refuses."""
        stamp = message.header.stamp
        now = self.get_clock().now().nanoseconds
        return (now - stamp.sec * 10**9 - stamp.nanosec) / 1e9

    def _publish_label_info(self) -> None:
        for publisher in self._label_infos:
            publisher.publish(
                label_info(
                    LUNAR_TERRAIN,
                    self._settings.values.min_confidence,
                    self.get_clock().now().to_msg(),
                )
            )

    def _publish_diagnostics(self) -> None:
        if not self.context.ok():
            return
        self._qos_watch.check()
        _, state = self._state_machine.current_state
        statistics = self._worker.statistics()
        status = diagnostic_status(
            self.get_fully_qualified_name(),
            state,
            self._waiting_for(state, statistics),
            self._problems.for_diagnostics(),
            {
                **statistics_values(statistics),
                **(network_values(self._predictor) if self._predictor else {}),
                'qos_mismatches': ', '.join(self._qos_watch.topics),
            },
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _waiting_for(self, state: str, statistics: WorkerStatistics) -> list[str]:
        """Return what the node needs before it can publish."""
        if state == 'configuring':
            return ['the network to load']
        if not self._inputs:
            return []
        camera_info, image = (subscription.topic_name for subscription in self._inputs)
        waiting = []
        if statistics.input_rate == 0:
            waiting.append(f'images on {image}')
        if self._camera_infos.latest is None and self._settings.values.default_fov_deg == 0:
            waiting.append(f'CameraInfo on {camera_info}')
        if self.get_parameter('use_sim_time').value and self.get_clock().now().nanoseconds == 0:
            waiting.append('/clock')
        return waiting


def main(args: list[str] | None = None) -> None:
    """Run the node until it is told to end."""
    try:
        rclpy.init(args=args)
        node = UnifiedNode()
    except RuntimeError as error:  # RCLError: arguments or a parameter file that ROS can't read
        sys.exit(f'unified_node: can not read the ROS arguments: {" ".join(str(error).split())}')
    try:
        node.autostart()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:  # RCLError, when ROS is shut down in the midst of a transition
        if rclpy.ok():
            raise
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    # Python would wait for a network that is loading, and takes seconds to part with torch; launch
    # waits 5 s before it insists.
    sys.stdout.flush()
    os._exit(0)


if __name__ == '__main__':
    main()
