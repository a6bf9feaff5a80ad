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
Count what the clouds cost Nav2's costmaps: points, bytes, and cells that rays go through.

    python -m benchmarks.nav2_load [--output JSON]

Counts, no times: they follow from the image's size, `cloud_stride` and config/nav2/obstacle.yaml,
and are the same on every machine. The scene is level ground under LuSNAR's camera, half of it sky;
every pixel is a ray. The obstacle layer goes through the cells of each ray from the camera on,
for each ray anew, at every update.
"""

from argparse import ArgumentParser
from math import ceil, radians
from pathlib import Path
from typing import Any

from benchmarks.record import write_record
from lunar_perception.camera import PinholeCamera
from lunar_perception.data.lusnar_format import LUSNAR_MOUNTING
from lunar_perception.nodes.point_clouds import clearing_points, organised_points, POINT
from lunar_perception.nodes.unified_parameters import UnifiedParameters
import numpy as np
import yaml

FILE = Path(__file__).resolve().parents[1] / 'config' / 'nav2' / 'obstacle.yaml'
SIZES = ((640, 480), (1024, 1024), (1920, 1080))
STRIDES = (2, 4, 8)
FOV_DEG = 80.0


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--output', type=Path, help='where the figures go, as JSON')
    arguments = parser.parse_args()
    rows = [measure(*size, stride) for size in SIZES for stride in STRIDES]
    for row in rows:
        print(row)
    if arguments.output:
        write_record(arguments.output, {'clouds': rows})


def measure(width: int, height: int, stride: int) -> dict[str, Any]:
    """Return the size of both clouds, at most, and each costmap's cells a second."""
    camera = PinholeCamera.from_fov_deg(width, height, FOV_DEG)
    pitch = radians(LUSNAR_MOUNTING.pitch_deg)
    down = np.array([0.0, np.cos(pitch), np.sin(pitch)])  # gravity in the optical frame
    falls = camera.rays() @ down
    depth = np.full(falls.shape, np.inf, np.float32)
    depth[falls > 0] = LUSNAR_MOUNTING.height / falls[falls > 0]
    nothing = np.zeros((height, width), np.float32)
    points = organised_points(
        depth, camera, np.zeros((height, width, 3), np.uint8), nothing.astype(np.uint8), nothing,
        stride,
    )  # fmt: skip
    ends = clearing_points(points, depth, camera, stride, UnifiedParameters().max_range)
    rays = np.stack([ends[axis] for axis in 'xyz'], axis=-1).astype(np.float64)
    ahead = np.array([0.0, -np.sin(pitch), np.cos(pitch)])
    on_map = np.stack([rays @ ahead, -rays[:, 0]], axis=-1)  # forward, left
    row: dict[str, Any] = {
        'image': f'{width}×{height}',
        'cloud_stride': stride,
        'points': points.size,
        'mib_a_cloud': round(points.size * POINT.itemsize / 2**20, 2),
    }
    for name, nodes in yaml.safe_load(FILE.read_text()).items():
        parameters = nodes[name]['ros__parameters']
        cells = cells_of(on_map, parameters)
        row[f'{name}_million_cells_an_update'] = round(cells / 1e6, 2)
    return row


def cells_of(ends: np.ndarray, parameters: dict[str, Any]) -> int:
    """Return through how many cells the rays to `ends` (N, 2) go, from the window's middle."""
    cell = parameters['resolution']
    steps = np.abs(ends).max(axis=1)  # Bresenham's: one a cell of the longer axis
    share = np.minimum(1.0, parameters['width'] / 2 / np.maximum(steps, 1e-9))
    reach = ceil(parameters['obstacle_layer']['clearing']['raytrace_max_range'] / cell)
    length = np.hypot(*ends.T) * share / cell
    share = share * np.minimum(1.0, reach / np.maximum(length, 1e-9))
    return int((steps * share / cell + 1).astype(int).sum())


if __name__ == '__main__':
    main()
