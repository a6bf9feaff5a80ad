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

"""The two rows that look at no image, on the frames that networks are scored on."""

from collections.abc import Mapping
from typing import Any

from lunar_perception.camera import PinholeCamera
from lunar_perception.data.lusnar_format import Mounting
from lunar_perception.metrics import Evaluation
from lunar_perception.reference_rows import flat_plane_depth, PositionPrior
import numpy as np
from train.frames import Frames


def score_references(
    frames: Frames, train: np.ndarray, test: np.ndarray, mountings: Mapping[str, Mounting]
) -> dict[str, Any]:
    """
    Return the keys of metrics.json for the position prior and for the flat plane.

    The prior is fitted to the frames `train`; the plane knows each scene's mounting of the
    camera. Both are scored on the frames `test`.
    """
    prior = PositionPrior.fit(frames.label[i] for i in train)
    rows = {'position_prior': Evaluation(), 'flat_plane': Evaluation()}
    guess = prior.predict(frames.size, frames.size)
    for i in test:
        label, depth = frames.label[i], frames.depth[i].astype(np.float32)
        rows['position_prior'].update(guess, None, None, None, label, None)
        focal = float(frames.focal[i]) * frames.size
        middle = frames.size / 2
        camera = PinholeCamera(frames.size, frames.size, focal, focal, middle, middle)
        mounting = mountings[frames.names[i].split('/')[0]]
        plane = flat_plane_depth(camera, mounting.height, mounting.pitch_deg, mounting.roll_deg)
        rows['flat_plane'].update(None, None, plane, None, label, depth)
    return {name: evaluation.to_dict() for name, evaluation in rows.items()}
