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

"""A LuSNAR scene on disk and its frames, loaded when asked for."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
import os
from pathlib import Path
import re
from typing import overload, TypeVar

from lunar_perception.camera import LUSNAR_CAMERA, PinholeCamera
from lunar_perception.data.lusnar_files import (
    read_camera,
    read_color,
    read_depth,
    read_label,
    read_lidar,
    read_png_size,
    read_stamped,
)
from lunar_perception.data.lusnar_format import (
    CAMERA_FILE,
    ImuSamples,
    Layout,
    LidarScan,
    LUSNAR_MOUNTING,
    LusnarError,
    Mounting,
    Pose,
    README_LAYOUT,
    SHIPPED_LAYOUT,
    SKY_DEPTH,
)
from lunar_perception.taxonomy import SKY
import numpy as np

POSE_TOLERANCE_NS = 1_000_000
"""A pose farther from an image than this is not its pose; real ones are within 100 ns."""

TOP_TO_BOTTOM = 'top_to_bottom'
BOTTOM_TO_TOP = 'bottom_to_top'

_T = TypeVar('_T')


class Frame:
    """
    What belongs to one left image. Each file is read when first asked for, and kept.

    Every property raises LusnarError when its file is missing or damaged.
    """

    def __init__(self, scene: 'Scene', stamp_ns: int) -> None:
        self.scene = scene
        self.stamp_ns = stamp_ns

    def __repr__(self) -> str:
        return f'Frame({self.scene.name}, {self.stamp_ns})'

    @cached_property
    def image(self) -> np.ndarray:
        """The left image, (H, W, 3) uint8 RGB."""
        return self._read(self.scene.layout.color, read_color)

    @cached_property
    def right_image(self) -> np.ndarray:
        """The right image, (H, W, 3) uint8 RGB."""
        return self._read(self.scene.layout.right, read_color)

    @cached_property
    def label(self) -> np.ndarray:
        """Label ids, (H, W) uint8."""
        return self._read(self.scene.layout.label, read_label)

    @cached_property
    def depth(self) -> np.ndarray:
        """
        Metres along Z, (H, W) float32: +Inf for sky, NaN where not positive.

        Depth in millimetres (README's layout) has no code for sky: there, the label says it.
        """
        file = self.depth_file
        if file.suffix == '.pfm':
            rows_down = self.scene.pfm_row_order == TOP_TO_BOTTOM
            depth = self.scene.read(file, partial(read_depth, top_to_bottom=rows_down))
            depth[depth >= SKY_DEPTH] = np.inf
        else:
            depth = self.scene.read(file, partial(read_depth, top_to_bottom=True))
            depth[self.label == SKY] = np.inf
        depth[~(depth > 0)] = np.nan
        return depth

    @property
    def camera(self) -> PinholeCamera:
        """The camera of both images."""
        return self.scene.camera

    @property
    def pose(self) -> Pose:
        """The body's pose with the nearest stamp."""
        return self.scene.pose_at(self.stamp_ns)

    @cached_property
    def lidar(self) -> LidarScan:
        """The LiDAR scan with this frame's stamp, in the LiDAR's frame."""
        return self._read(self.scene.layout.lidar, read_lidar, 'txt')

    @property
    def imu(self) -> ImuSamples:
        """The inertial samples after the scene's previous image, up to this one."""
        return self.scene.imu_until(self.stamp_ns)

    @property
    def depth_file(self) -> Path:
        """The depth map: a PFM, or where there is none in README's layout, a PNG."""
        file = self._file(self.scene.layout.depth, 'pfm')
        if self.scene.layout == README_LAYOUT and not file.exists():
            png = file.with_suffix('.png')
            return png if png.exists() else file
        return file

    def _file(self, folder: str, suffix: str = 'png') -> Path:
        return self.scene.path / folder / f'{self.stamp_ns:019d}.{suffix}'

    def _read(self, folder: str, reader: Callable[[Path], _T], suffix: str = 'png') -> _T:
        return self.scene.read(self._file(folder, suffix), reader)


def scene_name(path: Path) -> str:
    """Return a scene folder's own name; a link's is its own, not that of what it leads to."""
    return Path(os.path.abspath(path)).name


class Scene(Sequence[Frame]):
    """
    The frames of one scene, in order of time; a slice is a scene of fewer frames.

    `stamps_ns` picks frames; None takes every left image. Raises LusnarError when the folder is
    no LuSNAR scene or holds no left image.
    """

    def __init__(self, path: str | Path, stamps_ns: Sequence[int] | None = None) -> None:
        self.path = Path(path)
        self.name = scene_name(self.path)
        self.layout: Layout = self._find_layout()
        self.all_stamps_ns = self._find_stamps()
        self.stamps_ns = self.all_stamps_ns if stamps_ns is None else tuple(sorted(stamps_ns))

    def __repr__(self) -> str:
        return f"Scene('{self.path}', {len(self)} frames)"

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> 'Scene': ...

    def __getitem__(self, index: int | slice) -> 'Frame | Scene':
        """Return a frame, or the scene of a slice's frames."""
        if isinstance(index, slice):
            return Scene(self.path, self.stamps_ns[index])
        return Frame(self, self.stamps_ns[index])

    @cached_property
    def camera(self) -> PinholeCamera:
        """The cameras: camera.json's, else LuSNAR's at the size of the first left image."""
        if self._camera_file:
            return self._camera_file[0]
        file = self.path / self.layout.color / f'{self.all_stamps_ns[0]:019d}.png'
        return LUSNAR_CAMERA.resized(*self.read(file, read_png_size))

    @property
    def mounting(self) -> Mounting:
        """How the cameras stand on the body: camera.json's, else LuSNAR's."""
        return self._camera_file[1] if self._camera_file else LUSNAR_MOUNTING

    @cached_property
    def _camera_file(self) -> tuple[PinholeCamera, Mounting] | None:
        file = self.path / CAMERA_FILE
        return self.read(file, read_camera) if file.exists() else None

    @cached_property
    def pfm_row_order(self) -> str:
        """
        'top_to_bottom' or 'bottom_to_top': how the rows of this scene's depth files run.

        Readers of LuSNAR disagree, so it is found out: the order in which depth's sky covers the
        label's sky, in up to nine frames; where none of them tells, the order with the nearer
        ground at the bottom. Frames that can not be read are passed over.
        """
        sky = ground = 0.0
        for stamp in self.all_stamps_ns[:: max(1, len(self.all_stamps_ns) // 8)]:
            frame = Frame(self, stamp)
            try:
                rows = self.read(frame.depth_file, partial(read_depth, top_to_bottom=True))
                label_sky = frame.label == SKY
            except LusnarError:
                continue
            depth_sky = rows >= SKY_DEPTH
            if label_sky.shape == depth_sky.shape:
                sky += float(np.mean(label_sky == depth_sky))
                sky -= float(np.mean(label_sky == depth_sky[::-1]))
            if abs(sky) > 1:  # two or three frames of one mind
                break
            nearness = np.zeros_like(rows)
            np.divide(1, rows, out=nearness, where=(rows > 0) & ~depth_sky)
            ground += float(nearness.mean(axis=1) @ np.linspace(-1, 1, len(rows)))
        return BOTTOM_TO_TOP if (sky or ground) < 0 else TOP_TO_BOTTOM

    def pose_at(self, stamp_ns: int) -> Pose:
        """Return the body's pose nearest to a stamp; LusnarError beyond POSE_TOLERANCE_NS."""
        stamps, values = self._poses
        distance = np.abs(stamps - stamp_ns)
        if not len(stamps) or distance.min() > POSE_TOLERANCE_NS:
            raise self.error(
                self.path / self.layout.poses,
                f'no pose within {POSE_TOLERANCE_NS / 1e6:g} ms of frame {stamp_ns}',
            )
        row = values[distance.argmin()]
        return Pose(row[:3], row[3:7])

    def imu_until(self, stamp_ns: int) -> ImuSamples:
        """Return the inertial samples after the image before `stamp_ns`, up to `stamp_ns`."""
        stamps, values = self._imu
        image = int(np.searchsorted(self.all_stamps_ns, stamp_ns))
        previous = self.all_stamps_ns[image - 1] if image else -1
        first, last = np.searchsorted(stamps, [previous, stamp_ns], side='right')
        return ImuSamples(stamps[first:last], values[first:last, :3], values[first:last, 3:])

    def read(self, file: Path, reader: Callable[[Path], _T]) -> _T:
        """Return what `reader` makes of a file; LusnarError when it is missing or damaged."""
        try:
            return reader(file)
        except FileNotFoundError:
            raise self.error(file, 'missing') from None
        except (OSError, ValueError) as error:
            raise self.error(file, str(error).removeprefix(f'{file}: ')) from error

    def error(self, file: Path, reason: str) -> LusnarError:
        """Return the error to raise about a file of this scene."""
        return LusnarError(file, self.name, reason)

    @cached_property
    def _poses(self) -> tuple[np.ndarray, np.ndarray]:
        return self.read(self.path / self.layout.poses, partial(read_stamped, columns=16))

    @cached_property
    def _imu(self) -> tuple[np.ndarray, np.ndarray]:
        return self.read(self.path / self.layout.imu, partial(read_stamped, columns=6))

    def _find_layout(self) -> Layout:
        layout = find_layout(self.path)
        if layout is None:
            folders = f'{SHIPPED_LAYOUT.color}/ nor {README_LAYOUT.color}/'
            raise self.error(self.path, f'not a LuSNAR scene: neither {folders} is there')
        return layout

    def _find_stamps(self) -> tuple[int, ...]:
        folder = self.path / self.layout.color
        stems = [file.stem for file in folder.glob('[!.]*.png')]
        if not stems:
            raise self.error(folder, 'empty scene: no left image (*.png)')
        for stem in stems:
            if not re.fullmatch(r'\d{19}', stem):
                raise self.error(folder / f'{stem}.png', 'the name is not a stamp of 19 digits')
        return tuple(sorted(map(int, stems)))


def find_layout(path: Path) -> Layout | None:
    """Return the layout of a scene's folder, or None when it is no scene."""
    for layout in (SHIPPED_LAYOUT, README_LAYOUT):
        if (path / layout.color).is_dir():
            return layout
    return None
