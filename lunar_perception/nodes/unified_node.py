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

from dataclasses import dataclass
from typing import Any, ClassVar, TYPE_CHECKING

from lunar_perception.nodes import network
from lunar_perception.nodes.camera_info import find_camera, RecentCameraInfos
from lunar_perception.nodes.codec import MessageBuffers
from lunar_perception.nodes.diagnostics import WARN
from lunar_perception.nodes.gravity import Down, Gravity
from lunar_perception.nodes.outputs import FrameOutputs, OUTPUTS
from lunar_perception.nodes.perception_node import PerceptionNode, ReceivedFrame, run_node
from lunar_perception.nodes.unified_parameters import UnifiedParameters
from lunar_perception.taxonomy import LUNAR_TERRAIN, Taxonomy
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu
from std_msgs.msg import Header

if TYPE_CHECKING:  # importing torch takes seconds, and topics are to be advertised before
    from lunar_perception.inference.predictor import UnifiedPredictor


@dataclass(frozen=True)
class UnifiedFrame(ReceivedFrame):
    """An image, and the latest CameraInfo when the image came."""

    camera_info: CameraInfo | None


class UnifiedNode(PerceptionNode[UnifiedParameters, 'UnifiedPredictor', UnifiedFrame]):
    """Lifecycle node `unified` in namespace `/perception`; see `PerceptionNode`."""

    output_types: ClassVar = {topic: output.message_type for topic, output in OUTPUTS.items()}
    label_info_topics = ('label_info', 'costmap/label_info')

    def __init__(self, **options: Any) -> None:
        self._camera_infos = RecentCameraInfos()
        self._gravity: Gravity | None = None
        self._down: Down | None = None
        self._buffers = MessageBuffers()
        super().__init__('unified', UnifiedParameters, **options)

    def _load_predictor(self) -> 'UnifiedPredictor':
        return network.load_predictor(self._settings.values)

    def _taxonomy(self) -> Taxonomy:
        return LUNAR_TERRAIN

    def _subscribe_to_others(self) -> None:
        self._add_input(CameraInfo, 'camera_info', self._on_camera_info)
        self._gravity = Gravity(self, self._settings.values.gravity_frame)
        self._add_input(Imu, 'imu', self._gravity.add_imu)

    def _other_inputs_awaited(self) -> list[str]:
        if self._camera_infos.latest is None and self._settings.values.default_fov_deg == 0:
            return [f'CameraInfo on {self._inputs[0].topic_name}']
        return []

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_infos.add(message)

    def _receive(self, message: Image | CompressedImage) -> UnifiedFrame:
        return UnifiedFrame(message, self._camera_infos.latest)

    def _stop(self) -> None:
        super()._stop()
        self._buffers = MessageBuffers()
        self._camera_infos.clear()
        self._problems.resolve('camera_info')
        if self._gravity is not None:
            self._gravity.stop()
            self._gravity, self._down = None, None
        self._problems.resolve('gravity')

    def _diagnostic_values(self) -> dict[str, object]:
        return {'gravity': self._down.source} if self._down else {}

    def _perceive(self, frame: UnifiedFrame, topics: list[str]) -> None:
        settings = self._settings.values
        header = frame.message.header
        image = self._decode(frame.message)
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
            down = self._find_down(header, topics)
            outputs = FrameOutputs(
                header, image, prediction, camera, settings, down, self._buffers
            )
            # All are made before the first is sent: costmaps need hazards and clearing together.
            for topic, message in [(topic, OUTPUTS[topic].make(outputs)) for topic in topics]:
                self._outputs[topic].publish(message)

    def _find_down(self, header: Header, topics: list[str]) -> np.ndarray | None:
        """Return which way is down in the camera's frame, None when no output rests on it."""
        settings, gravity = self._settings.values, self._gravity
        by_geometry = settings.hazard_sources != 'class' and 'points/hazards' in topics
        if gravity is None or not (by_geometry or 'traversability' in topics):
            self._down = None
            return None
        self._down = gravity.down(header, settings.camera_pitch_deg)
        if self._down.problem:
            text = f'{self._down.problem}; slopes rest on {self._down.source}'
            self._problems.report('gravity', WARN, text)
        else:
            self._problems.resolve('gravity')
        return self._down.direction


def main(args: list[str] | None = None) -> None:
    """Run the node until it is told to end."""
    run_node('unified_node', UnifiedNode, args)


if __name__ == '__main__':
    main()
