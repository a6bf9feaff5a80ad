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

"""The unified node's parameters."""

from dataclasses import dataclass

from lunar_perception.hazards import SOURCES
from lunar_perception.nodes.parameters import (
    backend_parameter,
    PerceptionParameters,
    ros_parameter,
)
from lunar_perception.taxonomy import LUNAR_TERRAIN


@dataclass(frozen=True)
class UnifiedParameters(PerceptionParameters):
    """
    The unified node's parameters, by the names that ROS knows.

    Raises ValueError for a value that the node can not work with.
    """

    backend: str = backend_parameter(
        'compile', 'onnxruntime', 'tensorrt', 'openvino', 'openvino_bf16', 'int8'
    )
    max_relative_uncertainty: float = ros_parameter(
        0.0,
        'Depth whose sigma is more than this fraction of it becomes NaN; 0: never.',
        least=0.0,
        most=10.0,
    )
    default_fov_deg: float = ros_parameter(
        0.0,
        'Horizontal field of view in degrees that stands in for a missing or uncalibrated '
        'CameraInfo; 0: depth and clouds wait for one.',
        least=0.0,
        most=179.0,
    )
    cloud_stride: int = ros_parameter(
        4, 'Clouds and costmap images take every n-th pixel of every n-th row.', least=1, most=64
    )
    max_range: float = ros_parameter(
        20.0,
        'Distance from the camera in metres up to which hazards are marked and rays clear.',
        least=0.1,
        most=1000.0,
    )
    hazard_classes: tuple[str, ...] = ros_parameter(
        ('rock', 'crater'),
        f'Classes whose points are hazards, of {", ".join(LUNAR_TERRAIN.names)}.',
    )
    min_hazard_confidence: float = ros_parameter(
        0.9,
        'Hazards by class are marked in groups whose surest point has at least this confidence.',
        least=0.0,
        most=1.0,
    )
    hazard_sources: str = ros_parameter(
        'class',
        'What makes a point a hazard: its class; the geometry of the ground, where a limit of '
        'slope or step is passed; or either of both.',
        choices=SOURCES,
    )
    min_hazard_points: int = ros_parameter(
        3,
        'Hazards are marked in groups of at least this many neighbouring points.',
        least=1,
        most=1000,
    )
    max_slope_deg: float = ros_parameter(
        20.0, 'Steepest slope that the rover can stand on, in degrees.', least=1.0, most=89.0
    )
    max_step: float = ros_parameter(
        0.2,
        'Highest step that the rover can climb, in metres; of what the network calls rock, only '
        'what stands up by half of it is a hazard.',
        least=0.01,
        most=10.0,
    )
    slope_window: float = ros_parameter(
        1.1,
        'Side in metres of the square of ground that a slope is taken over: that of the '
        "rover's footprint, length and width averaged.",
        least=0.3,
        most=10.0,
    )
    gravity_frame: str = ros_parameter(
        '',
        'A TF frame whose z axis points up, such as odom, map or base_link; needs tf2_ros. Empty: '
        'gravity comes from `imu` or camera_pitch_deg.',
        fixed=True,
    )
    camera_pitch_deg: float = ros_parameter(
        20.0,
        'How far the camera looks below the horizon on level ground, in degrees; where TF does '
        'not say.',
        least=-90.0,
        most=90.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            LUNAR_TERRAIN.ids_of(self.hazard_classes)
        except ValueError as error:
            raise ValueError(f'hazard_classes: {error}') from None
