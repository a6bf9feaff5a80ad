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
Draw what Nav2's own costmaps make of a bag that the unified node watches.

    python -m benchmarks.nav2_picture BAG --output PNG [--layer L] [--rate R]

Needs Nav2, an installed lunar_perception and ROS 2's launch system. nav2_mapping.launch.py runs as
docs/nav2.md says, `lunar-perception bag play` beside it. When the bag is over, the last picture
that the node labelled is drawn beside the global costmap.
"""

from argparse import ArgumentParser
from io import BytesIO
from pathlib import Path
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.nav2 import TOPICS  # noqa: F401  which makes the test folder's modules known
from lunar_perception.atomic import write_bytes
from mapping_launch import Launched, own_domain, peer_node
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from nav_msgs.msg import OccupancyGrid
import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image

OVERLAY, COSTMAP = '/perception/label/overlay', '/global_costmap/costmap'

COSTS = {'unknown': '#b9bec6', 'free': '#f6f4ee', 'inflated': '#e9b872', 'lethal': '#b3261e'}
COLORS = ListedColormap(list(COSTS.values()))
NORM = BoundaryNorm([-1.5, -0.5, 0.5, 99.5, 100.5], COLORS.N)
"""Of an OccupancyGrid's −1, 0, 1 to 99, 100."""


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('bag', type=Path)
    parser.add_argument('--output', type=Path, required=True, help='a PNG')
    parser.add_argument('--layer', default='obstacle')
    parser.add_argument('--rate', type=float, default=0.3, help='of playing (%(default)s)')
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        picture, costmap = watch(arguments.bag, arguments.layer, arguments.rate, Path(folder))
    draw(picture, costmap, arguments.output)


def watch(bag: Path, layer: str, rate: float, folder: Path) -> tuple[np.ndarray, OccupancyGrid]:
    """Return the last picture with its labels, (H, W, 3) RGB, and the global costmap of then."""
    environment = own_domain(folder, 61)
    arguments = {'layer': layer, 'rviz': 'false', 'device': 'cpu', 'camera_transform': 'false'}
    arguments |= {'use_sim_time': 'true', 'image_topic': '/camera/left/image_raw'}
    arguments |= {'camera_info_topic': '/camera/left/camera_info'}
    kept: dict[str, Any] = {}
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    with (
        Launched(environment, folder / 'output.txt', **arguments) as launched,
        peer_node(environment) as node,
    ):
        node.create_subscription(Image, OVERLAY, lambda m: kept.__setitem__('image', m), 1)
        node.create_subscription(
            OccupancyGrid, COSTMAP, lambda m: kept.__setitem__('costmap', m), latched
        )
        launched.until(lambda: node.count_publishers(OVERLAY), 'the node', node.spin_once)
        play = [sys.executable, '-m', 'lunar_perception.cli', 'bag', 'play', str(bag), '--clock']
        with subprocess.Popen([*play, '--rate', str(rate)], env=environment) as player:
            launched.until(lambda: player.poll() is not None, 'the end', node.spin_once)
        image, costmap = kept['image'], kept['costmap']
    return np.reshape(image.data, (image.height, image.width, 3)), costmap


def draw(picture: np.ndarray, costmap: OccupancyGrid, output: Path) -> None:
    """Draw both side by side, as a PNG."""
    figure = Figure(figsize=(10, 4.6), layout='constrained')
    left, right = figure.subplots(1, 2)
    left.imshow(picture)
    left.set_axis_off()
    info = costmap.info
    x, y = info.origin.position.x, info.origin.position.y
    extent = (x, x + info.width * info.resolution, y, y + info.height * info.resolution)
    cost = np.reshape(costmap.data, (info.height, info.width))
    right.imshow(cost, COLORS, norm=NORM, origin='lower', extent=extent, interpolation='nearest')
    middle = ((extent[0] + extent[1]) / 2, (extent[2] + extent[3]) / 2)
    (rover,) = right.plot(*middle, 'o', color='#2a6f97', label='rover')
    right.set_xlabel('x, metres')
    right.set_ylabel('y, metres')
    swatches = [Patch(facecolor=c, edgecolor='grey', label=name) for name, c in COSTS.items()]
    right.legend(
        handles=[rover, *swatches], loc='upper left', bbox_to_anchor=(1.0, 1.0), frameon=False
    )
    buffer = BytesIO()
    figure.savefig(buffer, format='png', dpi=110)
    write_bytes(output, buffer.getvalue())


if __name__ == '__main__':
    main()
