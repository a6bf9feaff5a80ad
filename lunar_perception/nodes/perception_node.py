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

"""What every perception node is: a lifecycle node that has a network look at camera images."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from dataclasses import dataclass
import os
import sys
from typing import Any, ClassVar, Generic, TypeVar

from diagnostic_msgs.msg import DiagnosticArray
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
from lunar_perception.nodes.network import (
    free_device_memory,
    network_values,
    Predictor,
    start_loading,
)
from lunar_perception.nodes.parameters import NodeParameters, Parameters
from lunar_perception.nodes.qos import (
    input_qos,
    latched_qos,
    NO_PUBLISHER_EVENTS,
    NO_SUBSCRIPTION_EVENTS,
    output_qos,
    qos_overrides,
    QosWatch,
)
from lunar_perception.nodes.worker import FrameWorker, WorkerStatistics
from lunar_perception.taxonomy import Taxonomy
import numpy as np
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
from sensor_msgs.msg import CompressedImage, Image

DIAGNOSTICS_PERIOD_S = 1.0


@dataclass(frozen=True)
class ReceivedFrame:
    """An image as it came."""

    message: Image | CompressedImage


Network = TypeVar('Network', bound=Predictor)
Frame = TypeVar('Frame', bound=ReceivedFrame)


class PerceptionNode(LifecycleNode, Generic[Parameters, Network, Frame]):
    """
    A lifecycle node in namespace `/perception`; subclasses say which network and which outputs.

    configure advertises the topics, then loads the network; activate subscribes; deactivate
    unsubscribes; cleanup frees all. Callbacks only hand frames over: a worker thread decodes,
    predicts and publishes. Every output carries its image's header as it came, and what nobody
    subscribes to is not made. A frame that fails is counted as dropped, and named in diagnostics.

    Fields:
        output_types: message type by topic of what is published about a frame; None for a type
            that is not installed.
        label_info_topics: where the classes' names are published, latched.

    """

    output_types: ClassVar[Mapping[str, type | None]]
    label_info_topics: ClassVar[tuple[str, ...]]

    def __init__(self, name: str, parameters: type[Parameters], **options: Any) -> None:
        super().__init__(name, namespace='/perception', **options)
        refuse_impossible_transitions(self)
        self._problems = Problems(self.get_logger())
        self._settings = NodeParameters(self, parameters, on_change=self._publish_label_info)
        self._qos_watch = QosWatch(self, self._problems)
        self._predictor: Network | None = None
        self._worker: FrameWorker[Frame] = FrameWorker(self._process, self._on_failure)
        self._outputs: dict[str, LifecyclePublisher] = {}
        self._label_infos: list[LifecyclePublisher] = []
        self._inputs: list[Subscription] = []
        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', 10, event_callbacks=NO_PUBLISHER_EVENTS
        )
        # On the steady clock: with use_sim_time and no /clock, diagnostics still come.
        self.create_timer(
            DIAGNOSTICS_PERIOD_S,
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    @abstractmethod
    def _load_predictor(self) -> Network:
        """Load the network that the parameters name; called in a thread of its own."""

    @abstractmethod
    def _receive(self, message: Image | CompressedImage) -> Frame:
        """Return an image with what has to be noted when it comes."""

    @abstractmethod
    def _perceive(self, frame: Frame, topics: list[str]) -> None:
        """Publish a frame's outputs on `topics`; called by the worker."""

    @abstractmethod
    def _taxonomy(self) -> Taxonomy:
        """Return the classes that labels name; called while the network is loaded."""

    def _wanted_topics(self) -> list[str]:
        """Return the output topics that somebody subscribes to."""
        return [t for t, output in self._outputs.items() if output.get_subscription_count()]

    def _subscribe_to_others(self) -> None:
        """Subscribe to what is to be known before an image; see `_add_input`."""

    def _other_inputs_awaited(self) -> list[str]:
        """Return what `_subscribe_to_others` subscribed to and waits for."""
        return []

    def _diagnostic_values(self) -> dict[str, object]:
        """Return what diagnostics show beside the statistics and the network."""
        return {}

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
        missing = [topic for topic, known in self.output_types.items() if known is None]
        for topic, message_type in self.output_types.items():
            if message_type is not None:
                self._outputs[topic] = self.create_lifecycle_publisher(
                    message_type,
                    topic,
                    output_qos(lossless),
                    event_callbacks=NO_PUBLISHER_EVENTS,
                    qos_overriding_options=qos_overrides(lossless),
                )
        if LabelInfo is None:
            missing += self.label_info_topics
        else:
            self._label_infos = [
                self.create_lifecycle_publisher(
                    LabelInfo,
                    topic,
                    latched_qos(),
                    event_callbacks=NO_PUBLISHER_EVENTS,
                )
                for topic in self.label_info_topics
            ]
        if missing:
            verb = 'are' if len(missing) > 1 else 'is'
            self.get_logger().warning(
                f'vision_msgs is not installed: {" and ".join(missing)} {verb} not published'
            )

    def _load(self) -> Network:
        """Load the network, while diagnostics keep coming."""
        loading = start_loading(self._load_predictor)
        while not wait([loading], timeout=DIAGNOSTICS_PERIOD_S).done:
            if not self.context.ok():
                raise RuntimeError('ROS was shut down while the network was loading')
            self._publish_diagnostics()
        return loading.result()

    def _subscribe(self) -> None:
        # The executor asks subscriptions in their order, so that of two messages that came
        # together, the image is the last to be seen.
        self._subscribe_to_others()
        image_type, image_topic = Image, 'image'
        if self._settings.values.image_transport == 'compressed':
            # As image_transport has it, after remapping the base topic.
            image_type = CompressedImage
            image_topic = self.resolve_topic_name('image') + '/compressed'
        self._add_input(image_type, image_topic, self._on_image)
        self._worker.start(keep_all=self._settings.values.lossless)

    def _add_input(self, message_type: type, topic: str, callback: Callable[[Any], None]) -> None:
        lossless = self._settings.values.lossless
        self._inputs.append(
            self.create_subscription(
                message_type,
                topic,
                callback,
                input_qos(lossless),
                event_callbacks=NO_SUBSCRIPTION_EVENTS,
                qos_overriding_options=qos_overrides(lossless),
            )
        )

    def _stop(self) -> None:
        """Stop taking frames."""
        while self._inputs:
            self.destroy_subscription(self._inputs.pop())
        self._worker.stop()
        for subject in ('age', 'image'):
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

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._worker.put(self._receive(message))

    def _process(self, frame: Frame) -> bool:
        """Publish what is subscribed to of one frame; return False when it is too old."""
        settings = self._settings.values
        if settings.max_age > 0 and self._age(frame.message) > settings.max_age:
            self._problems.report(
                'age', WARN, f'images older than max_age ({settings.max_age} s) are dropped'
            )
            return False
        self._problems.resolve('age')
        topics = self._wanted_topics()
        if topics:
            self._perceive(frame, topics)
        return True

    def _decode(self, message: Image | CompressedImage) -> np.ndarray:
        """Return an image (H, W, 3) uint8 RGB; ValueError when it can not be read."""
        compressed = isinstance(message, CompressedImage)
        image = (decode_compressed_rgb if compressed else decode_rgb)(message)
        self._problems.resolve('image')
        return image

    def _on_failure(self, error: Exception) -> None:
        if self.context.ok():  # not when publishing failed because ROS is shutting down
            self._problems.report('image', ERROR, f'image dropped: {first_line(error)}')

    def _age(self, message: Image | CompressedImage) -> float:
        """Return an image's age in seconds; in integers, for stamps that rclpy's Time refuses."""
        stamp = message.header.stamp
        now = self.get_clock().now().nanoseconds
        return (now - stamp.sec * 10**9 - stamp.nanosec) / 1e9

    def _publish_label_info(self) -> None:
        least, now = self._settings.values.min_confidence, self.get_clock().now().to_msg()
        for publisher in self._label_infos:
            publisher.publish(label_info(self._taxonomy(), least, now))

    def _publish_diagnostics(self) -> None:
        if not self.context.ok():
            return
        self._qos_watch.check([*self._outputs.values(), *self._label_infos], self._inputs)
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
                **self._diagnostic_values(),
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
        waiting = []
        if statistics.input_rate == 0:
            waiting.append(f'images on {self._inputs[-1].topic_name}')
        waiting += self._other_inputs_awaited()
        if self.get_parameter('use_sim_time').value and self.get_clock().now().nanoseconds == 0:
            waiting.append('/clock')
        return waiting


def run_node(
    name: str, make: Callable[[], PerceptionNode[Any, Any, Any]], args: list[str] | None
) -> None:
    """Run a node until it is told to end, then end the process with status 0."""
    try:
        rclpy.init(args=args)
        node = make()
    except RuntimeError as error:  # RCLError: arguments or a parameter file that ROS can't read
        sys.exit(f'{name}: can not read the ROS arguments: {" ".join(str(error).split())}')
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
