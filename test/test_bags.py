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

"""LuSNAR scenes as rosbag2: read back by rosbags alone, evaluated, damaged, interrupted."""

from collections import defaultdict
from collections.abc import Iterator
import json
from pathlib import Path
import shutil
from typing import Any

import cv2
from lunar_perception.cli import main
from lunar_perception.data.bag_reader import BagError, BagReader
from lunar_perception.data.bag_writer import convert_scene
from lunar_perception.data.bags import LusnarBag
from lunar_perception.data.lusnar import Scene
from lunar_perception.data.lusnar_format import LUSNAR_MOUNTING, Mounting, Pose, rotation_matrix
from lunar_perception.data.lusnar_writer import LusnarSceneWriter
from lunar_perception.data.pairing import StampPairing
from lunar_perception.data.ros_frames import camera_pose, mounting_of, rep103_pose, rep103_vector
from lunar_perception.synthetic import generate_scene, MoonConfig, read_trajectory
import numpy as np
import pytest
from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores
from tiny_network import save_tiny_network
import yaml

TYPES = get_typestore(Stores.ROS2_JAZZY)
POSES = Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'lusnar_poses'
FRAMES, SIZE = 4, 64


@pytest.fixture(scope='module')
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Generate a scene with everything that LuSNAR has."""
    folder = tmp_path_factory.mktemp('moon') / 'Moon_1'
    generate_scene(folder, MoonConfig(seed=5, size=SIZE), FRAMES)
    return Scene(folder)


@pytest.fixture(scope='module')
def bag(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the scene as an MCAP bag."""
    folder = tmp_path_factory.mktemp('bags') / 'moon_bag'
    convert_scene(scene, folder)
    return folder


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny network of random weights that says several labels and depths."""
    return save_tiny_network(tmp_path_factory.mktemp('weights'))


def read(bag: Path) -> dict[str, list[Any]]:
    """Return the messages by topic, with nothing of ours."""
    found = defaultdict(list)
    with Reader(bag) as reader:
        for connection, stamp_ns, data in reader.messages():
            message = TYPES.deserialize_cdr(data, connection.msgtype)
            if hasattr(message, 'header'):
                assert stamp(message) == stamp_ns
            found[connection.topic].append(message)
    return found


def stamp(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_bag_read_by_rosbags_equals_the_scene(scene: Scene, storage: str, tmp_path: Path) -> None:
    assert convert_scene(scene, tmp_path / 'bag', storage=storage) == FRAMES
    found = read(tmp_path / 'bag')
    topics = ['label', 'depth', 'image_raw', 'camera_info']
    for i, frame in enumerate(scene):
        label, depth, left, info = (found[f'/camera/left/{name}'][i] for name in topics)
        right = found['/camera/right/image_raw'][i]
        for message, pixels, encoding in (
            (label, frame.label, 'mono8'),
            (depth, frame.depth, '32FC1'),
            (left, frame.image, 'rgb8'),
            (right, frame.right_image, 'rgb8'),
        ):
            assert stamp(message) == frame.stamp_ns
            assert (message.encoding, message.height, message.width) == (encoding, SIZE, SIZE)
            assert message.data.tobytes() == pixels.tobytes()
        assert np.isposinf(frame.depth).any()
        assert (stamp(info), info.width, info.k[0], info.k[2], info.k[5]) == (
            frame.stamp_ns, SIZE, scene.camera.fx, scene.camera.cx, scene.camera.cy,
        )  # fmt: skip
        right_info = found['/camera/right/camera_info'][i]
        assert right_info.p[3] == pytest.approx(-0.310 * scene.camera.fx)

        cloud = found['/lidar/points'][i]
        points = np.frombuffer(cloud.data, '<f4,<f4,<f4,<u4')
        np.testing.assert_array_equal(points['f0'], frame.lidar.points[:, 0])
        np.testing.assert_array_equal(points['f2'], -frame.lidar.points[:, 2])
        np.testing.assert_array_equal(points['f3'], frame.lidar.label)
        assert [(f.name, f.offset, f.datatype) for f in cloud.fields] == [
            ('x', 0, 7), ('y', 4, 7), ('z', 8, 7), ('label', 12, 6)
        ]  # fmt: skip

        pose = found['/ground_truth/odometry'][i].pose.pose
        x, y, z = frame.pose.position
        position = [pose.position.x, pose.position.y, pose.position.z]
        np.testing.assert_allclose(position, [x, -y, -z], atol=1e-9, rtol=0)
        w, x, y, z = frame.pose.quaternion
        q = pose.orientation
        np.testing.assert_allclose([q.w, q.x, q.y, q.z], [w, x, -y, -z], atol=1e-9, rtol=0)
    samples = np.concatenate([frame.imu.acceleration for frame in scene])
    assert len(found['/imu/data']) == len(samples)
    up = [message.linear_acceleration.z for message in found['/imu/data']]
    np.testing.assert_array_equal(up, -samples[:, 2])
    assert np.mean(up) > 0.5  # the ground pushes up, as REP 145 has it


def test_metadata_is_what_jazzy_reads(bag: Path, scene: Scene) -> None:
    """Keys and values that rosbag2's yaml.hpp and qos.cpp of branch jazzy require."""
    info = yaml.safe_load((bag / 'metadata.yaml').read_text())['rosbag2_bagfile_information']
    assert info['version'] == 9
    assert info['storage_identifier'] == 'mcap'
    assert info['relative_file_paths'] == ['moon_bag.mcap'] == [f['path'] for f in info['files']]
    assert (bag / 'moon_bag.mcap').is_file()
    assert info['starting_time'] == {'nanoseconds_since_epoch': scene.stamps_ns[0]}
    assert info['duration'] == {'nanoseconds': scene.stamps_ns[-1] - scene.stamps_ns[0]}
    assert (info['compression_format'], info['compression_mode']) == ('', '')
    assert isinstance(info['ros_distro'], str)
    assert info['custom_data'] is None or isinstance(info['custom_data'], dict)
    counts = {
        t['topic_metadata']['name']: t['message_count'] for t in info['topics_with_message_count']
    }
    assert info['message_count'] == sum(counts.values())
    assert counts['/camera/left/label'] == FRAMES
    for topic in info['topics_with_message_count']:
        metadata = topic['topic_metadata']
        assert metadata['serialization_format'] == 'cdr'
        assert metadata['type_description_hash'].startswith('RIHS01_')
        (qos,) = metadata['offered_qos_profiles']
        latched = metadata['name'] == '/tf_static'
        assert qos['history'] == 'keep_last'
        assert qos['reliability'] == 'reliable'
        assert qos['durability'] == ('transient_local' if latched else 'volatile')
        assert qos['liveliness'] == 'automatic'
        infinite = {'sec': 9223372036, 'nsec': 854775807}  # RMW_DURATION_INFINITE
        for key in ('deadline', 'lifespan', 'liveliness_lease_duration'):
            assert qos[key] == infinite
        assert qos['avoid_ros_namespace_conventions'] is False


def test_frames_against_a_pose_worked_by_hand() -> None:
    """A rover 2 m ahead, 3 m to the right, 1 m up, that turned 90° to the right."""
    half = np.sqrt(0.5)
    # z down: a turn to the right is positive about z.
    pose = rep103_pose(Pose(np.array([2.0, 3.0, -1.0]), np.array([half, 0, 0, half])))
    np.testing.assert_allclose(pose.position, [2, -3, 1])
    # z up: the same turn is negative, and what was ahead (x) now points along −y, to the right.
    np.testing.assert_allclose(pose.quaternion, [half, 0, 0, -half])
    ahead = rotation_matrix(pose.quaternion) @ [1, 0, 0]
    np.testing.assert_allclose(ahead, [0, -1, 0], atol=1e-12)
    # Nose up by 30°: about the body's y (right) it is positive with z down.
    up = rep103_pose(Pose(np.zeros(3), np.array([np.cos(np.pi / 12), 0, np.sin(np.pi / 12), 0])))
    climb = rotation_matrix(up.quaternion) @ [1, 0, 0]
    np.testing.assert_allclose(climb, [np.cos(np.pi / 6), 0, 0.5], atol=1e-12)
    np.testing.assert_allclose(rep103_vector(np.array([1.0, 2.0, 3.0])), [1, -2, -3])


def test_cameras_stand_where_lusnar_says() -> None:
    left, right = camera_pose(LUSNAR_MOUNTING), camera_pose(LUSNAR_MOUNTING, right=True)
    np.testing.assert_allclose(left.position, [1, 0.155, 1.5])
    np.testing.assert_allclose(right.position, [1, -0.155, 1.5])
    # Published, z down, xyzw: (.406, .406, .579, .579); half a turn about x before it.
    published = np.array([0.406, -0.579, 0.579, -0.406])
    published /= np.linalg.norm(published)
    np.testing.assert_allclose(left.quaternion, published, atol=1e-12)
    axes = rotation_matrix(left.quaternion)
    np.testing.assert_allclose(axes[:, 0], [0, -1, 0], atol=1e-12)  # image right is the rover's
    assert axes[2, 2] == pytest.approx(-np.sin(np.radians(19.92)), abs=1e-3)  # looks down
    rolled = Mounting(1.1, 25.0, 3.0)
    assert rotation_matrix(camera_pose(rolled).quaternion)[2, 0] < 0  # its right side hangs
    np.testing.assert_allclose(mounting_of(camera_pose(rolled)), rolled)


def test_static_transforms_link_the_sensors(bag: Path) -> None:
    (message,) = read(bag)['/tf_static']
    links = {t.child_frame_id: t.header.frame_id for t in message.transforms}
    assert links == {
        'odom': 'map',
        'camera_left_optical': 'base_link',
        'camera_right_optical': 'base_link',
        'lidar': 'base_link',
        'imu': 'base_link',
    }
    with BagReader(bag) as reader:
        np.testing.assert_allclose(LusnarBag(reader).mounting() or (), LUSNAR_MOUNTING)


def test_lidar_in_the_camera_lies_on_the_depth_image(scene: Scene, bag: Path) -> None:
    """Points through /tf_static and K land where the depth image has them."""
    found = read(bag)
    (static,) = found['/tf_static']
    poses = {}
    for t in static.transforms:
        q, p = t.transform.rotation, t.transform.translation
        poses[t.child_frame_id] = (rotation_matrix([q.w, q.x, q.y, q.z]), [p.x, p.y, p.z])
    raw = np.frombuffer(found['/lidar/points'][0].data, '<f4').reshape(-1, 4)[:, :3]
    rotation, position = poses['camera_left_optical']
    seen = (raw + poses['lidar'][1] - position) @ rotation
    seen = seen[(seen[:, 2] > 1) & (seen[:, 2] < 15)]
    camera, depth = scene.camera, scene[0].depth
    u = np.rint(camera.fx * seen[:, 0] / seen[:, 2] + camera.cx).astype(int)
    v = np.rint(camera.fy * seen[:, 1] / seen[:, 2] + camera.cy).astype(int)
    inside = (u >= 0) & (u < SIZE) & (v >= 0) & (v < SIZE)
    assert inside.sum() > 50
    error = np.abs(depth[v[inside], u[inside]] / seen[inside, 2] - 1)
    assert np.median(error) < 0.05


def test_a_trajectory_of_lusnar_gives_consistent_odometry_and_tf(tmp_path: Path) -> None:
    """A real trajectory drives the rover: /tf, /ground_truth/odometry and the file agree."""
    file = POSES / 'Moon_1.csv'
    if not file.is_file():
        pytest.skip(f'{file} is not here')
    course = read_trajectory(file)
    generate_scene(tmp_path / 'scene', MoonConfig(seed=2, size=32, course=course), 4)
    convert_scene(Scene(tmp_path / 'scene'), tmp_path / 'bag')
    found = read(tmp_path / 'bag')
    rows = np.loadtxt(file, delimiter=',', skiprows=1, max_rows=4)
    stamps = np.loadtxt(file, np.int64, delimiter=',', skiprows=1, max_rows=4, usecols=0)
    assert [stamp(m) for m in found['/ground_truth/odometry']] == stamps.tolist()
    for row, odometry, tf in zip(rows, found['/ground_truth/odometry'], found['/tf'], strict=True):
        (transform,) = tf.transforms
        assert (odometry.header.frame_id, odometry.child_frame_id) == ('odom', 'base_link')
        assert transform.header == odometry.header
        assert transform.child_frame_id == odometry.child_frame_id
        p, t = odometry.pose.pose.position, transform.transform.translation
        assert (p.x, p.y, p.z) == (t.x, t.y, t.z)
        assert odometry.pose.pose.orientation == transform.transform.rotation
        # Heights follow the generated ground; the way over it is LuSNAR's, mirrored to y left.
        np.testing.assert_allclose([p.x, p.y], [row[1], -row[2]], atol=0.02)


def test_every_start_and_duration_choose_frames(scene: Scene, tmp_path: Path) -> None:
    first = scene.stamps_ns[0]
    convert_scene(scene, tmp_path / 'every', every=2)
    convert_scene(scene, tmp_path / 'part', start_s=0.1, duration_s=0.12)
    found = read(tmp_path / 'every')
    assert [stamp(m) for m in found['/camera/left/label']] == list(scene.stamps_ns[::2])
    inertial = [stamp(m) for m in found['/imu/data']]  # also those between the frames left out
    assert inertial == sorted(set(inertial))
    assert len(inertial) == sum(len(frame.imu.stamp_ns) for frame in scene[:3])
    stamps = [stamp(m) for m in read(tmp_path / 'part')['/camera/left/label']]
    assert stamps == [s for s in scene.stamps_ns if first + 10**8 <= s <= first + 22 * 10**7]
    assert stamps
    with pytest.raises(BagError, match='no frame in this range'):
        convert_scene(scene, tmp_path / 'none', start_s=1e4)
    assert not (tmp_path / 'none').exists()


def test_compressed_images_decode_to_the_same(scene: Scene, tmp_path: Path) -> None:
    convert_scene(scene, tmp_path / 'bag', compressed=True)
    found = read(tmp_path / 'bag')
    assert '/camera/left/image_raw' not in found
    message = found['/camera/left/image_raw/compressed'][0]
    assert message.format == 'rgb8; png compressed bgr8'
    pixels = cv2.imdecode(message.data, cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(pixels[..., ::-1], scene[0].image)


def test_a_scene_that_lacks_modalities_gives_a_bag_that_does(scene: Scene, tmp_path: Path) -> None:
    copy = tmp_path / 'Moon_1'
    shutil.copytree(scene.path, copy)
    for name in ('LiDAR', 'image1'):
        shutil.rmtree(copy / name)
    for name in ('imu.txt', 'gt.txt'):
        (copy / name).unlink()
    convert_scene(Scene(copy), tmp_path / 'bag')
    assert set(read(tmp_path / 'bag')) == {
        '/camera/left/camera_info', '/camera/left/depth', '/camera/left/image_raw',
        '/camera/left/label', '/tf_static',
    }  # fmt: skip


def test_an_interrupted_conversion_leaves_nothing(scene: Scene, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert total == FRAMES
        if done == 2:
            (beside,) = tmp_path.iterdir()
            assert beside.name.startswith('.')
            assert not list(beside.rglob('metadata.yaml'))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_scene(scene, tmp_path / 'bag', progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_convert_says_what_is_wrong(
    scene: Scene, bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['bag', 'convert', str(scene.path), str(bag)]) == 1
    assert capsys.readouterr().err == f'lunar-perception bag: {bag}: exists; name another\n'
    copy = tmp_path / 'Moon_1'
    shutil.copytree(scene.path, copy)
    damaged = sorted((copy / 'image0' / 'label').iterdir())[2]
    damaged.write_bytes(damaged.read_bytes()[:40])
    assert main(['bag', 'convert', str(copy), str(tmp_path / 'bag')]) == 1
    assert str(damaged) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['Moon_1']


@pytest.fixture(scope='module')
def scene_metrics(
    scene: Scene, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Return what `evaluate` says of the scene."""
    return evaluate(scene.path, weights, tmp_path_factory.mktemp('evaluated'))


def evaluate(source: Path, weights: Path, output: Path, status: int = 0) -> dict[str, Any]:
    arguments = ['evaluate', str(source), '--output', str(output), '--model', str(weights)]
    assert main(arguments) == status
    page = (output / 'report.html').read_text()
    metrics: dict[str, Any] = json.loads((output / 'metrics.json').read_text())
    assert ('These results are partial' in page) == ('partial' in metrics)
    return metrics


def test_evaluating_the_bag_equals_evaluating_the_scene(
    bag: Path, weights: Path, scene_metrics: dict[str, Any], tmp_path: Path
) -> None:
    metrics = evaluate(bag, weights, tmp_path)
    assert metrics.pop('missing_pairs') == {}
    assert metrics == scene_metrics
    assert metrics['frames'] == FRAMES
    assert metrics['reference_rows']['flat_plane']['abs_rel'] < 1
    assert metrics['ece'] is not None and metrics['ause'] is not None


def test_a_cut_off_bag_is_evaluated_as_far_as_it_goes(
    scene: Scene, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is whole is read, from the bag's folder and from the file alone."""
    with LusnarSceneWriter(tmp_path / 'Moon_1') as large:  # a chunk is 1 MiB
        for frame in scene:
            left, depth, label = (
                array.repeat(4, axis=0).repeat(4, axis=1)
                for array in (frame.image, frame.depth, frame.label)
            )
            large.write_frame(frame.stamp_ns, left=left, right=left, depth=depth, label=label)
    convert_scene(Scene(tmp_path / 'Moon_1'), tmp_path / 'cut')
    file = tmp_path / 'cut' / 'cut.mcap'
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * 0.7)])
    for source in (file.parent, file):
        metrics = evaluate(source, weights, tmp_path / 'out', status=1)
        assert 0 < metrics['frames'] < FRAMES
        assert 'cut.mcap is cut off' in metrics['partial']
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith(f'lunar-perception evaluate: {source}: cut.mcap is cut off')
        assert f'{metrics["frames"]} frames were scored' in error


def test_a_damaged_scene_is_evaluated_as_far_as_it_goes(
    scene: Scene, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(scene.path, tmp_path / 'Moon_1')
    damaged = sorted((copy / 'image0' / 'depth').iterdir())[2]
    damaged.write_bytes(damaged.read_bytes()[:40])
    metrics = evaluate(copy, weights, tmp_path / 'out', status=1)
    assert metrics['frames'] == 2
    assert str(damaged) in metrics['partial']
    assert '2 frames were scored' in capsys.readouterr().err


@pytest.mark.parametrize('damage', ['metadata', 'empty', 'text', 'nothing', 'sqlite'])
def test_a_damaged_bag_is_one_clear_line(
    bag: Path, weights: Path, damage: str, scene: Scene, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = shutil.copytree(bag, tmp_path / 'bad')
    file = folder / 'moon_bag.mcap'
    if damage == 'metadata':
        (folder / 'metadata.yaml').unlink()
        told = f'metadata.yaml is missing; name {file} itself, or run "ros2 bag reindex"'
    elif damage == 'empty':
        file.write_bytes(b'')
        told = 'can not be read'
    elif damage == 'text':
        (folder / 'metadata.yaml').write_text('rosbag2_bagfile_information: {version: [')
        told = 'can not be read'
    elif damage == 'nothing':
        shutil.rmtree(folder)
        folder.mkdir()
        told = 'no LuSNAR scene'
    else:
        shutil.rmtree(folder)
        convert_scene(scene, folder, storage='sqlite3')
        (database,) = folder.glob('*.db3')
        database.write_bytes(database.read_bytes()[:5000])
        told = 'can not be read'
    output = tmp_path / 'out'
    arguments = ['evaluate', str(folder), '--output', str(output), '--model', str(weights)]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert told in error and str(folder) in error
    assert len(error.strip().splitlines()) == 1
    assert not output.exists()


def copied(source: Path, target: Path, leave_out: set[int], **changes: Any) -> None:
    """Copy a bag message by message, but for some positions; sqlite3, zstd messages, QoS lost."""
    with (
        Reader(source) as reader,
        Writer(target, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer,
    ):
        connections = {
            c.id: writer.add_connection(
                c.topic,
                changes.get(c.topic, c.msgtype),
                msgdef=c.msgdef.data,
                rihs01=c.digest or 'RIHS01_0',
            )
            for c in reader.connections
            if isinstance(c.ext, ConnectionExtRosbag2)
        }
        for place, (connection, stamp_ns, data) in enumerate(reader.messages()):
            if place not in leave_out:
                writer.write(connections[connection.id], stamp_ns, data)


def places(bag: Path, topic: str) -> Iterator[int]:
    """Yield the positions of a topic's messages."""
    with Reader(bag) as reader:
        for place, (connection, _, _) in enumerate(reader.messages()):
            if connection.topic == topic:
                yield place


def test_missing_pairs_are_named(
    bag: Path, scene: Scene, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = [list(places(bag, '/camera/left/label'))[1], list(places(bag, '/camera/left/depth'))[2]]
    copied(bag, tmp_path / 'bag', set(gone))
    metrics = evaluate(tmp_path / 'bag', weights, tmp_path / 'out', status=1)
    assert metrics['frames'] == FRAMES - 2
    assert metrics['missing_pairs'] == {
        str(scene.stamps_ns[1]): ['true label'],
        str(scene.stamps_ns[2]): ['true depth'],
    }
    assert '2 frames lack an image or truth' in capsys.readouterr().err
    assert str(scene.stamps_ns[2]) in (tmp_path / 'out' / 'report.html').read_text()


def test_a_truth_of_unknown_type_is_told(
    bag: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown types elsewhere do no harm; where truth is due they are named."""
    copied(bag, tmp_path / 'fine', set(), **{'/imu/data': 'acme_msgs/msg/Gyro'})
    evaluate(tmp_path / 'fine', weights, tmp_path / 'out')
    copied(bag, tmp_path / 'bad', set(), **{'/camera/left/depth': 'acme_msgs/msg/Depth'})
    arguments = ['evaluate', str(tmp_path / 'bad'), '--output', str(tmp_path / 'none')]
    assert main([*arguments, '--model', str(weights)]) == 1
    assert '/camera/left/depth is no acme_msgs/msg/Depth' in capsys.readouterr().err


@pytest.mark.parametrize('mode', [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_zstd_bags_of_others_are_read(bag: Path, mode: CompressionMode, tmp_path: Path) -> None:
    writer = Writer(tmp_path / 'bag', version=8, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    expected = []
    with BagReader(bag) as reader, writer:
        connections = {
            topic.name: writer.add_connection(topic.name, topic.msgtype, typestore=TYPES)
            for topic in reader.topics.values()
        }
        for message in reader.messages():
            writer.write(connections[message.topic], message.stamp_ns, message.data)
            expected.append(message)
    with BagReader(tmp_path / 'bag') as reader:
        assert list(reader.messages()) == expected
        labels = {'/camera/left/label'}
        some = [message for message in expected if message.topic in labels]
        assert list(reader.messages(labels)) == some


def test_pairing_is_exact_and_bounded() -> None:
    pairing: StampPairing[int] = StampPairing(['a', 'b'], most_waiting=2)
    assert pairing.add('a', 10, 1) is None
    assert pairing.add('b', 11, 2) is None  # a nanosecond off is another frame
    assert pairing.add('b', 10, 3) == {'a': 1, 'b': 3}
    assert pairing.add('a', 12, 4) is None
    assert pairing.add('a', 13, 5) is None
    assert pairing.missing == {11: ('a',)}
    assert pairing.add('a', 11, 6) is None  # too late; it stays missing
    pairing.flush()
    assert pairing.missing == {11: ('a',), 12: ('b',), 13: ('b',)}
    assert pairing.waiting == 0
