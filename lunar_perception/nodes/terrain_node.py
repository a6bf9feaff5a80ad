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

"""The terrain node: images of Mars in; their class, labels and explanations out."""

from threading import Event
from time import monotonic
from typing import Any, ClassVar, TYPE_CHECKING

from lunar_perception.nodes import network, perception_node
from lunar_perception.nodes.attribution import AttributionTask, AttributionWorker
from lunar_perception.nodes.diagnostics import ERROR, first_line
from lunar_perception.nodes.perception_node import PerceptionNode, ReceivedFrame, run_node
from lunar_perception.nodes.terrain_outputs import (
    CLASSIFICATION,
    classification_message,
    CONFIDENCE,
    confidence_message,
    GRADCAM,
    INTEGRATED_GRADIENTS,
    LABEL,
    label_message,
    OUTPUT_TYPES,
    overlay_message,
)
from lunar_perception.nodes.terrain_parameters import TerrainParameters
from lunar_perception.taxonomy import Taxonomy
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

if TYPE_CHECKING:  # importing torch takes seconds, and topics are to be advertised before
    from lunar_perception.inference.explain import Attributions
    from lunar_perception.inference.terrain import TerrainPrediction, TerrainPredictor

DIAGNOSTICS = '/diagnostics'


class TerrainNode(PerceptionNode[TerrainParameters, 'TerrainPredictor', ReceivedFrame]):
    """
    Lifecycle node `terrain` in namespace `/perception`; see `PerceptionNode`.

    Grad-CAM is made with the class, from the same pass, and after it is published; Integrated
    Gradients, which takes many passes, in a thread of its own that gives way to classification.
    """

    output_types: ClassVar = OUTPUT_TYPES
    label_info_topics = ('terrain/label_info',)

    def __init__(self, **options: Any) -> None:
        self._found: tuple[str, float] | None = None
        self._attributions: Attributions | None = None
        self._classified_at = self._explained_at = float('-inf')
        self._explain_next = Event()
        self._idle = Event()
        self._attribution = AttributionWorker(
            self._publish_attributions,
            self._on_attribution_failure,
            self._idle,
            self._gradients_are_subscribed,
        )
        super().__init__('terrain', TerrainParameters, **options)
        self.create_service(Trigger, '~/explain', self._on_explain)

    def _load_predictor(self) -> 'TerrainPredictor':
        return network.load_terrain_predictor(self._settings.values)

    def _taxonomy(self) -> Taxonomy:
        assert self._predictor is not None  # which is loaded before the node is active
        return self._predictor.taxonomy

    def _subscribe(self) -> None:
        self._idle.set()
        self._attribution.start()
        super()._subscribe()

    def _stop(self) -> None:
        super()._stop()
        self._attribution.stop()
        self._explain_next.clear()
        self._found = self._attributions = None
        self._classified_at = self._explained_at = float('-inf')
        self._problems.resolve(INTEGRATED_GRADIENTS)

    def _receive(self, message: Image | CompressedImage) -> ReceivedFrame:
        self._idle.clear()
        return ReceivedFrame(message)

    def _process(self, frame: ReceivedFrame) -> bool:
        try:
            return super()._process(frame)
        finally:
            self._idle.set()

    def _wanted_topics(self) -> list[str]:
        topics = super()._wanted_topics()
        now, rate = monotonic(), self._settings.values.explain_rate
        if GRADCAM in topics and (rate == 0 or now - self._explained_at < 1 / rate):
            topics.remove(GRADCAM)
        if self._explain_next.is_set() and INTEGRATED_GRADIENTS not in topics:
            topics.append(INTEGRATED_GRADIENTS)
        # Diagnostics tell the class too, but no oftener than they come.
        period = perception_node.DIAGNOSTICS_PERIOD_S
        if now - self._classified_at >= period and self._diagnostics.get_subscription_count():
            topics.append(DIAGNOSTICS)
        return topics

    def _perceive(self, frame: ReceivedFrame, topics: list[str]) -> None:
        predictor, header = self._predictor, frame.message.header
        assert predictor is not None  # the worker runs only while the node is active
        image = self._decode(frame.message)
        prediction = predictor(image)
        self._found = prediction.class_name, prediction.probability
        self._classified_at = monotonic()
        if CLASSIFICATION in topics:
            message = classification_message(prediction, predictor.taxonomy, header)
            self._outputs[CLASSIFICATION].publish(message)
        if LABEL in topics:
            least = self._settings.values.min_confidence
            self._outputs[LABEL].publish(label_message(prediction, least, header))
        if CONFIDENCE in topics:
            self._outputs[CONFIDENCE].publish(confidence_message(prediction, header))
        if GRADCAM in topics:
            self._explained_at = self._classified_at
            self._publish_grad_cam(predictor, prediction, image, header)
        if INTEGRATED_GRADIENTS in topics:
            asked = self._explain_next.is_set()
            self._explain_next.clear()
            self._attribution.put(
                AttributionTask(predictor, header, image, prediction.class_id, asked)
            )

    def _publish_grad_cam(
        self,
        predictor: 'TerrainPredictor',
        prediction: 'TerrainPrediction',
        image: np.ndarray,
        header: Header,
    ) -> None:
        from lunar_perception.inference.explain import grad_cam, resized

        size = (predictor.config.input_size, predictor.config.input_size)
        heat = grad_cam(predictor.model, prediction.features, size, prediction.class_id)
        shown = resized(heat, image.shape[:2])
        self._outputs[GRADCAM].publish(overlay_message(image, shown, header))

    def _gradients_are_subscribed(self) -> bool:
        publisher = self._outputs.get(INTEGRATED_GRADIENTS)
        return publisher is not None and publisher.get_subscription_count() > 0

    def _publish_attributions(
        self, header: Header, image: np.ndarray, heat: np.ndarray, found: 'Attributions'
    ) -> None:
        self._attributions = found
        self._problems.resolve(INTEGRATED_GRADIENTS)
        self._outputs[INTEGRATED_GRADIENTS].publish(overlay_message(image, heat, header))

    def _on_attribution_failure(self, error: Exception) -> None:
        if self.context.ok():  # not when publishing failed because ROS is shutting down
            text = f'no Integrated Gradients: {first_line(error)}'
            self._problems.report(INTEGRATED_GRADIENTS, ERROR, text)

    def _on_explain(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        response.success = bool(self._inputs)
        if response.success:
            self._explain_next.set()
            topic = self.resolve_topic_name(INTEGRATED_GRADIENTS)
            response.message = f'the next image will be explained on {topic}'
        else:
            response.message = 'the node is not active'
        return response

    def _diagnostic_values(self) -> dict[str, object]:
        values: dict[str, object] = {}
        if found := self._found:
            values |= {'class': found[0], 'probability': f'{found[1]:.3f}'}
        if gradients := self._attributions:
            said = 'complete' if gradients.complete else f'off by {gradients.error:.2g}'
            values['integrated_gradients'] = f'{gradients.steps} steps, {said}'
        return values


def main(args: list[str] | None = None) -> None:
    """Run the node until it is told to end."""
    run_node('terrain_node', TerrainNode, args)


if __name__ == '__main__':
    main()
