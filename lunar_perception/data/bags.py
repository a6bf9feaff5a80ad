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

"""Frames with their truth from a LuSNAR bag, brought together by exact stamp."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from lunar_perception.camera import PinholeCamera
from lunar_perception.data import bag_topics as topics
from lunar_perception.data.bag_messages import image_pixels, rgb_image, TYPESTORE
from lunar_perception.data.bag_reader import BagError, BagMessage, BagReader
from lunar_perception.data.lusnar_format import Mounting, Pose
from lunar_perception.data.pairing import StampPairing
from lunar_perception.data.ros_frames import BASE_LINK, LEFT_OPTICAL, mounting_of
import numpy as np


@dataclass(frozen=True)
class BagFrame:
    """
    A left image and its truth.

    Fields:
        stamp_ns: the stamp that image, depth and label share.
        image: (H, W, 3) uint8 RGB.
        camera: the camera that took it.
        depth: (H, W) float32 metres, +Inf for sky.
        label: (H, W) uint8 ids.

    """

    stamp_ns: int
    image: np.ndarray
    camera: PinholeCamera
    depth: np.ndarray
    label: np.ndarray


class LusnarBag:
    """
    The frames of a converted scene, in order of time.

    Raises BagError when the bag lacks a topic that frames need.

    Fields:
        missing: what a frame lacked that could not be brought together, by stamp.

    """

    def __init__(self, reader: BagReader) -> None:
        self._reader = reader
        self.missing: dict[int, tuple[str, ...]] = {}
        there = {part for name, part in topics.FRAME_TOPICS.items() if name in reader.topics}
        lacking = sorted(topics.FRAME_PARTS - there)
        if topics.CAMERA_INFO['left'] not in reader.topics:
            lacking.append('CameraInfo')
        if lacking:
            raise BagError(
                reader.path,
                f"nothing to evaluate: no {', no '.join(lacking)} under LuSNAR's topics "
                f'({topics.CAMERA_INFO["left"]}, {", ".join(topics.FRAME_TOPICS)})',
            )

    def frames(self) -> Generator[BagFrame, None, None]:
        """Yield the frames; BagError where the bag can be read no further."""
        pairing: StampPairing[BagMessage] = StampPairing(topics.FRAME_PARTS)
        self.missing = pairing.missing
        camera_topic = topics.CAMERA_INFO['left']
        camera: PinholeCamera | None = None
        try:
            for message in self._reader.messages([camera_topic, *topics.FRAME_TOPICS]):
                if message.topic == camera_topic:
                    camera = _camera(self._decoded(message))
                    continue
                part = topics.FRAME_TOPICS[message.topic]
                stamp_ns = topics.header_stamp_ns(message.data)
                parts = pairing.add(part, stamp_ns, message)
                if parts is None:
                    continue
                if camera is None:
                    raise BagError(self._reader.path, f'no CameraInfo before frame {stamp_ns}')
                yield self._frame(stamp_ns, camera, parts)
        finally:
            pairing.flush()

    def mounting(self) -> Mounting | None:
        """Return how the left camera stands on the rover; None when /tf_static does not say."""
        if topics.TF_STATIC not in self._reader.topics:
            return None
        for message in self._reader.messages([topics.TF_STATIC]):
            for transform in self._decoded(message).transforms:
                if (transform.header.frame_id, transform.child_frame_id) == (
                    BASE_LINK,
                    LEFT_OPTICAL,
                ):
                    t, q = transform.transform.translation, transform.transform.rotation
                    pose = Pose(np.array([t.x, t.y, t.z]), np.array([q.w, q.x, q.y, q.z]))
                    return mounting_of(pose)
        return None

    def _frame(
        self, stamp_ns: int, camera: PinholeCamera, parts: dict[str, BagMessage]
    ) -> BagFrame:
        decoded = {part: self._decoded(message) for part, message in parts.items()}
        try:
            image = rgb_image(decoded['image'])
            label = image_pixels(decoded['true label'])
            depth = image_pixels(decoded['true depth']).astype(np.float32, copy=False)
        except ValueError as error:
            raise BagError(self._reader.path, f'frame {stamp_ns}: {error}') from error
        return BagFrame(stamp_ns, image, camera, depth, label)

    def _decoded(self, message: BagMessage) -> Any:
        kind = self._reader.topics[message.topic].msgtype
        try:
            return TYPESTORE.deserialize_cdr(message.data, kind)
        except Exception as error:  # of a type or content that rosbags can not read
            raise BagError(
                self._reader.path, f'a message on {message.topic} is no {kind}: {error}'
            ) from error


def _camera(info: Any) -> PinholeCamera:
    k = info.k
    return PinholeCamera(info.width, info.height, *map(float, (k[0], k[4], k[2], k[5])))
