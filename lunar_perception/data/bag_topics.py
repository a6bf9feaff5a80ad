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

"""The topics of a converted LuSNAR scene, and the stamps in their messages."""

import struct

IMAGE = {'left': '/camera/left/image_raw', 'right': '/camera/right/image_raw'}
CAMERA_INFO = {'left': '/camera/left/camera_info', 'right': '/camera/right/camera_info'}
COMPRESSED_SUFFIX = '/compressed'
DEPTH = '/camera/left/depth'
LABEL = '/camera/left/label'
LIDAR = '/lidar/points'
IMU = '/imu/data'
ODOMETRY = '/ground_truth/odometry'
TF, TF_STATIC = '/tf', '/tf_static'

PROCESSED = '/evaluation/processed'
"""Where the evaluator says how many frames it has scored, for the player to wait for."""

FRAME_TOPICS = {
    IMAGE['left']: 'image',
    IMAGE['left'] + COMPRESSED_SUFFIX: 'image',
    LABEL: 'true label',
    DEPTH: 'true depth',
}
"""What a frame needs to be scored, by topic; an image comes in one form or the other."""

FRAME_PARTS = frozenset(FRAME_TOPICS.values())


def header_stamp_ns(data: bytes | memoryview) -> int:
    """Return the stamp of a serialised (CDR) message that begins with a std_msgs/Header."""
    sec, nanosec = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return int(sec) * 10**9 + int(nanosec)
