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

"""A network's predictions held against the truth, beside the two rows that look at no image."""

from typing import Any

from lunar_perception.camera import PinholeCamera
from lunar_perception.gallery import FrameGallery
from lunar_perception.metrics import Evaluation
from lunar_perception.reference_rows import flat_plane_depth, PositionPrior
import numpy as np


class Scoreboard:
    """
    Evaluates frame by frame: the network, the position prior and the flat plane.

    Without a prior, or without the camera's height (metres) and pitch (degrees down), that row
    stays empty.
    """

    def __init__(
        self,
        position_prior: PositionPrior | None = None,
        camera_height_m: float | None = None,
        camera_pitch_deg: float | None = None,
    ) -> None:
        self.network = Evaluation()
        self.position_prior = Evaluation()
        self.flat_plane = Evaluation()
        self.gallery = FrameGallery()
        self._prior = position_prior
        self._plane: tuple[PinholeCamera, np.ndarray] | None = None
        self.mount_camera(camera_height_m, camera_pitch_deg)

    def mount_camera(self, height_m: float | None, pitch_deg: float | None) -> None:
        """State how the camera of the frames to come is mounted; None where it is not known."""
        self._plane = None
        self._mount = None if height_m is None or pitch_deg is None else (height_m, pitch_deg)

    def add(
        self,
        name: str,
        image: np.ndarray,
        camera: PinholeCamera,
        *,
        label: np.ndarray,
        confidence: np.ndarray | None,
        depth: np.ndarray,
        uncertainty: np.ndarray | None,
        truth_label: np.ndarray,
        truth_depth: np.ndarray,
    ) -> None:
        """Add one frame; arrays as in `Evaluation.update`, `image` (H, W, 3) uint8 RGB."""
        frame = Evaluation()
        frame.update(label, confidence, depth, uncertainty, truth_label, truth_depth)
        self.network.merge(frame)
        self.gallery.add(name, frame, image, label, depth, truth_label, truth_depth)
        if self._prior is not None:
            prior = self._prior.predict(*truth_label.shape)
            self.position_prior.update(prior, None, None, None, truth_label, None)
        if self._mount is not None:
            if self._plane is None or self._plane[0] != camera:
                self._plane = camera, flat_plane_depth(camera, *self._mount)
            plane = self._plane[1]
            self.flat_plane.update(None, None, plane, None, truth_label, truth_depth)

    def to_dict(self) -> dict[str, Any]:
        """
        Return the keys of metrics.json, and beside them the depth on rocks and the two rows.

        `rock`: the network's depth metrics on rock pixels; `reference_rows`: `position_prior`
        with miou and iou, `flat_plane` with depth metrics and its own `rock`.
        """
        prior = self.position_prior.to_dict()
        return {
            **self.network.to_dict(),
            'rock': self.network.depth_metrics(classes=['rock']),
            'reference_rows': {
                'position_prior': {key: prior[key] for key in ('miou', 'iou')},
                'flat_plane': {
                    **self.flat_plane.depth_metrics(),
                    'rock': self.flat_plane.depth_metrics(classes=['rock']),
                },
            },
        }
