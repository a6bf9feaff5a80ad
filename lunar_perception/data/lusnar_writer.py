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

"""Scenes written in the layout that LuSNAR ships, so that other LuSNAR readers read them too."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
from lunar_perception.atomic import (
    TEMPORARY_SUFFIX,
    write_bytes,
    write_json,
    write_png,
    write_text,
)
from lunar_perception.camera import LUSNAR_CAMERA, PinholeCamera
from lunar_perception.data.lusnar_format import (
    CAMERA_FILE,
    COLOR_INDEX,
    color_label,
    DEPTH_INDEX,
    ImuSamples,
    LIDAR_CATEGORIES,
    LIDAR_INDEX,
    LIDAR_POSITION,
    LidarScan,
    LUSNAR_MOUNTING,
    Mounting,
    Pose,
    rotation_matrix,
    SHIPPED_LAYOUT,
    SKY_DEPTH,
)
from lunar_perception.data.pfm import write_pfm
from lunar_perception.taxonomy import LUNAR_TERRAIN
import numpy as np

_POSE_HEADER = (
    '#timestamp [ns],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y [],'
    'q_RS_z [],v_RS_R_x [m s^-1],v_RS_R_y [m s^-1],v_RS_R_z [m s^-1],b_w_RS_S_x [rad s^-1],'
    'b_w_RS_S_y [rad s^-1],b_w_RS_S_z [rad s^-1],b_a_RS_S_x [m s^-2],b_a_RS_S_y [m s^-2],'
    'b_a_RS_S_z [m s^-2]'
)
_IMU_HEADER = (
    '#timestamp [ns],w_RS_S_x [rad s^-1],w_RS_S_y [rad s^-1],w_RS_S_z [rad s^-1],'
    'a_RS_S_x [m s^-2],a_RS_S_y [m s^-2],a_RS_S_z [m s^-2]'
)
_CATEGORY_BY_ID = {LUNAR_TERRAIN.id_of(name): number for number, name in LIDAR_CATEGORIES.items()}


class LusnarSceneWriter:
    """
    Writes one scene frame by frame; the index files come last, when the `with` block ends well.

    A frame's left image is written after everything else of that frame, and the scene's
    `color_timestamp.txt` after everything else of the scene: what was interrupted shows neither.
    To go on after an interruption, open the same folder again, ask `has_frame`, and only
    `add_pose` for what is there. Processes may share the frames of a scene between them,
    as long as one alone ends its `with` block, after the others. The same calls give the same
    bytes.

    Depth rows go to disk from top to bottom, sky as 65504.0.
    """

    def __init__(
        self,
        scene: str | Path,
        camera: PinholeCamera | None = None,
        mounting: Mounting = LUSNAR_MOUNTING,
    ) -> None:
        """
        Write into folder `scene`.

        `camera` None = LuSNAR's; another one, or another mounting, is told in camera.json.
        """
        self.path = Path(scene)
        self._camera = camera
        self._mounting = mounting
        self._poses: dict[int, str] = {}
        self._lidar_poses: dict[int, str] = {}
        self._imu: list[str] = []

    def __enter__(self) -> 'LusnarSceneWriter':
        return self

    def __exit__(self, error_type: object, *_: object) -> None:
        if error_type is None:
            self._finish()

    @property
    def finished(self) -> bool:
        """Whether the scene on disk is complete."""
        return (self.path / COLOR_INDEX).is_file()

    def has_frame(self, stamp_ns: int) -> bool:
        """Whether every file of the frame is on disk."""
        return self._file(SHIPPED_LAYOUT.color, stamp_ns, 'png').is_file()

    def write_frame(
        self,
        stamp_ns: int,
        *,
        left: np.ndarray,
        depth: np.ndarray,
        label: np.ndarray,
        right: np.ndarray | None = None,
        pose: Pose | tuple[Sequence[float], Sequence[float]] | None = None,
        lidar: LidarScan | tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        """
        Write what belongs to one frame.

        `left`, `right`: (H, W, 3) uint8 RGB; `depth`: (H, W) float32 metres along Z, +Inf for
        sky; `label`: (H, W) uint8 ids; `pose`: position (3,) and quaternion (4,) wxyz of the
        body; `lidar`: points (N, 3) metres in the LiDAR's frame and their label ids (N,), of
        which the format knows regolith, crater and rock. Raises ValueError for sizes that
        differ, label ids that the format does not know, and NaN.
        """
        if not left.shape[:2] == depth.shape == label.shape:
            raise ValueError(
                f'left image {left.shape[:2]}, depth {depth.shape} and label {label.shape} differ '
                'in size'
            )
        if right is not None and right.shape != left.shape:
            raise ValueError(f'right image {right.shape} and left image {left.shape} differ')
        if np.isnan(depth).any():
            raise ValueError('LuSNAR has no code for unknown depth (NaN)')
        scan = None if lidar is None else _lidar_text(*lidar)
        label_color = color_label(label)

        (self.path / COLOR_INDEX).unlink(missing_ok=True)
        write_pfm(
            self._file(SHIPPED_LAYOUT.depth, stamp_ns, 'pfm'),
            np.where(depth < SKY_DEPTH, depth, np.float32(SKY_DEPTH)),
            top_to_bottom=True,
        )
        write_png(self._file(SHIPPED_LAYOUT.label, stamp_ns, 'png'), label_color)
        if right is not None:
            write_png(self._file(SHIPPED_LAYOUT.right, stamp_ns, 'png'), _opaque(right))
        if scan is not None:
            write_bytes(self._file(SHIPPED_LAYOUT.lidar, stamp_ns, 'txt'), scan)
        if pose is not None:
            self.add_pose(stamp_ns, pose)
        write_png(self._file(SHIPPED_LAYOUT.color, stamp_ns, 'png'), _opaque(left))

    def add_pose(
        self,
        stamp_ns: int,
        pose: Pose | tuple[Sequence[float], Sequence[float]],
        velocity: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        """Add a row to gt.txt: pose as in `write_frame`, world velocity in m/s, biases zero."""
        position = np.asarray(pose[0], float)
        quaternion = np.asarray(pose[1], float)
        zeros = (0.0,) * 6
        self._poses[stamp_ns] = _row(stamp_ns, *position, *quaternion, *velocity, *zeros)
        lidar_position = position + rotation_matrix(quaternion) @ LIDAR_POSITION
        self._lidar_poses[stamp_ns] = _row(stamp_ns, *lidar_position, *quaternion)

    def add_imu(self, samples: ImuSamples) -> None:
        """Append samples, in order of time, to imu.txt."""
        for stamp, rate, acceleration in zip(*samples, strict=True):
            self._imu.append(_row(stamp, *rate, *acceleration))

    def _file(self, folder: str, stamp_ns: int, suffix: str) -> Path:
        return self.path / folder / f'{stamp_ns:019d}.{suffix}'

    def _finish(self) -> None:
        stamps = sorted(int(file.stem) for file in self._files(SHIPPED_LAYOUT.color, '*.png'))
        scans = {int(file.stem) for file in self._files(SHIPPED_LAYOUT.lidar, '[0-9]*.txt')}
        for stale in self.path.rglob(f'.*{TEMPORARY_SUFFIX}'):
            stale.unlink()
        self._write_index(DEPTH_INDEX, [f'{s:019d},{s:019d}.pfm' for s in stamps])
        if scans:
            rows = [row for stamp, row in sorted(self._lidar_poses.items()) if stamp in scans]
            write_text(self.path / LIDAR_INDEX, '\n'.join(rows) + '\n')
        if self._imu:
            write_text(self.path / SHIPPED_LAYOUT.imu, '\n'.join([_IMU_HEADER, *self._imu]) + '\n')
        if self._poses:
            rows = [_POSE_HEADER, *(row for _, row in sorted(self._poses.items()))]
            write_text(self.path / SHIPPED_LAYOUT.poses, '\n'.join(rows) + '\n')
        self._write_camera()
        self._write_index(COLOR_INDEX, [f'{s:019d},{s:019d}.png' for s in stamps])

    def _write_camera(self) -> None:
        if self._camera is None:
            return
        camera = asdict(self._camera)
        usual = asdict(LUSNAR_CAMERA.resized(self._camera.width, self._camera.height))
        same = np.allclose(list(camera.values()), list(usual.values()), rtol=1e-9)
        if not same or self._mounting != LUSNAR_MOUNTING:
            write_json(self.path / CAMERA_FILE, {**camera, 'mounting': self._mounting._asdict()})

    def _files(self, folder: str, pattern: str) -> list[Path]:
        return list((self.path / folder).glob(pattern))

    def _write_index(self, name: str, rows: list[str]) -> None:
        write_text(self.path / name, '\n'.join(['#timestamp [ns],filename', *rows]) + '\n')


def _opaque(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)


def _row(stamp_ns: int, *values: float) -> str:
    """Return a CSV row; `repr` of a float reads back as the same float."""
    return ','.join([f'{stamp_ns:019d}', *(repr(float(value)) for value in values)])


def _lidar_text(points: np.ndarray, label: np.ndarray) -> bytes:
    """Return x, y, z to a tenth of a millimetre and the category, one point a line."""
    if len(points) != len(label):
        raise ValueError(f'{len(points)} LiDAR points, but {len(label)} labels')
    unknown = sorted(set(np.unique(label).tolist()) - set(_CATEGORY_BY_ID))
    if unknown:
        raise ValueError(f'LuSNAR has no LiDAR category for label id {unknown[0]}')
    lut = np.zeros(256, np.int64)
    lut[list(_CATEGORY_BY_ID)] = list(_CATEGORY_BY_ID.values())
    columns = (*np.asarray(points).T.tolist(), lut[label].tolist())
    rows = zip(*columns, strict=True)
    return ''.join([f'{x:.4f},{y:.4f},{z:.4f},{number}\n' for x, y, z, number in rows]).encode()
