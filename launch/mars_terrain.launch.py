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

"""Start the terrain node: what images of Mars show, and why the network thinks so."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
import yaml

# Arguments that are parameters of the node too: given, they go before the parameter file.
PARAMETERS = {
    'use_sim_time': 'follow /clock: true or false',
    'autostart': 'go to active at the start: true or false',
    'image_transport': 'raw or compressed',
    'model': 'checkpoint folder or Hub id',
    'device': 'auto, cpu, cuda or cuda:<n>',
}


def generate_launch_description() -> LaunchDescription:
    params_file = Path(
        get_package_share_directory('lunar_perception'), 'config', 'mars_terrain.yaml'
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                'namespace', default_value='perception', description='namespace of node and topics'
            ),
            DeclareLaunchArgument(
                'params_file', default_value=str(params_file), description='YAML of parameters'
            ),
            DeclareLaunchArgument(
                'log_level', default_value='info', description='debug, info, warn, error or fatal'
            ),
            DeclareLaunchArgument(
                'image_topic', default_value='image', description='the camera images'
            ),
            DeclareLaunchArgument(
                'camera_info_topic',
                default_value='camera_info',
                description='of no effect; taken so that both nodes start alike',
            ),
            *(
                DeclareLaunchArgument(
                    name, default_value='', description=f'{text}; empty: as in params_file'
                )
                for name, text in PARAMETERS.items()
            ),
            OpaqueFunction(function=start_node),
        ]
    )


def start_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the node, with those parameters that were given on the command line."""
    given = {name: LaunchConfiguration(name).perform(context) for name in PARAMETERS}
    overrides = {name: yaml.safe_load(value) for name, value in given.items() if value}
    return [
        LifecycleNode(
            package='lunar_perception',
            executable='terrain_node',
            name='terrain',
            namespace=LaunchConfiguration('namespace'),
            parameters=[LaunchConfiguration('params_file'), *([overrides] if overrides else [])],
            remappings=[('image', LaunchConfiguration('image_topic'))],
            arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level')],
            output='screen',
        )
    ]
