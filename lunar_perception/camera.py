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

"""The pinhole camera: rescaling, rays and back-projection."""

from dataclasses import dataclass
from math import radians, tan

import numpy as np


@dataclass(frozen=True)
class PinholeCamera:
    """
    A pinhole camera without distortion, in the optical frame (x right, y down, z forward).

    Pixel (u, v) sees along ((u − cx) / fx, (v − cy) / fy, 1), as in sensor_msgs/CameraInfo.

    Fields:
        width, height: image size in pixels.
        fx, fy, cx, cy: focal lengths and principal point in pixels.

    Raises ValueError for a size or focal length that is not positive and finite.

    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f'camera size {self.width}×{self.height} must be positive')
        for name in ('fx', 'fy'):
            focal = getattr(self, name)
            if not (np.isfinite(focal) and focal > 0):
                raise ValueError(f'focal length {name} = {focal} must be positive and finite')
        for name in ('cx', 'cy'):
            if not np.isfinite(getattr(self, name)):
                raise ValueError(f'principal point {name} = {getattr(self, name)} must be finite')

    @classmethod
    def from_fov_deg(cls, width: int, height: int, fov_deg: float) -> 'PinholeCamera':
        """Return a centred camera of square pixels with a horizontal field of view."""
        if not 0 < fov_deg < 180:
            raise ValueError(f'field of view {fov_deg}° must lie between 0° and 180°')
        focal = width / 2 / tan(radians(fov_deg) / 2)
        return cls(width, height, focal, focal, width / 2, height / 2)

    def resized(self, width: int, height: int) -> 'PinholeCamera':
        """Return this camera for its image resized to width × height; each axis by its own."""
        sx, sy = width / self.width, height / self.height
        return PinholeCamera(width, height, self.fx * sx, self.fy * sy, self.cx * sx, self.cy * sy)

    def rays(self, stride: int = 1) -> np.ndarray:
        """Return every stride-th pixel's ray, z = 1; (⌈H/s⌉, ⌈W/s⌉, 3) float64."""
        x, y = self._slopes(stride)
        rays = np.ones((len(y), x.size, 3))
        rays[..., 0] = x
        rays[..., 1] = y
        return rays

    def back_project(self, depth: np.ndarray, stride: int = 1) -> np.ndarray:
        """
        Return the points of every stride-th pixel, (⌈H/s⌉, ⌈W/s⌉, 3) float32 metres.

        `depth` is (H, W) float32 metres along Z (REP 118). Where it is not finite, the point is
        NaN. Only the last rounding is float32's. Raises ValueError when the depth image is not
        of the camera's size.
        """
        if depth.shape != (self.height, self.width):
            raise ValueError(
                f'depth image {depth.shape[1]}×{depth.shape[0]} does not fit the camera '
                f'{self.width}×{self.height}'
            )
        z = depth[::stride, ::stride].astype(np.float64)
        z[~np.isfinite(z)] = np.nan
        points = np.empty((*z.shape, 3), np.float32)
        x, y = self._slopes(stride)
        np.multiply(x, z, out=points[..., 0], casting='same_kind')
        np.multiply(y, z, out=points[..., 1], casting='same_kind')
        points[..., 2] = z
        return points

    def _slopes(self, stride: int) -> tuple[np.ndarray, np.ndarray]:
        """Return x / z of every stride-th column (w,) and y / z of every such row (h, 1)."""
        x = (np.arange(0, self.width, stride) - self.cx) / self.fx
        y = (np.arange(0, self.height, stride) - self.cy) / self.fy
        return x, y[:, None]


LUSNAR_CAMERA = PinholeCamera(1024, 1024, 610.17784, 610.17784, 512.0, 512.0)
"""LuSNAR's cameras: 80° × 80° field of view, no distortion."""
