# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""A few generated frames, for trying the whole path out."""

from pathlib import Path

from lunar_perception.synthetic import generate_scene, MoonConfig

SCENES, FRAMES, SIZE = 3, 3, 256


def generate_scenes(folder: Path) -> Path:
    """Write the scenes to `folder`, keeping what is there; return it."""
    for number in range(1, SCENES + 1):
        config = MoonConfig(seed=number, size=SIZE, mount=None)
        generate_scene(folder / f'Moon_{number}', config, FRAMES, resume=True)
    return folder
