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

"""Which way is down: from TF, from an IMU, or from the camera's mount; and what the node does."""

from array import array
from collections.abc import Iterator
import os
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

from builtin_interfaces.msg import Time
from generated_ground import axes, CAMERA, depth_of, HEIGHT_M, PITCH_DEG, with_crater, world_of
from geometry_msgs.msg import Quaternion, TransformStamped
from in_process import InProcess, STAMPS
from lunar_perception.commands.local_dds import FAST_DDS_PROFILE
from lunar_perception.nodes import gravity, network, perception_node
from lunar_perception.nodes.gravity import Gravity
from lunar_perception.traversability import down_from_pitch, LETHAL
from mapping_launch import own_domain, peer_node
import numpy as np
import pytest
from rclpy.parameter import Parameter
from reference_costmap import ReferenceCostmap
from sensor_msgs.msg import CameraInfo, Image, Imu, PointCloud2
from std_msgs.msg import Header
import yaml

CONFIG = Path(__file__).resolve().parents[1] / 'config'
HEADER = Header(stamp=Time(sec=100), frame_id='eye')


def quaternion_of(rotation: np.ndarray) -> Quaternion:
    """Return the quaternion of a rotation matrix by less than half a turn."""
    w = np.sqrt(1 + np.trace(rotation)) / 2
    x, y, z = (rotation[[2, 0, 1], [1, 2, 0]] - rotation[[1, 2, 0], [2, 0, 1]]) / (4 * w)
    return Quaternion(w=float(w), x=float(x), y=float(y), z=float(z))


def about_y(degrees: float) -> np.ndarray:
    """Return the attitude of a rover whose nose is that far down."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def imu(
    *,
    attitude: np.ndarray | None = None,
    acceleration: tuple[float, float, float] = (0.0, 0.0, 1.62),
    frame_id: str = 'imu',
    sec: int = 100,
    nanosec: int = 0,
) -> Imu:
    message = Imu(header=Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id))
    if attitude is None:
        message.orientation_covariance[0] = -1.0
    else:
        message.orientation = quaternion_of(attitude)
    a = message.linear_acceleration
    a.x, a.y, a.z = acceleration
    return message


def down_by(*messages: Imu, pitch_deg: float = PITCH_DEG, header: Header = HEADER) -> gravity.Down:
    found = Gravity(SimpleNamespace(), '')
    for message in messages:
        found.add_imu(message)
    return found.down(header, pitch_deg)


def test_the_mount_alone_says_what_a_level_rover_sees() -> None:
    for pitch_deg in (-10.0, 0.0, 20.0, 90.0):
        down = down_by(pitch_deg=pitch_deg)
        assert (down.source, down.problem) == ('camera_pitch_deg', '')
        # Looking down by pitch, the horizon is that far above the optical axis.
        assert np.degrees(np.arcsin(down.direction[2])) == pytest.approx(pitch_deg)
        assert down.direction[0] == 0
        np.testing.assert_allclose(axes(pitch_deg) @ down.direction, [0, 0, -1], atol=1e-12)


@pytest.mark.parametrize('nose_down', [-12.0, 0.0, 7.0])
def test_a_rover_s_imu_adds_its_tilt_to_the_mount(nose_down: float) -> None:
    expected = down_from_pitch(PITCH_DEG + nose_down)
    attitude = about_y(nose_down)
    x, y, z = attitude.T @ [0.0, 0.0, 1.62]
    for message in (
        imu(attitude=attitude, acceleration=(3.0, -3.0, 0.0)),
        imu(acceleration=(x, y, z)),
    ):
        down = down_by(message)
        assert down.source == 'imu and camera_pitch_deg'
        np.testing.assert_allclose(down.direction, expected, atol=1e-7)


def test_roll_is_seen_too() -> None:
    """A rover that leans to its right sees down turned towards the picture's right."""
    lean = np.radians(10.0)
    cos, sin = np.cos(lean), np.sin(lean)
    attitude = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])  # y, its left, goes up
    down = down_by(imu(attitude=attitude), pitch_deg=0.0).direction
    np.testing.assert_allclose(down, [sin, cos, 0], atol=1e-7)


def test_an_imu_in_the_images_frame_speaks_for_the_camera() -> None:
    level = down_from_pitch(33.0)
    down = down_by(imu(acceleration=tuple(-1.62 * level), frame_id='eye'), pitch_deg=5.0)
    assert down.source == 'imu'
    np.testing.assert_allclose(down.direction, level)


def test_what_says_nothing_or_is_old_is_passed_over() -> None:
    silent = imu()
    silent.linear_acceleration_covariance[0] = -1.0
    nan = imu(acceleration=(np.nan, 0.0, 1.62))
    falling = imu(acceleration=(0.0, 0.0, 0.0))
    old, early = imu(sec=98), imu(sec=102)
    for message in (silent, nan, falling, old, early):
        assert down_by(message).source == 'camera_pitch_deg'
    assert down_by(imu(), silent).source == 'imu and camera_pitch_deg'


def test_acceleration_is_averaged_so_that_braking_is_not_a_slope() -> None:
    found = Gravity(SimpleNamespace(), '')
    for step in range(300):
        braking = -1.0 if 100 <= step < 110 else 0.0
        stamp = {'sec': 98 + step // 100, 'nanosec': step % 100 * 10**7}
        found.add_imu(imu(acceleration=(braking, 0.0, 1.62), **stamp))
        if step == 109:
            down = found.down(Header(stamp=Time(sec=99), frame_id='eye'), 0.0).direction
            tilt = np.degrees(np.arcsin(abs(down[2])))
            assert 1 < tilt < 5  # at once it would be 32°
    after = found.down(HEADER, 0.0).direction
    assert np.degrees(np.arcsin(abs(after[2]))) < 1


class FakeTf:
    """Stands in for tf2_ros: knows one transform, at any time or at none but the latest."""

    class TransformException(Exception):  # noqa: N818
        pass

    def __init__(self, rotation: np.ndarray | None, latest_only: bool = False) -> None:
        self.rotation, self.latest_only = rotation, latest_only
        self.asked: list[tuple[str, str]] = []
        self.listeners = 0

    def Buffer(self) -> 'FakeTf':  # noqa: N802
        return self

    def TransformListener(self, buffer: Any, node: Any) -> 'FakeTf':  # noqa: N802
        self.listeners += 1
        return self

    def unregister(self) -> None:
        self.listeners -= 1

    def lookup_transform(self, target: str, source: str, time: Any) -> TransformStamped:
        self.asked.append((target, source))
        if self.rotation is None or (self.latest_only and time.nanoseconds):
            raise self.TransformException('extrapolation')
        found = TransformStamped()
        found.transform.rotation = quaternion_of(self.rotation)
        return found


@pytest.mark.parametrize('latest_only', [False, True])
def test_tf_knows_best(monkeypatch: pytest.MonkeyPatch, latest_only: bool) -> None:
    tf = FakeTf(axes(27.0), latest_only)
    monkeypatch.setattr(gravity, 'tf2_ros', tf)
    found = Gravity(SimpleNamespace(), 'odom')
    found.add_imu(imu())
    for stamp in (Time(sec=100), Time(sec=-5)):  # rclpy's Time refuses the second
        down = found.down(Header(stamp=stamp, frame_id='eye'), PITCH_DEG)
        assert (down.source, down.problem) == ('TF from odom', '')
        np.testing.assert_allclose(down.direction, down_from_pitch(27.0), atol=1e-7)
    assert set(tf.asked) == {('odom', 'eye')}
    assert tf.listeners == 1
    found.stop()
    found.stop()
    assert tf.listeners == 0


def test_without_tf_the_next_best_stands_in_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for tf, why in (
        (None, 'tf2_ros, which is not installed'),
        (FakeTf(None), 'no transform from eye to odom: extrapolation'),
    ):
        monkeypatch.setattr(gravity, 'tf2_ros', tf)
        found = Gravity(SimpleNamespace(), 'odom')
        down = found.down(HEADER, PITCH_DEG)
        assert down.source == 'camera_pitch_deg' and why in down.problem
        found.add_imu(imu())
        down = found.down(HEADER, PITCH_DEG)
        assert down.source == 'imu and camera_pitch_deg' and why in down.problem
    monkeypatch.setattr(gravity, 'tf2_ros', FakeTf(None))
    assert Gravity(SimpleNamespace(), '').down(HEADER, PITCH_DEG).problem == ''


@pytest.mark.skipif(gravity.tf2_ros is None, reason='needs tf2_ros')
def test_tf2_itself_knows_best(tmp_path: Path) -> None:
    with peer_node(own_domain(tmp_path, 61)) as node:
        found = Gravity(node, 'odom')
        assert 'no transform from eye to odom' in found.down(HEADER, PITCH_DEG).problem
        transform = TransformStamped(child_frame_id='eye')
        transform.header.frame_id = 'odom'
        transform.transform.rotation = quaternion_of(axes(27.0))
        gravity.tf2_ros.StaticTransformBroadcaster(node).sendTransform(transform)
        deadline = monotonic() + 30
        while (down := found.down(HEADER, PITCH_DEG)).problem:
            assert monotonic() < deadline, down.problem
            node.spin_once()
        found.stop()
    assert down.source == 'TF from odom'
    np.testing.assert_allclose(down.direction, down_from_pitch(27.0), atol=1e-6)


class RegolithEverywhere:
    """Stands in for a predictor that gets depth right and calls all of it regolith."""

    def __init__(self, depth: np.ndarray) -> None:
        self._depth = depth

    def __call__(self, *_: Any) -> SimpleNamespace:
        shape = self._depth.shape
        return SimpleNamespace(
            label=np.where(np.isinf(self._depth), 4, 0).astype(np.uint8),
            confidence=np.ones(shape, np.float32),
            depth=self._depth,
            uncertainty=None,
        )


@pytest.fixture
def crater(monkeypatch: pytest.MonkeyPatch) -> Iterator[np.ndarray]:
    """Give the depth that the node's network sees: a crater in a plain, 5 m ahead."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(1 + (os.getpid() + 61) % 100))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', str(FAST_DDS_PROFILE))
    depth = depth_of(with_crater(5.0, 1.5, 0.7, rim=0.15))
    monkeypatch.setattr(network, 'load_predictor', lambda _: RegolithEverywhere(depth))
    monkeypatch.setattr(perception_node, 'DIAGNOSTICS_PERIOD_S', 0.05)
    monkeypatch.setattr(perception_node, 'network_values', lambda _: {})
    monkeypatch.setattr(perception_node, 'free_device_memory', lambda: None)
    yield depth


def send(ros: InProcess) -> Header:
    header = Header(stamp=Time(sec=100, nanosec=next(STAMPS)), frame_id='eye')
    image = Image(header=header, encoding='mono8', height=CAMERA.height, width=CAMERA.width)
    image.step, image.data = image.width, array('B', bytes(image.height * image.width))
    info = CameraInfo(height=CAMERA.height, width=CAMERA.width)
    info.k = [CAMERA.fx, 0.0, CAMERA.cx, 0.0, CAMERA.fy, CAMERA.cy, 0.0, 0.0, 1.0]
    ros.send(image, info)
    return header


def obstacle_layer() -> dict[str, Any]:
    content = yaml.safe_load((CONFIG / 'nav2' / 'obstacle.yaml').read_text())
    return content['global_costmap']['global_costmap']['ros__parameters']


def xyz_of(cloud: PointCloud2) -> np.ndarray:
    floats = np.frombuffer(cloud.data, np.float32).reshape(-1, cloud.point_step // 4)
    return floats[:, :3]


def test_the_node_marks_a_crater_by_its_shape_alone(crater: np.ndarray) -> None:
    with InProcess(hazard_sources='geometry', cloud_stride=2) as ros:
        ros.start()
        ros.subscribe(PointCloud2, 'points/hazards', 'points/clearing')
        ros.subscribe(Image, 'traversability')
        header = send(ros)
        hazards = world_of(xyz_of(ros.answer('points/hazards', header)))
        ground = ros.answer('traversability', header)
        assert (ground.height, ground.width, ground.encoding) == (100, 100, 'mono8')
        cost = np.frombuffer(ground.data, np.uint8)
        alone = np.sum(cost == LETHAL) - len(hazards)  # too few of them together
        assert 0 <= alone < 10 and len(hazards) > 100
        off = np.hypot(hazards[:, 0] - 5.0, hazards[:, 1])
        assert off.max() < 1.5 + 0.5
        assert off.min() > 0.45  # the floor is level within 0.585 m of the middle
        rim = hazards[(hazards[:, 0] < 5) & (off > 1.2)]
        assert len(rim) > 10
        ros.status(lambda _, values: values.get('gravity') == 'camera_pitch_deg')

        # In a costmap, with the camera above its origin: the rim and the walls, not the floor.
        costmap = ReferenceCostmap(obstacle_layer())
        camera_in_odom = np.eye(4)
        camera_in_odom[:3, :3], camera_in_odom[2, 3] = axes(), HEIGHT_M
        for topic in ('points/hazards', 'points/clearing'):
            costmap.receive(f'/perception/{topic}', ros.answer(topic, header), camera_in_odom)
        costmap.update()
        off = np.hypot(*(costmap.lethal() - (5.0, 0.0)).T)
        assert len(off) > 50
        assert (off > 0.4).all() and (off < 1.5 + 0.6).all()

        assert ros.node.set_parameters_atomically(
            [Parameter('hazard_sources', value='class')]
        ).successful
        assert ros.answer('points/hazards', send(ros)).width == 0


def test_the_node_asks_the_imu_on_its_topic(crater: np.ndarray) -> None:
    """Told that the rover stands 25° nose down, the node sees that the plain is a slope."""
    with InProcess(hazard_sources='geometry', cloud_stride=2) as ros:
        ros.start()
        ros.subscribe(Image, 'traversability')
        publisher = ros.peer.create_publisher(Imu, 'imu', 10)
        ros.until(publisher.get_subscription_count, 'the IMU subscription')
        level = np.frombuffer(ros.answer('traversability', send(ros)).data, np.uint8)

        def tilted() -> bool:
            publisher.publish(imu(attitude=about_y(25.0)))
            header = send(ros)
            cost = np.frombuffer(ros.answer('traversability', header).data, np.uint8)
            return bool(np.mean(cost[level == 0] == LETHAL) > 0.9)

        assert (level == 0).any()
        ros.until(tilted, 'ground that is seen tilted')
        ros.status(lambda _, values: values.get('gravity') == 'imu and camera_pitch_deg')
