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

"""Where the unified node's time goes, from an image message to the last one published."""

from time import perf_counter
from types import TracebackType
from typing import Any

from lunar_perception.camera import LUSNAR_CAMERA
from lunar_perception.inference.predictor import UnifiedPredictor
from lunar_perception.inference.stages import predict_by_stages
from lunar_perception.nodes.codec import decode_rgb, encode
from lunar_perception.nodes.outputs import FrameOutputs, OUTPUTS
from lunar_perception.nodes.qos import output_qos
from lunar_perception.nodes.unified_parameters import UnifiedParameters
import numpy as np
import rclpy
from rclpy.context import Context
from std_msgs.msg import Header

IMAGES = ('label', 'confidence', 'depth', 'depth/uncertainty')
CLOUDS = ('points', 'points/hazards', 'points/clearing')


class NodeStages:
    """
    Takes an image the unified node's way, step by step, and publishes it over real DDS.

    A context manager with a ROS context of its own. To each topic there is a subscription, whose
    messages the middleware takes and nobody reads.
    """

    def __init__(self) -> None:
        self._parameters = UnifiedParameters()
        self._context = Context()
        rclpy.init(context=self._context)
        nodes = [
            rclpy.create_node(name, context=self._context, namespace='/bench')
            for name in ('publisher', 'subscriber')
        ]
        self._nodes = nodes
        qos = output_qos(lossless=False)
        self._publishers = {}
        for topic in (*IMAGES, *CLOUDS):
            message_type = OUTPUTS[topic].message_type
            self._publishers[topic] = nodes[0].create_publisher(message_type, topic, qos)
            nodes[1].create_subscription(message_type, topic, lambda message: None, qos)

    def __enter__(self) -> 'NodeStages':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in self._nodes:
            node.destroy_node()
        self._context.try_shutdown()

    def run(self, predictor: UnifiedPredictor, image: np.ndarray) -> dict[str, float]:
        """
        Return the seconds of each stage for an image (H, W, 3) uint8 RGB, taken as LuSNAR's.

        `decode` is from a bgr8 message to an array, `cloud` the making of all clouds, `publish`
        the making of the images' messages and the sending of all.
        """
        message = encode(np.ascontiguousarray(image[..., ::-1]), 'bgr8', Header())
        camera = LUSNAR_CAMERA.resized(image.shape[1], image.shape[0])

        start = perf_counter()
        decoded = decode_rgb(message)
        decode = perf_counter() - start

        prediction, seconds = predict_by_stages(predictor, decoded, camera)

        start = perf_counter()
        outputs = FrameOutputs(message.header, decoded, prediction, camera, self._parameters)
        messages: dict[str, Any] = {topic: OUTPUTS[topic].make(outputs) for topic in CLOUDS}
        cloud = perf_counter() - start

        start = perf_counter()
        messages |= {topic: OUTPUTS[topic].make(outputs) for topic in IMAGES}
        for topic, made in messages.items():
            self._publishers[topic].publish(made)
        publish = perf_counter() - start
        return {'decode': decode, **seconds, 'cloud': cloud, 'publish': publish}
