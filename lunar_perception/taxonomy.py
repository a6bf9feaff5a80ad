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

"""Label sets: ids, names and display colours."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

UNLABELLED = 255
"""Label id of a pixel without a class (vision_msgs' own rule)."""


@dataclass(frozen=True)
class Taxonomy:
    """
    An ordered label set; a class's id is its place in `names`.

    Fields:
        name: what the label set is called in messages and reports.
        names: class names, by id.
        colors: RGB display colours in [0, 255], by id.

    """

    name: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    def __len__(self) -> int:
        return len(self.names)

    def id_of(self, name: str) -> int:
        """Return the id of class `name`; ValueError names the known classes otherwise."""
        if name not in self.names:
            raise ValueError(f"unknown class '{name}'; {self.name} has {', '.join(self.names)}")
        return self.names.index(name)

    def ids_of(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return the ids of `names`, in that order; ValueError as `id_of`."""
        return tuple(self.id_of(name) for name in names)

    def palette(self) -> np.ndarray:
        """Return RGB colours (256, 3) uint8 by label id; black for ids without a class."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self.colors)] = self.colors
        return palette

    def colorize(self, label: np.ndarray) -> np.ndarray:
        """Paint a label image (H, W) uint8 as RGB (H, W, 3) uint8."""
        painted: np.ndarray = np.take(self.palette(), label, axis=0)
        return painted


LUNAR_TERRAIN = Taxonomy(
    name='LuSNAR terrain',
    names=('regolith', 'crater', 'rock', 'mountain', 'sky'),
    colors=((187, 70, 156), (120, 0, 200), (232, 250, 80), (173, 69, 31), (34, 201, 248)),
)
"""LuSNAR's five classes with the colours of its label images (arXiv 2407.06512)."""

SKY = LUNAR_TERRAIN.id_of('sky')

HIRISE_LANDMARKS = Taxonomy(
    name='HiRISE landmarks',
    names=(
        'other',
        'crater',
        'dark dune',
        'slope streak',
        'bright dune',
        'impact ejecta',
        'swiss cheese',
        'spider',
    ),
    colors=(
        (127, 127, 127),
        (31, 119, 180),
        (140, 86, 75),
        (214, 39, 40),
        (255, 187, 120),
        (148, 103, 189),
        (44, 160, 44),
        (23, 190, 207),
    ),
)
"""Eight kinds of Mars landmarks, ids as in HiRISE map-projected v3 (Zenodo 2538136)."""
