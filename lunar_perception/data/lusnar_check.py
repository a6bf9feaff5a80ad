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

"""Goes through a LuSNAR scene or data set and says what is wrong with it."""

from collections.abc import Callable, Iterator
from pathlib import Path

from lunar_perception.atomic import TEMPORARY_SUFFIX
from lunar_perception.data.lusnar import find_scenes, Frame, LusnarError, Scene
from lunar_perception.data.lusnar_format import (
    COLOR_INDEX,
    DEPTH_INDEX,
    LIDAR_INDEX,
    SHIPPED_LAYOUT,
)
from lunar_perception.taxonomy import SKY
import numpy as np

SKY_TOLERANCE = 0.05
"""Largest share of pixels that only one of depth and label may call sky."""


def check(
    path: str | Path, progress: Callable[[int, int], None] | None = None
) -> list[LusnarError]:
    """
    Read every file of a scene, or of a folder of scenes, and return what is wrong.

    `progress` is called after each frame with the frames done and their total. An empty list
    means: sound and complete. A modality that a scene lacks altogether is named once.
    """
    root = Path(path)
    problems: list[LusnarError] = []
    scenes: list[Scene] = []
    for folder in find_scenes(root):
        try:
            scenes.append(Scene(folder))
        except LusnarError as error:
            problems.append(error)
    if not scenes and not problems:
        problems.append(LusnarError(root, root.name, 'no LuSNAR scene in this folder'))
    total, done = sum(map(len, scenes)), 0
    for scene in scenes:
        try:
            size = scene.camera.height, scene.camera.width
        except LusnarError as error:
            problems.append(error)
            size = None
        problems += _scene_problems(scene)
        absent = _absent_modalities(scene)
        problems += [scene.error(scene.path / name, 'missing') for name in absent.values()]
        for frame in scene:
            problems += _frame_problems(frame, size, skip=set(absent))
            done += 1
            if progress is not None:
                progress(done, total)
    return problems


def _absent_modalities(scene: Scene) -> dict[str, str]:
    """Return the folders or files that are not there, by the name of what they hold."""
    layout = scene.layout
    places = {
        'right_image': layout.right,
        'depth': layout.depth,
        'label': layout.label,
        'lidar': layout.lidar,
        'pose': layout.poses,
        'imu': layout.imu,
    }
    return {name: place for name, place in places.items() if not (scene.path / place).exists()}


def _scene_problems(scene: Scene) -> Iterator[LusnarError]:
    for file in sorted(scene.path.rglob(f'.*{TEMPORARY_SUFFIX}')):
        yield scene.error(file, 'left over from an interrupted writing')
    layout, stems = scene.layout, {f'{stamp:019d}' for stamp in scene.stamps_ns}
    for folder in (layout.right, layout.depth, layout.label, layout.lidar):
        for file in sorted((scene.path / folder).glob('[0-9]*')):
            if file.stem not in stems:
                yield scene.error(file, 'no left image has this stamp')
    if layout == SHIPPED_LAYOUT:
        for name in (COLOR_INDEX, DEPTH_INDEX, LIDAR_INDEX):
            file = scene.path / name
            if file.parent.is_dir():
                yield from _index_problems(scene, file, stems)


def _index_problems(scene: Scene, file: Path, stems: set[str]) -> Iterator[LusnarError]:
    """Compare the stamps of an index file with the files that are there."""
    if not file.is_file():
        yield scene.error(file, 'missing: the scene is incomplete, or its writing was interrupted')
        return
    rows = file.read_text(errors='replace').splitlines()
    listed = [row.split(',')[0].strip() for row in rows if row.strip() and row[0] != '#']
    if sorted(set(listed)) != listed:
        yield scene.error(file, 'stamps are not in order')
    for stem in sorted(stems ^ set(listed)):
        yield scene.error(
            file, f'{stem} is not listed' if stem in stems else f'{stem} is listed, but not there'
        )


def _frame_problems(
    frame: Frame, size: tuple[int, int] | None, skip: set[str]
) -> Iterator[LusnarError]:
    shapes = {}
    for name in ('image', 'right_image', 'depth', 'label', 'lidar', 'pose', 'imu'):
        if name in skip:
            continue
        try:
            value = getattr(frame, name)
        except LusnarError as error:
            yield error
            continue
        if isinstance(value, np.ndarray):
            shapes[name] = value.shape[:2]
    scene = frame.scene
    for name, shape in shapes.items():
        if size is not None and shape != size:
            sizes = f'{shape[1]}×{shape[0]}, the scene {size[1]}×{size[0]}'
            yield scene.error(scene.path, f'{name} of frame {frame.stamp_ns} is {sizes}')
    if 'depth' in shapes and shapes.get('label') == shapes['depth']:
        differing = float(np.mean((frame.label == SKY) != np.isposinf(frame.depth)))
        if differing > SKY_TOLERANCE:
            yield scene.error(
                frame.depth_file,
                f'depth and label disagree on the sky in {differing:.0%} of pixels',
            )
