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
Nav2 itself, where it is installed: what its costmaps make of a rock that comes and goes.

A generated picture of level ground with a rock 5 m ahead, and one without it, go through the
launched node, with the weights that ship, into the costmaps of each layer that is installed. What
these mark is held against the reference costmap, which stands in for Nav2 elsewhere.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

from ament_index_python.packages import get_packages_with_prefixes
from benchmarks.nav2_rock import LevelScene, TOLERANCE, within
from geometry_msgs.msg import TransformStamped
from lunar_perception.commands.synth import scene_seed
from lunar_perception.nodes.camera_info import info_from_camera
from lunar_perception.nodes.codec import encode
from mapping_launch import COSTMAPS, Launched, own_domain, peer_node
from nav_msgs.msg import OccupancyGrid
import numpy as np
import pytest
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from reference_costmap import ReferenceCostmap, shipped_parameters
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

NEEDED = {'lunar_perception', 'nav2_costmap_2d', 'nav2_lifecycle_manager', 'tf2_ros'}
INSTALLED = set(get_packages_with_prefixes()) if find_spec('ros2launch') else set()
if NEEDED - INSTALLED:
    pytest.skip('needs Nav2 (ros-jazzy-navigation2)', allow_module_level=True)

LAYERS = {
    'obstacle': 'nav2_costmap_2d',
    'voxel': 'nav2_costmap_2d',
    'stvl': 'spatio_temporal_voxel_layer',
    'semantic': 'semantic_segmentation_layer',
}
RESOLUTION = {name: shipped_parameters(name)['resolution'] for name in COSTMAPS}

PERIOD_S = 0.5
"""From one picture to the next."""

CLOUDS = ('/perception/points/hazards', '/perception/points/clearing')
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
LETHAL = 100
"""What an OccupancyGrid says of a lethal cell."""


class Rover:
    """A rover that looks at one picture again and again, and hears what comes of it."""

    def __init__(self, node: Node, scene: LevelScene) -> None:
        self.node = node
        self.camera, self.picture = scene.moon.camera, scene.with_rock.image
        self.grids: dict[str, OccupancyGrid] = {}
        self.clouds: dict[str, PointCloud2] = {}
        self._sent = -np.inf
        self._images = node.create_publisher(Image, '/perception/image', 1)
        self._infos = node.create_publisher(CameraInfo, '/perception/camera_info', 1)
        for topic in CLOUDS:
            node.create_subscription(PointCloud2, topic, keeper(self.clouds, topic), 1)
        listen_to_costmaps(node, self.grids)
        at_first = transforms_at(0.0, 0.0)
        self._transforms = node.create_publisher(type(at_first), '/tf_static', LATCHED)
        self._transforms.publish(at_first)

    def stand_at(self, x: float, y: float) -> None:
        self._transforms.publish(transforms_at(x, y))

    def spin(self) -> None:
        """Send the picture when it is time to, and hear what is there."""
        if monotonic() - self._sent > PERIOD_S:
            self._sent = monotonic()
            stamp = self.node.get_clock().now().to_msg()
            header = Header(stamp=stamp, frame_id='camera_left_optical')
            self._infos.publish(info_from_camera(self.camera, header))
            self._images.publish(encode(self.picture, 'rgb8', header))
        self.node.spin_once()

    def lethal(self, costmap: str) -> np.ndarray:
        """Return the lethal cells' centres, (N, 2) metres; none where there is no costmap yet."""
        grid = self.grids.get(costmap)
        if grid is None:
            return np.zeros((0, 2))
        cells = np.reshape(grid.data, (grid.info.height, grid.info.width)) == LETHAL
        corner = grid.info.origin.position
        return [corner.x, corner.y] + (np.argwhere(cells)[:, ::-1] + 0.5) * grid.info.resolution


def keeper(kept: dict, name: str) -> Callable:
    return lambda message: kept.__setitem__(name, message)


def listen_to_costmaps(node: Node, grids: dict[str, OccupancyGrid]) -> None:
    """Keep the newest of each in `grids`."""
    for name in COSTMAPS:
        topic, keep = f'/{name}/costmap', keeper(grids, name)
        node.create_subscription(OccupancyGrid, topic, keep, LATCHED)


def transforms_at(x: float, y: float) -> Any:
    """Return what says that base_link is x, y metres from odom, which is map."""
    from tf2_msgs.msg import TFMessage  # comes with tf2_ros, which is looked for above

    to_odom, to_base = (TransformStamped(child_frame_id=child) for child in ('odom', 'base_link'))
    to_odom.header.frame_id, to_base.header.frame_id = 'map', 'odom'
    to_base.transform.translation.x, to_base.transform.translation.y = x, y
    return TFMessage(transforms=[to_odom, to_base])


@pytest.fixture(scope='module')
def scene() -> LevelScene:
    return LevelScene(scene_seed(5, 1), size=512)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return own_domain(tmp_path, 47)


@pytest.fixture
def rover(environment: dict[str, str], scene: LevelScene) -> Iterator[Rover]:
    with peer_node(environment) as node:
        yield Rover(node, scene)


def of_the_rock(scene: LevelScene, cells: np.ndarray, resolution: float) -> np.ndarray:
    """Return which of `cells` (N, 2), centres in metres, are as near to it as is allowed."""
    lethal, rock, eye = (
        np.floor(places[:, :2] / resolution).astype(int)
        for places in (cells, scene.rock_places(), scene.eye.position[None])
    )
    return within(lethal, np.unique(rock, axis=0), eye, TOLERANCE['network'])


def reference(rover: Rover, scene: LevelScene, costmap: str) -> np.ndarray:
    """Return the lethal cells' centres in the reference costmap, given the same clouds."""
    expected = ReferenceCostmap(shipped_parameters(costmap))
    for topic in CLOUDS:
        expected.receive(topic, rover.clouds[topic], scene.transform)
    expected.update()
    return expected.lethal()


def same(some: np.ndarray, others: np.ndarray) -> bool:
    """Return whether both are the same cells, by their centres (N, 2) in any order."""
    return sorted(some.round(3).tolist()) == sorted(others.round(3).tolist())


@pytest.mark.parametrize('layer', LAYERS)
def test_a_rock_is_marked_and_gone_with_it(
    layer: str, tmp_path: Path, environment: dict[str, str], rover: Rover, scene: LevelScene
) -> None:
    if LAYERS[layer] not in INSTALLED:
        pytest.skip(f'needs {LAYERS[layer]}')

    def at_the_rock() -> list[bool]:
        near = (of_the_rock(scene, rover.lethal(n), RESOLUTION[n]) for n in COSTMAPS)
        return [bool(cells.any()) for cells in near]

    arguments = {'layer': layer, 'rviz': 'false', 'device': 'cpu'}
    with Launched(environment, tmp_path / 'output.txt', **arguments) as launched:
        launched.until(lambda: all(at_the_rock()), 'lethal cells', rover.spin)
        launched.until(lambda: len(rover.clouds) == len(CLOUDS), 'clouds', rover.spin)
        # The semantic layer takes labels as they are, with their outlines.
        for name in COSTMAPS if layer != 'semantic' else ():
            cells = rover.lethal(name)
            assert of_the_rock(scene, cells, RESOLUTION[name]).all()
            assert same(cells, reference(rover, scene, name))
        rover.picture = scene.without.image
        launched.until(lambda: not any(at_the_rock()), 'cleared cells', rover.spin)
    assert launched.process.returncode == 0


def test_the_window_rolls_as_the_reference_s(
    tmp_path: Path, environment: dict[str, str], rover: Rover, scene: LevelScene
) -> None:
    """Where the rover goes it sees a rock as far ahead; the ones before stay, if not in view."""
    expected = {name: ReferenceCostmap(shipped_parameters(name)) for name in COSTMAPS}

    def as_expected() -> bool:
        return all(same(rover.lethal(name), expected[name].lethal()) for name in COSTMAPS)

    arguments = {'rviz': 'false', 'device': 'cpu'}
    with Launched(environment, tmp_path / 'output.txt', **arguments) as launched:
        for x, y in ((0.0, 0.0), (1.37, -2.23), (-0.4, 3.01)):
            rover.stand_at(x, y)
            rover.clouds.clear()
            launched.until(lambda: len(rover.clouds) == len(CLOUDS), 'clouds', rover.spin)
            camera = scene.transform.copy()
            camera[:2, 3] += (x, y)
            for costmap in expected.values():
                for topic, cloud in rover.clouds.items():
                    costmap.receive(topic, cloud, camera)
                costmap.update(x, y)
            launched.until(as_expected, 'the same cells', rover.spin)
    assert launched.process.returncode == 0


def test_a_clock_that_begins_before_odometry_does_not_end_the_wait(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """As a bag's clock does, it jumps from 0 to the time of recording, before there is any TF."""
    arguments = {'use_sim_time': 'true', 'rviz': 'false', 'device': 'cpu'}
    grids: dict[str, OccupancyGrid] = {}
    with (
        peer_node(environment) as node,
        Launched(environment, tmp_path / 'output.txt', **arguments) as launched,
    ):
        clock, now = node.create_publisher(Clock, '/clock', 1), Clock()
        now.clock.sec = 1_700_000_000

        def tick() -> None:
            now.clock.sec += 1
            clock.publish(now)
            node.spin_once()

        said = launched.output
        launched.until(lambda: 'Checking transform' in said.read_text(), 'waiting', node.spin_once)
        until = now.clock.sec + 30
        launched.until(lambda: now.clock.sec > until, 'the clock', tick)
        at_first = transforms_at(0.0, 0.0)
        node.create_publisher(type(at_first), '/tf_static', LATCHED).publish(at_first)
        listen_to_costmaps(node, grids)
        launched.until(lambda: len(grids) == len(COSTMAPS), 'costmaps', tick)
    assert launched.process.returncode == 0
