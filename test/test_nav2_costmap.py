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
The node's own clouds in a costmap: what is marked, what stays marked, and what is cleared.

The running node gets images over DDS; its network is replaced by the truth of a generated scene,
and its clouds go into the reference costmap with the parameters that are shipped.
"""

from array import array
from collections.abc import Iterator
import os
from types import SimpleNamespace

from builtin_interfaces.msg import Time
from flat_scene import Ball, FlatScene, pose_matrix, ROCK
from in_process import InProcess, STAMPS
from lunar_perception.camera import PinholeCamera
from lunar_perception.commands.local_dds import FAST_DDS_PROFILE
from lunar_perception.data.lusnar_format import LUSNAR_MOUNTING
from lunar_perception.data.ros_frames import camera_pose
from lunar_perception.nodes import network, perception_node
import numpy as np
import pytest
from reference_costmap import (
    FREE,
    LETHAL,
    positions,
    ReferenceCostmap,
    shipped_parameters,
    UNKNOWN,
)
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

COSTMAPS = ('local_costmap', 'global_costmap')
CLOUDS = ('points/hazards', 'points/clearing')
FRAMES = 3
"""Within so many a removed rock is to be gone."""

CAMERA = PinholeCamera.from_fov_deg(384, 384, 80.0)
MOUNT = pose_matrix(
    *[getattr(camera_pose(LUSNAR_MOUNTING), n) for n in ('position', 'quaternion')]
)
AHEAD = float(MOUNT[0, 3]) + 5.0
"""Metres in base_link of what is 5 m ahead of the camera."""


class TrueNetwork:
    """Stands in for a predictor that is always right: it says what it was told to see."""

    def __init__(self) -> None:
        self.truth: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, image: np.ndarray, camera: PinholeCamera | None) -> SimpleNamespace:
        assert camera is not None and self.truth is not None
        depth, label = self.truth
        return SimpleNamespace(
            label=label,
            depth=depth,
            confidence=np.full(label.shape, 0.9, np.float32),
            uncertainty=np.where(np.isfinite(depth), 0.02 * depth, np.float32(np.nan)),
        )


class Rover:
    """The running node, and a costmap that is fed with its clouds."""

    def __init__(self, ros: InProcess, network: TrueNetwork, costmap: ReferenceCostmap) -> None:
        self.ros, self.network, self.costmap = ros, network, costmap
        self.x = self.above_odom = 0.0
        self.clouds: dict[str, PointCloud2] = {}

    @property
    def camera_in_odom(self) -> np.ndarray:
        matrix = MOUNT.copy()
        matrix[0, 3] += self.x
        return matrix

    def look(self, scene: FlatScene) -> None:
        """Take one frame through the node, and its clouds into the costmap."""
        self.network.truth = scene.view(CAMERA, self.camera_in_odom)
        header = self.send()
        for topic in CLOUDS:
            self.clouds[topic] = self.ros.answer(topic, header)
            camera = self.camera_in_odom
            camera[2, 3] += self.above_odom
            self.costmap.receive(f'/perception/{topic}', self.clouds[topic], camera)
        self.costmap.update(self.x)

    def send(self) -> Header:
        header = Header(stamp=Time(nanosec=next(STAMPS)), frame_id='camera_left_optical')
        message = Image(header=header, encoding='rgb8')
        message.height, message.width, message.step = CAMERA.height, CAMERA.width, 3 * CAMERA.width
        message.data = array('B', bytes(message.height * message.step))
        info = CameraInfo(height=CAMERA.height, width=CAMERA.width)
        info.k = [CAMERA.fx, 0.0, CAMERA.cx, 0.0, CAMERA.fy, CAMERA.cy, 0.0, 0.0, 1.0]
        self.ros.send(message, info)
        return header

    def lethal_at(self, rock: Ball) -> int:
        """Return how many lethal cells there are within two cells of a rock."""
        places = self.costmap.lethal()
        distance = np.hypot(*(places - rock.centre[:2]).T)
        return int((distance <= rock.radius + 2 * self.costmap.resolution).sum())


@pytest.fixture(scope='module', autouse=True)
def domain() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('ROS_DOMAIN_ID', str(1 + (os.getpid() + 17) % 100))
        patch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        patch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', str(FAST_DDS_PROFILE))
        yield


@pytest.fixture(scope='module')
def node() -> Iterator[tuple[InProcess, TrueNetwork]]:
    truth = TrueNetwork()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, 'load_predictor', lambda _: truth)
        patch.setattr(perception_node, 'network_values', lambda _: {})
        patch.setattr(perception_node, 'free_device_memory', lambda: None)
        with InProcess() as ros:
            ros.start()
            ros.subscribe(PointCloud2, 'points', *CLOUDS)
            ros.subscribe(Image, 'costmap/label', 'costmap/confidence')
            yield ros, truth


@pytest.fixture(params=COSTMAPS)
def rover(request: pytest.FixtureRequest, node: tuple[InProcess, TrueNetwork]) -> Rover:
    return Rover(*node, ReferenceCostmap(shipped_parameters(request.param)))


ROCK_AHEAD = Ball((AHEAD, 0.155, 0.2), 0.4)
"""Stands 0.6 m out of the ground, with its centre 5 m ahead."""

EDGE = AHEAD - 1.5
"""Where the ground ends, so that there is only sky behind the rock."""


def visible_cells(
    costmap: ReferenceCostmap, scene: FlatScene, camera_in_odom: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the cells (N, 2) in which a sharper camera sees the rock, and those of its front (M, 2).

    The front is, of every row of cells along the way, the one nearest to the camera.
    """
    fine = CAMERA.resized(3 * CAMERA.width, 3 * CAMERA.height)
    depth, label = scene.view(fine, camera_in_odom)
    places = fine.back_project(depth)[label == ROCK] @ camera_in_odom[:3, :3].T
    cells, _ = costmap.cells(places + camera_in_odom[:3, 3])
    cells = np.unique(cells, axis=0)  # by x, then by y: the first of a row is its nearest
    _, first = np.unique(cells[:, 1], return_index=True)
    return cells, cells[first]


def gap(places: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return by how many cells each of `places` is off the nearest of `others`, both (N, 2)."""
    return np.abs(places[:, None] - others[None]).max(axis=2).min(axis=1)


def test_a_rock_s_front_is_marked_and_nothing_else(rover: Rover) -> None:
    scene = FlatScene(ROCK_AHEAD)
    rover.look(scene)
    costmap = rover.costmap
    lethal = np.argwhere(costmap.cost == LETHAL)[:, ::-1]
    seen, front = visible_cells(costmap, scene, rover.camera_in_odom)
    assert len(front) >= 0.7 / costmap.resolution
    assert gap(lethal, seen).max() <= 1
    assert gap(front, lethal).max() <= 1
    # On the ground between, what was seen is free.
    between, _ = costmap.cells(np.array([[AHEAD - 2.0, 0.155], [AHEAD - 1.0, 0.4]]))
    assert (costmap.cost[between[:, 1], between[:, 0]] == FREE).all()


def test_rays_that_pass_over_a_rock_do_not_take_it_away(rover: Rover) -> None:
    scene = FlatScene(ROCK_AHEAD)
    rover.look(scene)
    first = rover.costmap.cost.copy()
    assert rover.lethal_at(ROCK_AHEAD) > 0
    for _ in range(2 * FRAMES):
        rover.look(scene)
        np.testing.assert_array_equal(rover.costmap.cost, first)
    # There are such rays: with nothing to mark afterwards, they clear.
    rover.costmap.sources['hazards']['marking'] = False
    rover.costmap.update(rover.x)
    assert rover.lethal_at(ROCK_AHEAD) < (first == LETHAL).sum()


@pytest.mark.parametrize('behind', ['ground', 'sky'])
def test_a_rock_that_is_gone_is_cleared(rover: Rover, behind: str) -> None:
    edge = np.inf if behind == 'ground' else EDGE
    rover.look(FlatScene(ROCK_AHEAD, edge))
    assert rover.lethal_at(ROCK_AHEAD) > 0
    empty = FlatScene(None, edge)
    depth, _ = empty.view(CAMERA, rover.camera_in_odom)
    _, label = FlatScene(ROCK_AHEAD, edge).view(CAMERA, rover.camera_in_odom)
    seen_behind = np.isfinite(depth[label == ROCK])
    assert seen_behind.all() if behind == 'ground' else not seen_behind.any()
    for _ in range(FRAMES):
        rover.look(empty)
        if not rover.lethal_at(ROCK_AHEAD):
            break
    assert len(rover.costmap.lethal()) == 0


def test_without_ends_in_the_sky_it_would_stay(rover: Rover) -> None:
    """The organised cloud, which is NaN in the sky, does not clear; points/clearing does."""
    rover.look(FlatScene(ROCK_AHEAD, EDGE))
    marked = rover.lethal_at(ROCK_AHEAD)
    assert marked > 0
    camera = rover.camera_in_odom
    rover.network.truth = FlatScene(None, EDGE).view(CAMERA, camera)
    header = rover.send()
    hazards, clearing, points = (rover.ros.answer(topic, header) for topic in (*CLOUDS, 'points'))
    rover.costmap.receive('/perception/points/hazards', hazards, camera)
    for cloud, left in ((points, marked), (clearing, 0)):
        rover.costmap.receive('/perception/points/clearing', cloud, camera)
        rover.costmap.update(rover.x)
        assert rover.lethal_at(ROCK_AHEAD) == left


@pytest.mark.parametrize('limits', ['shipped', 'default'])
def test_uphill_it_marks_and_clears_all_the_same(
    node: tuple[InProcess, TrueNetwork], limits: str
) -> None:
    """Five metres above where odom began; Nav2's default heights would let nothing pass."""
    parameters = shipped_parameters('local_costmap')
    layer = parameters['obstacle_layer']
    if limits == 'default':
        for place in (layer, layer['hazards'], layer['clearing']):
            place |= {'min_obstacle_height': 0.0, 'max_obstacle_height': 2.0}
    rover = Rover(*node, ReferenceCostmap(parameters))
    rover.above_odom = 5.0
    rover.look(FlatScene(ROCK_AHEAD))
    assert bool(rover.lethal_at(ROCK_AHEAD)) == (limits == 'shipped')
    rover.look(FlatScene(None))
    assert rover.lethal_at(ROCK_AHEAD) == 0
    ((x, y),), _ = rover.costmap.cells(np.array([[AHEAD - 2.0, 0.155]]))
    assert rover.costmap.cost[y, x] == (FREE if limits == 'shipped' else UNKNOWN)


def test_a_drive_towards_a_rock(rover: Rover) -> None:
    """The window rolls; the rock stays where it is, and is gone when it is gone."""
    scene = FlatScene(ROCK_AHEAD)
    for _ in range(12):
        rover.look(scene)
        lethal = rover.costmap.lethal()
        offset = np.hypot(*(lethal - ROCK_AHEAD.centre[:2]).T)
        cell = rover.costmap.resolution
        assert len(lethal) > 0
        assert offset.max() <= ROCK_AHEAD.radius + 1.5 * np.sqrt(2) * cell
        rover.x += 0.217
    for _ in range(FRAMES):
        rover.look(FlatScene(None))
        rover.x += 0.217
    assert len(rover.costmap.lethal()) == 0


@pytest.mark.parametrize('limit', ['shipped', 'default'])
def test_a_rock_too_near_to_be_seen_stays_marked(
    node: tuple[InProcess, TrueNetwork], limit: str
) -> None:
    """Under the image, all rays pass over it; by Nav2's default they clear there as well."""
    parameters = shipped_parameters('local_costmap')
    if limit == 'default':
        parameters['obstacle_layer']['clearing']['raytrace_min_range'] = 0.0
    rover = Rover(*node, ReferenceCostmap(parameters))
    rock = Ball((AHEAD, 0.155, 0.0), 0.3)
    scene = FlatScene(rock)
    for rover.x in np.arange(0.0, 4.7, 0.5):
        rover.look(scene)
    _, label = scene.view(CAMERA, rover.camera_in_odom)
    assert not (label == ROCK).any()
    assert bool(rover.lethal_at(rock)) == (limit == 'shipped')


def test_hazards_and_clearing_are_of_one_frame(rover: Rover) -> None:
    rover.look(FlatScene(ROCK_AHEAD))
    hazards, clearing = (rover.clouds[topic] for topic in CLOUDS)
    assert hazards.header == clearing.header
    assert hazards.header.frame_id == 'camera_left_optical'
    assert np.isfinite(positions(hazards)).all() and np.isfinite(positions(clearing)).all()
    # No larger than the sampled image, whatever is seen.
    most = (CAMERA.width // 4) * (CAMERA.height // 4)
    assert 0 < hazards.width * hazards.height < clearing.width * clearing.height <= most


@pytest.mark.parametrize('scene', [FlatScene(ROCK_AHEAD), FlatScene(None)])
def test_label_confidence_and_cloud_for_the_semantic_layer(
    node: tuple[InProcess, TrueNetwork], scene: FlatScene
) -> None:
    """Of equal size and stamp; rows without padding, for the layer does not look at step."""
    ros, truth = node
    truth.truth = scene.view(CAMERA, MOUNT)
    header = Rover(ros, truth, ReferenceCostmap(shipped_parameters('local_costmap'))).send()
    label, confidence, points = (
        ros.answer(topic, header) for topic in ('costmap/label', 'costmap/confidence', 'points')
    )
    assert label.header == confidence.header == points.header == header
    sizes = {(message.height, message.width) for message in (label, confidence, points)}
    assert sizes == {(96, 96)}
    for image in (label, confidence):
        assert (image.encoding, image.step) == ('mono8', image.width)
        assert len(image.data) == image.width * image.height
    # Pixel by pixel of one thing: where the label says rock, the point is on the rock.
    labels = np.frombuffer(label.data, np.uint8)
    places = positions(points)[labels == ROCK] @ MOUNT[:3, :3].T + MOUNT[:3, 3]
    if scene.rock is None:
        assert len(places) == 0
    else:
        off = np.linalg.norm(places - scene.rock.centre, axis=1) - scene.rock.radius
        assert len(places) > 20
        np.testing.assert_allclose(off, 0, atol=1e-4)
    finite = np.isfinite(positions(points)).all(axis=1)
    np.testing.assert_array_equal(finite, labels != 4)
