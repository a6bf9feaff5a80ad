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
LuSNAR (arXiv 2407.06512) from disk: data set → scenes → frames.

Everything is loaded when it is asked for, and everything can be pickled for worker processes.
Scenes are read in the layout that the data set ships and in the one that its README describes.
"""

from collections.abc import Sequence
from pathlib import Path
import re
from typing import overload
import warnings

from lunar_perception.data.lusnar_format import LusnarError
from lunar_perception.data.lusnar_scene import find_layout, Frame, Scene, scene_name
import numpy as np

__all__ = ['Frame', 'LusnarDataset', 'LusnarError', 'Scene', 'find_scenes']

TEST_SCENES = frozenset({3, 5, 7})
"""Numbers of the test scenes in the customary split by scene; the other six are for training."""


class LusnarDataset(Sequence[Scene]):
    """
    The scenes of a data set: a folder of scenes, or a single scene's folder.

    `scenes` picks scenes by name (default all, in the order of their numbers). Raises LusnarError
    when there is no scene, or one that is named or found can not be used.
    """

    def __init__(self, root: str | Path, scenes: Sequence[str] | None = None) -> None:
        self.root = Path(root)
        paths = find_scenes(self.root)
        if not paths:
            raise LusnarError(self.root, self.root.name, 'no LuSNAR scene in this folder')
        by_name = {scene_name(path): path for path in paths}
        names = list(by_name) if scenes is None else list(scenes)
        for name in names:
            if name not in by_name:
                raise LusnarError(
                    self.root / name, name, f'no such scene; there are {", ".join(by_name)}'
                )
        self.scenes = tuple(Scene(by_name[name]) for name in names)

    def __repr__(self) -> str:
        return f"LusnarDataset('{self.root}', {[scene.name for scene in self.scenes]})"

    def __len__(self) -> int:
        return len(self.scenes)

    @overload
    def __getitem__(self, index: int) -> Scene: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Scene, ...]: ...

    def __getitem__(self, index: int | slice) -> Scene | tuple[Scene, ...]:
        """Return a scene, or a slice's scenes."""
        return self.scenes[index]

    def split(self, part: str, by: str = 'scene') -> 'LusnarDataset':
        """
        Return the 'train' or the 'test' part.

        by='scene': scenes 3, 5 and 7 are for testing, the other six for training; scene n + 9
        goes with scene n. by='random': a fifth of the frames, drawn at random, is for testing
        (the paper's 80/20, section 3); it warns, as neighbouring frames are near-duplicates.
        """
        if part not in ('train', 'test'):
            raise ValueError(f"part is '{part}', where 'train' or 'test' is expected")
        if by == 'scene':
            scenes = [s for s in self.scenes if (_number(s) in TEST_SCENES) == (part == 'test')]
        elif by == 'random':
            warnings.warn(
                'a random split leaks: neighbouring frames are near-duplicates; '
                "by='scene' is the honest one",
                stacklevel=2,
            )
            scenes = self._split_frames(part)
        else:
            raise ValueError(f"by is '{by}', where 'scene' or 'random' is expected")
        if not scenes:
            raise ValueError(f'{self!r} has no scene for the {part} part')
        dataset = object.__new__(LusnarDataset)
        dataset.root, dataset.scenes = self.root, tuple(scenes)
        return dataset

    def _split_frames(self, part: str) -> list[Scene]:
        """Return scenes with the frames that one fixed shuffle gives to the part."""
        total = sum(len(scene) for scene in self.scenes)
        is_test = np.zeros(total, bool)
        is_test[np.random.default_rng(0).permutation(total)[: round(0.2 * total)]] = True
        scenes, first = [], 0
        for scene in self.scenes:
            end = first + len(scene)
            chosen = is_test[first:end] == (part == 'test')
            first = end
            stamps = [stamp for stamp, keep in zip(scene.stamps_ns, chosen, strict=True) if keep]
            if stamps:
                scenes.append(Scene(scene.path, stamps))
        return scenes


def find_scenes(root: Path) -> list[Path]:
    """Return the scenes' folders: `root` if it is a scene, else its children, by number."""
    if find_layout(root):
        return [root]
    if not root.is_dir():
        return []
    scenes = [path for path in root.iterdir() if find_layout(path)]
    return sorted(scenes, key=lambda path: [int(n) for n in re.findall(r'\d+', path.name)])


def _number(scene: Scene) -> int:
    """Return the scene's number as one of LuSNAR's nine."""
    numbers = re.findall(r'\d+', scene.name)
    if not numbers:
        raise ValueError(f"scene '{scene.name}' has no number to split by; name it Moon_<number>")
    return (int(numbers[-1]) - 1) % 9 + 1
