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

"""A LuSNAR scene as a rosbag2, in the axes and frames of REP 103 and REP 105."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
import os
from pathlib import Path
import shutil
from typing import Any, Literal, NamedTuple

from lunar_perception.atomic import encode_png, TEMPORARY_SUFFIX
from lunar_perception.data import bag_messages as messages
from lunar_perception.data import bag_topics as topics
from lunar_perception.data import ros_frames as frames
from lunar_perception.data.bag_messages import TYPESTORE
from lunar_perception.data.bag_reader import BagError
from lunar_perception.data.lusnar_format import IMU_POSITION, LIDAR_POSITION, Pose
from lunar_perception.data.lusnar_scene import Frame, Scene
import numpy as np
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer

STORAGES = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}

METADATA_VERSION: Literal[9] = 9
"""What ROS 2 Jazzy's rosbag2 writes and reads."""

_INFINITE = QosTime(9223372036, 854775807)  # RMW_DURATION_INFINITE


class _Present(NamedTuple):
    """Which of the modalities that LuSNAR's scenes may lack are there."""

    right: bool
    lidar: bool
    imu: bool
    poses: bool


def convert_scene(
    scene: Scene,
    bag: str | Path,
    *,
    storage: str = 'mcap',
    every: int = 1,
    start_s: float = 0.0,
    duration_s: float | None = None,
    compressed: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> int:
    """
    Write a scene's frames as a rosbag2 folder `bag`, and return their number.

    `storage`: 'mcap' or 'sqlite3'; `every`: take each n-th frame; `start_s`, `duration_s`:
    seconds after the first frame, and from there; `compressed`: images as PNG CompressedImage
    under …/compressed. Two frames at a time are in memory. Messages are recorded at their own
    stamps; of a frame, the left image comes last. What the scene lacks (right images, LiDAR,
    inertial samples, poses) the bag lacks. The folder appears whole or not at all. `progress` is
    called after each frame with the frames done and their total. Raises BagError when `bag`
    exists or the range holds no frame, LusnarError for a damaged scene.
    """
    bag = Path(bag)
    if bag.exists():
        raise BagError(bag, 'exists; name another')
    chosen = _frames_between(scene, start_s, duration_s)[::every]
    if not len(chosen):
        raise BagError(bag, f'scene {scene.name} has no frame in this range of time')
    with (
        _whole_folder(bag) as folder,
        Writer(folder, version=METADATA_VERSION, storage_plugin=STORAGES[storage]) as writer,
    ):
        conversion = _Conversion(writer, scene, compressed)
        conversion.write_static(chosen.stamps_ns[0])
        for done, frame in enumerate(conversion.loaded(chosen), 1):
            conversion.write(frame)
            progress(done, len(chosen))
    return len(chosen)


class _Conversion:
    """Writes the messages of one frame after another."""

    def __init__(self, writer: Writer, scene: Scene, compressed: bool) -> None:
        self._writer = writer
        self._scene = scene
        self._compressed = compressed
        self._connections: dict[str, Connection] = {}
        self._previous_ns = 0
        layout, path = scene.layout, scene.path
        self._present = _Present(
            right=(path / layout.right).is_dir(),
            lidar=(path / layout.lidar).is_dir(),
            imu=(path / layout.imu).is_file(),
            poses=(path / layout.poses).is_file(),
        )

    def write_static(self, stamp_ns: int) -> None:
        """
        Write where the sensors sit on the rover, and that odom starts where the map does.

        The stamp is the bag's first: inertial samples count from here.
        """
        self._previous_ns = stamp_ns - 1
        identity = np.array([1.0, 0.0, 0.0, 0.0])
        mounting = self._scene.mounting
        at_rest = {
            frames.LEFT_OPTICAL: frames.camera_pose(mounting),
            frames.RIGHT_OPTICAL: frames.camera_pose(mounting, right=True),
            frames.LIDAR: Pose(frames.rep103_vector(np.array(LIDAR_POSITION)), identity),
            frames.IMU: Pose(frames.rep103_vector(np.array(IMU_POSITION)), identity),
        }
        start = Pose(np.zeros(3), identity)
        transforms = [messages.transform(stamp_ns, frames.MAP, frames.ODOM, start)]
        transforms += [
            messages.transform(stamp_ns, frames.BASE_LINK, child, pose)
            for child, pose in at_rest.items()
        ]
        self._send(topics.TF_STATIC, stamp_ns, messages.tf(transforms))

    def loaded(self, scene: Scene) -> Iterator[Frame]:
        """Yield the frames; while one is being written, the next is read and decoded."""
        with ThreadPoolExecutor(1) as pool:
            following: Future[Frame] | None = None
            for frame in scene:
                current, following = following, pool.submit(self._load, frame)
                if current is not None:
                    yield current.result()
            if following is not None:
                yield following.result()

    def _load(self, frame: Frame) -> Frame:
        _ = frame.image, frame.depth, frame.label  # each is kept by the frame
        if self._present.right:
            _ = frame.right_image
        if self._present.lidar:
            _ = frame.lidar
        return frame

    def write(self, frame: Frame) -> None:
        """Write all of one frame, what it is judged by first and its left image last."""
        stamp = frame.stamp_ns
        if self._present.imu:
            self._write_imu(stamp)
        if self._present.poses:
            pose = frames.rep103_pose(frame.pose)
            self._send(topics.ODOMETRY, stamp, messages.odometry(stamp, pose))
            transform = messages.transform(stamp, frames.ODOM, frames.BASE_LINK, pose)
            self._send(topics.TF, stamp, messages.tf([transform]))
        if self._present.lidar:
            points = frames.rep103_vector(frame.lidar.points)
            cloud = messages.lidar(stamp, frames.LIDAR, points, frame.lidar.label)
            self._send(topics.LIDAR, stamp, cloud)
        left = frames.LEFT_OPTICAL
        self._send(topics.DEPTH, stamp, messages.image(stamp, left, frame.depth, '32FC1'))
        self._send(topics.LABEL, stamp, messages.image(stamp, left, frame.label, 'mono8'))
        if self._present.right:
            self._write_image('right', frames.RIGHT_OPTICAL, stamp, frame.right_image)
        self._write_image('left', left, stamp, frame.image)
        self._previous_ns = stamp

    def _write_image(self, side: str, frame_id: str, stamp: int, image: np.ndarray) -> None:
        info = messages.camera_info(stamp, frame_id, self._scene.camera, right=side == 'right')
        self._send(topics.CAMERA_INFO[side], stamp, info)
        topic = topics.IMAGE[side]
        if self._compressed:
            png = messages.compressed_image(stamp, frame_id, encode_png(image))
            self._send(topic + topics.COMPRESSED_SUFFIX, stamp, png)
        else:
            self._send(topic, stamp, messages.image(stamp, frame_id, image, 'rgb8'))

    def _write_imu(self, until_ns: int) -> None:
        """Write the samples since the frame before, which may not be the scene's."""
        scene = self._scene
        first, last = np.searchsorted(scene.all_stamps_ns, [self._previous_ns, until_ns], 'right')
        for image_ns in scene.all_stamps_ns[first:last]:
            for stamp, rate, acceleration in zip(*scene.imu_until(image_ns), strict=True):
                if self._previous_ns < stamp:
                    message = messages.imu(
                        int(stamp),
                        frames.IMU,
                        frames.rep103_vector(rate),
                        frames.rep103_vector(acceleration),
                    )
                    self._send(topics.IMU, int(stamp), message)

    def _send(self, topic: str, stamp_ns: int, message: Any) -> None:
        kind = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=TYPESTORE, offered_qos_profiles=[_qos(topic)]
            )
        data = TYPESTORE.serialize_cdr(message, kind)
        self._writer.write(self._connections[topic], stamp_ns, data)


def _frames_between(scene: Scene, start_s: float, duration_s: float | None) -> Scene:
    stamps = np.array(scene.stamps_ns)
    first_ns = stamps[0] + round(start_s * 1e9)
    first = int(np.searchsorted(stamps, first_ns))
    last = len(stamps)
    if duration_s is not None:
        last = int(np.searchsorted(stamps, first_ns + round(duration_s * 1e9), 'right'))
    return scene[first:last]


@contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """Yield a folder of the same name elsewhere; move it to `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}')
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        # rosbags names the files inside after the folder, so that keeps its name.
        yield temporary / path.name
        os.rename(temporary / path.name, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _qos(topic: str) -> Qos:
    latched = topic == topics.TF_STATIC
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1 if latched else 100 if topic == topics.TF else 10,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=_INFINITE,
        lifespan=_INFINITE,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_INFINITE,
        avoid_ros_namespace_conventions=False,
    )
