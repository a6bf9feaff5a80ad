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

"""What the unified node says about one frame: its output topics and their messages."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple, TYPE_CHECKING

import cv2
from lunar_perception.camera import PinholeCamera
from lunar_perception.hazards import HazardRule
from lunar_perception.nodes.camera_info import info_from_camera
from lunar_perception.nodes.codec import encode, MessageBuffers
from lunar_perception.nodes.point_clouds import (
    clearing_points,
    cloud_message,
    hazard_points,
    organised_points,
    POINT,
)
from lunar_perception.nodes.unified_parameters import UnifiedParameters
from lunar_perception.taxonomy import LUNAR_TERRAIN, UNLABELLED
from lunar_perception.traversability import assess, down_from_pitch, Limits, smoothed
from lunar_perception.visualize import color_depth, overlay_labels
import numpy as np
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

if TYPE_CHECKING:  # importing torch takes seconds, and topics are to be advertised before
    from lunar_perception.inference.prediction import Prediction

GEOMETRY_WIDTH = 400
"""Points in a row that the ground is judged by, at least, where the image has as many."""

RISE = 0.5
"""Share of the highest step that a rock must stand up by; a network smears its upper edge."""


class FrameOutputs:
    """
    Makes the messages about one frame, each with the image's header; shared parts are kept.

    `image` is (H, W, 3) uint8 RGB. What rests on depth needs a camera. `down` (3,) points along
    gravity in its optical frame; None: it looks down by parameter `camera_pitch_deg`. `buffers`
    are where the bytes of the larger messages go; without them, each has bytes of its own.
    """

    def __init__(
        self,
        header: Header,
        image: np.ndarray,
        prediction: 'Prediction',
        camera: PinholeCamera | None,
        parameters: UnifiedParameters,
        down: np.ndarray | None = None,
        buffers: MessageBuffers | None = None,
    ) -> None:
        self._header = header
        self._image = image
        self._prediction = prediction
        self._camera = camera
        self._parameters = parameters
        self._down = down_from_pitch(parameters.camera_pitch_deg) if down is None else down
        self._buffers = buffers or MessageBuffers()

    def label(self) -> Image:
        return self._image_message('label', self._label, 'mono8')

    def confidence(self) -> Image:
        return self._image_message('confidence', self._confidence, 'mono8')

    def depth(self) -> Image:
        return self._image_message('depth', self._depth, '32FC1')

    def depth_camera_info(self) -> CameraInfo:
        return info_from_camera(self._known_camera, self._header)

    def depth_uncertainty(self) -> Image:
        """Return one sigma; NaN throughout when the network gives none."""
        sigma = self._prediction.uncertainty
        if sigma is None:
            sigma = np.full_like(self._depth, np.nan)
        return self._image_message('depth/uncertainty', sigma, '32FC1')

    def points(self) -> PointCloud2:
        points = self._points
        return cloud_message(points, self._header, self._buffers.take('points', points.nbytes))

    def hazards(self) -> PointCloud2:
        parameters = self._parameters
        rule = HazardRule(
            sources=parameters.hazard_sources,
            classes=LUNAR_TERRAIN.ids_of(parameters.hazard_classes),
            min_confidence=parameters.min_hazard_confidence,
            max_range=parameters.max_range,
            min_points=parameters.min_hazard_points,
            min_rise=RISE * parameters.max_step,
        )
        cost = self._cost if rule.by_geometry else None
        predicted = self._prediction.uncertainty is not None  # true depth has none
        points = hazard_points(self._points, cost, rule, self._down, predicted=predicted)
        return cloud_message(points, self._header)

    def clearing(self) -> PointCloud2:
        parameters = self._parameters
        ends = clearing_points(
            self._points,
            self._depth,
            self._known_camera,
            parameters.cloud_stride,
            parameters.max_range,
        )
        return cloud_message(ends, self._header)

    def traversability(self) -> Image:
        return encode(self._cost, 'mono8', self._header)

    def costmap_label(self) -> Image:
        return encode(self._sampled(self._label), 'mono8', self._header)

    def costmap_confidence(self) -> Image:
        return encode(self._sampled(self._confidence), 'mono8', self._header)

    def label_overlay(self) -> Image:
        overlay = overlay_labels(self._image, self._label)
        return self._image_message('label/overlay', overlay, 'rgb8')

    def depth_colored(self) -> Image:
        return self._image_message('depth/colored', color_depth(self._depth), 'rgb8')

    def _image_message(self, topic: str, image: np.ndarray, encoding: str) -> Image:
        return encode(image, encoding, self._header, self._buffers.take(topic, image.nbytes))

    @property
    def _known_camera(self) -> PinholeCamera:
        if self._camera is None:
            raise ValueError('depth needs a camera')
        return self._camera

    @cached_property
    def _label(self) -> np.ndarray:
        label = self._prediction.label
        least = self._parameters.min_confidence
        if least == 0:
            return label
        return np.where(self._prediction.confidence < least, np.uint8(UNLABELLED), label)

    @cached_property
    def _confidence(self) -> np.ndarray:
        return cv2.convertScaleAbs(self._prediction.confidence, alpha=255)  # rounds

    @cached_property
    def _depth(self) -> np.ndarray:
        depth, sigma = self._prediction.depth, None
        largest = self._parameters.max_relative_uncertainty
        if largest > 0:
            sigma = self._prediction.uncertainty
        if sigma is None:
            return depth
        # In the sky sigma is NaN, the comparison false, and depth stays +Inf.
        return np.where(sigma > largest * depth, np.float32(np.nan), depth)

    @cached_property
    def _points(self) -> np.ndarray:
        stride = self._parameters.cloud_stride
        count = self._sampled(self._label).size
        return organised_points(
            self._depth,
            self._known_camera,
            self._image,
            self._label,
            self._prediction.confidence,
            stride,
            self._buffers.take('points', count * POINT.itemsize),
        )

    @cached_property
    def _cost(self) -> np.ndarray:
        """Cost of the ground at the cloud's points, see `traversability.assess`."""
        stride, width = self._parameters.cloud_stride, self._depth.shape[1]
        # The ground is judged by enough of its points, however few the cloud takes.
        finer = (n for n in range(stride, 1, -1) if stride % n == 0)
        step = next((n for n in finer if width >= n * GEOMETRY_WIDTH), 1)
        parameters = self._parameters
        limits = Limits(parameters.max_slope_deg, parameters.max_step, parameters.slope_window)
        places = self._known_camera.back_project(self._depth, step)
        sigma = self._prediction.uncertainty
        if sigma is not None:
            places = smoothed(places, sigma[::step, ::step])
        every = stride // step
        return assess(places, self._down, limits).cost[::every, ::every]

    def _sampled(self, image: np.ndarray) -> np.ndarray:
        stride = self._parameters.cloud_stride
        return image[::stride, ::stride]


class Output(NamedTuple):
    """A topic's message type, how its message is made, and whether it waits for CameraInfo."""

    message_type: type
    make: Callable[[FrameOutputs], Any]
    needs_camera: bool


OUTPUTS = {
    'label': Output(Image, FrameOutputs.label, False),
    'confidence': Output(Image, FrameOutputs.confidence, False),
    'depth': Output(Image, FrameOutputs.depth, True),
    'depth/camera_info': Output(CameraInfo, FrameOutputs.depth_camera_info, True),
    'depth/uncertainty': Output(Image, FrameOutputs.depth_uncertainty, True),
    'points': Output(PointCloud2, FrameOutputs.points, True),
    'points/hazards': Output(PointCloud2, FrameOutputs.hazards, True),
    'points/clearing': Output(PointCloud2, FrameOutputs.clearing, True),
    'traversability': Output(Image, FrameOutputs.traversability, True),
    'costmap/label': Output(Image, FrameOutputs.costmap_label, False),
    'costmap/confidence': Output(Image, FrameOutputs.costmap_confidence, False),
    'label/overlay': Output(Image, FrameOutputs.label_overlay, False),
    'depth/colored': Output(Image, FrameOutputs.depth_colored, True),
}
"""The topics with one message a frame, in the order of publishing."""
