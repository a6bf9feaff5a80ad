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
"""A small LuSNAR scene of random arrays, for tests of its readers."""

from pathlib import Path

from lunar_perception.data.lusnar_format import ImuSamples, LidarScan, Pose
from lunar_perception.data.lusnar_writer import LusnarSceneWriter
from lunar_perception.taxonomy import SKY
import numpy as np

START = 1693274724419036672
GAP = 108_302_336


def make_frame(seed: int, height: int = 12, width: int = 16) -> dict:
    """Return the arrays of one random frame; the upper third is sky."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, (height, width), np.uint8)
    depth = rng.uniform(0.5, 90, (height, width)).astype(np.float32)
    label[: height // 3], depth[: height // 3] = SKY, np.inf
    points = rng.uniform(-30, 30, (rng.integers(0, 50), 3)).astype(np.float32)
    quaternion = rng.normal(size=4)
    return {
        'left': rng.integers(0, 256, (height, width, 3), np.uint8),
        'right': rng.integers(0, 256, (height, width, 3), np.uint8),
        'depth': depth,
        'label': label,
        'pose': Pose(rng.normal(size=3) * 50, quaternion / np.linalg.norm(quaternion)),
        'lidar': LidarScan(points, rng.integers(0, 3, len(points), np.uint8)),
    }


def write_scene(path: Path, frames: int = 3, **size: int) -> list[dict]:
    """Write a scene of random frames, with inertial samples, and return the frames."""
    written = [make_frame(seed, **size) for seed in range(frames)]
    with LusnarSceneWriter(path) as writer:
        for index, frame in enumerate(written):
            writer.write_frame(START + index * GAP, **frame)
        stamps = START - GAP + np.arange(10 * frames, dtype=np.int64) * 10_000_000
        values = np.random.default_rng(9).normal(size=(len(stamps), 6))
        writer.add_imu(ImuSamples(stamps, values[:, :3], values[:, 3:]))
    return written
