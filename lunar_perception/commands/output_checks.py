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

"""What must hold between the outputs that the node gives for one frame."""

from typing import TYPE_CHECKING

from lunar_perception.camera import PinholeCamera
from lunar_perception.taxonomy import LUNAR_TERRAIN, SKY
import numpy as np

if TYPE_CHECKING:
    from lunar_perception.nodes.frame_client import NodeOutputs

CLOUD_STRIDE = 4
"""The node's default `cloud_stride`."""


def violations(outputs: 'NodeOutputs', image: np.ndarray, camera: PinholeCamera) -> list[str]:
    """
    Return what is wrong with one frame's outputs, in words; nothing when all is well.

    `image` (H, W, 3) uint8 RGB is what the node was sent. Written from the interface alone,
    sharing no code with the node: labels are known classes, depth is +Inf exactly at the sky
    and positive and finite elsewhere, uncertainty is known where depth is, and each point is
    its pixel back-projected, with the pixel's colour, label and confidence.
    """
    found = []

    def require(holds: np.ndarray | np.bool_ | bool, rule: str) -> None:
        failures = int(np.sum(~np.asarray(holds)))
        if failures:
            found.append(f'{rule} (not so at {failures} places)')

    label, depth, points = outputs.label, outputs.depth, outputs.points
    sky = label == SKY
    finite = np.isfinite(depth)
    require(label < len(LUNAR_TERRAIN), 'every label is a known class')
    require(sky == np.isposinf(depth), 'depth is +Inf exactly where the label is sky')
    require(sky | (finite & (depth > 0)), 'depth off the sky is finite and positive')
    require(
        np.isfinite(outputs.uncertainty) == finite, 'uncertainty is finite exactly where depth is'
    )
    require(~finite | (outputs.uncertainty >= 0), 'uncertainty is not negative')

    rows, columns = (slice(None, None, CLOUD_STRIDE),) * 2
    z = depth[rows, columns].astype(float)
    if points.shape != z.shape:
        return [*found, f'the cloud has {points.shape} points where {z.shape} are due']
    u = np.arange(0, camera.width, CLOUD_STRIDE)
    v = np.arange(0, camera.height, CLOUD_STRIDE)[:, None]
    z[~np.isfinite(z)] = np.nan
    truth = {'x': (u - camera.cx) / camera.fx * z, 'y': (v - camera.cy) / camera.fy * z, 'z': z}
    for axis, expected in truth.items():
        # 1e-5 m, and float32's own grain far away.
        near = np.isclose(points[axis], expected, rtol=3e-7, atol=1e-5, equal_nan=True)
        require(near, f"each point's {axis} is its pixel back-projected")
    red, green, blue = np.moveaxis(image[rows, columns].astype(np.uint32), 2, 0)
    require(
        points['rgb'].view(np.uint32) & 0xFFFFFF == red << 16 | green << 8 | blue,
        "each point has its pixel's colour",
    )
    require(points['label'] == label[rows, columns], "each point has its pixel's label")
    quantised = outputs.confidence[rows, columns] / 255
    require(
        np.abs(points['confidence'] - quantised) <= 0.5 / 255 + 1e-6,
        "each point has its pixel's confidence",
    )
    return found
