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

"""The terrain node's parameters."""

from dataclasses import dataclass

from lunar_perception.nodes.parameters import PerceptionParameters, ros_parameter


@dataclass(frozen=True)
class TerrainParameters(PerceptionParameters):
    """
    The terrain node's parameters, by the names that ROS knows.

    Raises ValueError for a value that the node can not work with.
    """

    explain_rate: float = ros_parameter(
        1.0, 'Grad-CAM overlays a second at most; 0: none.', least=0.0, most=100.0
    )
