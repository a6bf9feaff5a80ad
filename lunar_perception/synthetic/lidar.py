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
A LiDAR of 128 beams that looks where the cameras look.

LuSNAR tells the number of beams, not their directions. This fan and range give about 10,000
points a scan, and lie inside the left image but for its corners.
"""

from lunar_perception.data.lusnar_format import LIDAR_CATEGORIES, LIDAR_POSITION, LidarScan
from lunar_perception.synthetic.renderer import Renderer
from lunar_perception.synthetic.trajectory import Pose
from lunar_perception.taxonomy import LUNAR_TERRAIN
import numpy as np

ELEVATIONS_DEG = np.linspace(-45, 15, 128)
AZIMUTHS_DEG = np.linspace(-40, 40, 109)
LARGEST_RANGE = 60.0
"""Metres; mountains stand farther, and LuSNAR's scans have no category for them."""

_FLIP = np.array([1.0, -1.0, -1.0])
_SEEN = LUNAR_TERRAIN.ids_of(list(LIDAR_CATEGORIES.values()))


def scan(renderer: Renderer, body: Pose) -> LidarScan:
    """Return the scan from a body's pose, in the LiDAR's frame (x ahead, y right, z down)."""
    elevation, azimuth = np.radians(np.meshgrid(ELEVATIONS_DEG, AZIMUTHS_DEG, indexing='ij'))
    level = np.cos(elevation)
    rays = np.stack([level * np.cos(azimuth), level * np.sin(azimuth), -np.sin(elevation)], -1)
    rays = rays.reshape(-1, 3)
    lidar = body.then(Pose(_FLIP * LIDAR_POSITION, np.diag(_FLIP)))
    distance, label = renderer.scan(lidar.position, rays @ lidar.rotation.T)
    returned = (distance < LARGEST_RANGE) & np.isin(label, _SEEN)
    points = rays[returned] * distance[returned, None]
    return LidarScan(points.astype(np.float32), label[returned])
