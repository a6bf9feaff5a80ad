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

"""
The least that a node can do: receive an image, publish ready messages with its header.

They are the unified node's, of the same types and sizes, made once for the first image; topics,
QoS and "only what is subscribed to" are the unified node's too.
"""

from typing import Any

from benchmarks.fixed_outputs import fixed_messages
from lunar_perception.nodes.codec import decode_rgb
from lunar_perception.nodes.outputs import OUTPUTS
from lunar_perception.nodes.qos import input_qos, output_qos
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import Image


class EchoNode(Node):
    """Node `echo` in namespace `/echo`."""

    def __init__(self) -> None:
        super().__init__('echo', namespace='/echo')
        self._messages: dict[str, Any] = {}
        self._outputs = {
            topic: self.create_publisher(output.message_type, topic, output_qos(False))
            for topic, output in OUTPUTS.items()
        }
        self.create_subscription(Image, 'image', self._on_image, input_qos(False))

    def _on_image(self, image: Image) -> None:
        if not self._messages:
            self._messages = fixed_messages(decode_rgb(image))
        for topic, publisher in self._outputs.items():
            if publisher.get_subscription_count():
                message = self._messages[topic]
                message.header = image.header
                publisher.publish(message)


def main() -> None:
    rclpy.init()
    try:
        rclpy.spin(EchoNode())
    except (KeyboardInterrupt, ExternalShutdownException):
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
