# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""A procedural Moon, written in LuSNAR's layout."""

from lunar_perception.synthetic.config import CameraMount, MoonConfig
from lunar_perception.synthetic.moon import Moon, MoonFrame
from lunar_perception.synthetic.scene import generate_scene
from lunar_perception.synthetic.trajectory import Course, read_trajectory

__all__ = [
    'CameraMount',
    'Course',
    'Moon',
    'MoonConfig',
    'MoonFrame',
    'generate_scene',
    'read_trajectory',
]
