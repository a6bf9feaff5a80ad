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
Start a unified node for each of two cameras, each in its camera's namespace.

The arguments of unified.launch.py are given to both: `model`, `device`, `params_file` and so on.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

CAMERAS = ('left', 'right')


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory('lunar_perception'))
    unified = PythonLaunchDescriptionSource(str(share / 'launch' / 'unified.launch.py'))
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(
                    f'{camera}_namespace',
                    default_value=camera,
                    description=f'namespace of the {camera} node and its topics',
                )
                for camera in CAMERAS
            ),
            DeclareLaunchArgument(
                'image_topic',
                default_value='image_raw',
                description='the rectified images, in each namespace',
            ),
            *(
                IncludeLaunchDescription(
                    unified,
                    launch_arguments={
                        'namespace': LaunchConfiguration(f'{camera}_namespace'),
                        'image_topic': LaunchConfiguration('image_topic'),
                    }.items(),
                )
                for camera in CAMERAS
            ),
        ]
    )
