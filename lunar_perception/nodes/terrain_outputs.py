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

"""What the terrain node says about one frame: its output topics and their messages."""

from collections.abc import Mapping
from typing import Any, TYPE_CHECKING

from lunar_perception.nodes.codec import encode
from lunar_perception.taxonomy import Taxonomy, UNLABELLED
from lunar_perception.visualize import overlay_evidence
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

if TYPE_CHECKING:  # importing torch takes seconds, and topics are to be advertised before
    from lunar_perception.inference.terrain import TerrainPrediction

try:
    from vision_msgs.msg import Classification, ObjectHypothesis
except ImportError:  # not on PyPI; comes with a ROS installation
    Classification = ObjectHypothesis = None

CLASSIFICATION, LABEL, CONFIDENCE = 'terrain/classification', 'terrain/label', 'terrain/confidence'
GRADCAM, INTEGRATED_GRADIENTS = 'terrain/gradcam', 'terrain/integrated_gradients'

OUTPUT_TYPES: Mapping[str, type | None] = {
    CLASSIFICATION: Classification,
    LABEL: Image,
    CONFIDENCE: Image,
    GRADCAM: Image,
    INTEGRATED_GRADIENTS: Image,
}
"""Message type by topic; None where vision_msgs is not installed."""


def classification_message(
    prediction: 'TerrainPrediction', taxonomy: Taxonomy, header: Header
) -> Any:
    """Return every class by its name with its probability, the likeliest first."""
    message = Classification(header=header)
    message.results = [
        ObjectHypothesis(
            class_id=taxonomy.names[class_id], score=float(prediction.probabilities[class_id])
        )
        for class_id in np.argsort(-prediction.probabilities, kind='stable')
    ]
    return message


def label_message(prediction: 'TerrainPrediction', min_confidence: float, header: Header) -> Image:
    """Return the label ids; 255 where confidence is under the least."""
    label = prediction.label
    if min_confidence > 0:
        label = np.where(prediction.confidence < min_confidence, np.uint8(UNLABELLED), label)
    return encode(label, 'mono8', header)


def confidence_message(prediction: 'TerrainPrediction', header: Header) -> Image:
    """Return round(255 · confidence)."""
    return encode(np.rint(prediction.confidence * 255).astype(np.uint8), 'mono8', header)


def overlay_message(image: np.ndarray, heat: np.ndarray, header: Header) -> Image:
    """Return a saliency map (H, W) laid over its image (H, W, 3) uint8 RGB."""
    return encode(overlay_evidence(image, heat), 'rgb8', header)
