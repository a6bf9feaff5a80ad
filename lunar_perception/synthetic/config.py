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

"""What a generated Moon is made of: one typed place for every choice."""

from dataclasses import dataclass
from math import atan, degrees

from lunar_perception.camera import LUSNAR_CAMERA
from lunar_perception.data.lusnar_format import BASELINE_M, LUSNAR_MOUNTING
from lunar_perception.synthetic.richness import Richness
from lunar_perception.synthetic.trajectory import Course


@dataclass(frozen=True)
class CameraMount:
    """
    Where the left camera sits on the rover, and what it sees.

    The defaults are LuSNAR's: 1.5 m up, 1 m ahead of the body's origin, 20° down, 80° wide.

    Fields:
        height, forward: metres above and ahead of the body's origin on the ground.
        pitch_deg: downward tilt. roll_deg: clockwise roll as seen from behind.
        fov_deg: horizontal field of view.
        baseline: metres to the right camera.

    """

    height: float = LUSNAR_MOUNTING.height
    forward: float = 1.0
    pitch_deg: float = LUSNAR_MOUNTING.pitch_deg
    roll_deg: float = 0.0
    fov_deg: float = 2 * degrees(atan(LUSNAR_CAMERA.width / 2 / LUSNAR_CAMERA.fx))
    baseline: float = BASELINE_M


@dataclass(frozen=True)
class MoonConfig:
    """
    One generated scene. The same configuration gives the same bytes.

    Fields:
        seed: what everything is drawn from.
        size: images are size × size pixels.
        mount: the camera; None draws one (height 1.3 to 1.75 m, pitch 8 to 32°, roll ±4°,
            field of view 55 to 95°), so that a network can't live off one horizon.
        frame_interval: seconds between frames (LuSNAR: 0.108).
        speed: the rover's, metres a second (LuSNAR: about 2).
        course: the way to drive and its stamps, as `read_trajectory` returns; None draws one
            from `speed` and `frame_interval`.
        richness: how much of the rare classes it shows; None leaves it to chance.
        level: level ground without craters, on which every hazard but a rock is a false alarm.
        relief: factor of the small relief's height; 1 is ground that a rover drives, where
            hardly any slope but on craters and rocks is steep.
        boulder: a boulder, mostly the only rock, lies close ahead of where the drive ends, in
            view, and the sun may stand on any side, so that often its dark side is seen, and its
            shadow falls on the rover.

    """

    seed: int
    size: int = 1024
    mount: CameraMount | None = CameraMount()
    frame_interval: float = 0.108
    speed: float = 2.0
    course: Course | None = None
    richness: Richness | None = None
    level: bool = False
    relief: float = 1.0
    boulder: bool = False

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ValueError(f'image size {self.size} px is too small; 32 is the least')
        if self.frame_interval <= 0 or self.speed <= 0 or self.relief <= 0:
            raise ValueError('frame_interval, speed and relief must be positive')
