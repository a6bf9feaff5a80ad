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
Map hazards into Nav2 costmaps: unified node, a local and a global costmap, and RViz.

Needs Nav2 (nav2_costmap_2d, nav2_lifecycle_manager), tf2_ros and, unless rviz:=false, rviz2; the
layers stvl and semantic need the package that holds them. It takes the arguments of
unified.launch.py too.

Each costmap is Nav2's own node `nav2_costmap_2d`, which is one costmap and nothing else: no
planner, no controller, nothing that could move a rover. Names, nesting and topics are those of the
costmaps in Nav2's planner and controller servers, so that parameter files fit both.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory, get_packages_with_prefixes
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import (
    EnvironmentVariable,
    LaunchConfiguration,
    PythonExpression,
)
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

LAYER_PACKAGES = {
    'obstacle': 'nav2_costmap_2d',
    'voxel': 'nav2_costmap_2d',
    'stvl': 'spatio_temporal_voxel_layer',
    'semantic': 'semantic_segmentation_layer',
}
INPUTS = (
    'points',
    'points/hazards',
    'points/clearing',
    'costmap/label',
    'costmap/confidence',
    'costmap/label_info',
    'label/overlay',
)
"""What the parameter files and RViz's take from the unified node, under /perception."""

# How LuSNAR's left camera sits on its rover.
CAMERA = {
    'camera_x': ('1.0', 'metres of the camera ahead of base_frame'),
    'camera_y': ('0.155', 'metres of the camera to the left'),
    'camera_z': ('1.5', 'metres of the camera above base_frame'),
    'camera_pitch_deg': ('19.92', 'degrees that the camera looks down'),
}


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory('lunar_perception'))
    layer, namespace = LaunchConfiguration('layer'), LaunchConfiguration('namespace')
    use_sim_time = {
        'use_sim_time': ParameterValue(LaunchConfiguration('use_sim_time'), value_type=bool)
    }
    remappings = [(f'/perception/{name}', ['/', namespace, f'/{name}']) for name in INPUTS]
    log_level = ['--ros-args', '--log-level', LaunchConfiguration('log_level')]
    costmaps = [
        Node(
            package='nav2_costmap_2d',
            executable='nav2_costmap_2d',
            name=name,
            namespace=name,
            parameters=[LaunchConfiguration('costmap_params_file'), use_sim_time],
            remappings=remappings,
            arguments=log_level,
            output='screen',
        )
        for name in ('local_costmap', 'global_costmap')
    ]
    camera_transform = Node(
        package='tf2_ros',
        executable='static_transform_publisher',
        name='camera_transform',
        # An optical frame looks along z, with x to the right and y down: from base_link that is
        # a turn of -90° about x and then of -90° about z. Looking down turns further about x.
        arguments=[
            *('--x', LaunchConfiguration('camera_x')),
            *('--y', LaunchConfiguration('camera_y')),
            *('--z', LaunchConfiguration('camera_z')),
            '--roll',
            PythonExpression(
                ['-math.radians(90 + ', LaunchConfiguration('camera_pitch_deg'), ')'], ['math']
            ),
            *('--pitch', '0', '--yaw', PythonExpression(['-math.pi / 2'], ['math'])),
            *('--frame-id', LaunchConfiguration('base_frame')),
            *('--child-frame-id', LaunchConfiguration('camera_frame')),
        ],
        parameters=[use_sim_time],
        condition=IfCondition(LaunchConfiguration('camera_transform')),
        output='screen',
    )
    lifecycle_manager = Node(
        package='nav2_lifecycle_manager',
        executable='lifecycle_manager',
        name='lifecycle_manager_mapping',
        parameters=[
            use_sim_time,
            {
                'autostart': ParameterValue(LaunchConfiguration('autostart'), value_type=bool),
                # The unified node first: a costmap waits for its transforms to activate.
                'node_names': [
                    ['/', namespace, '/unified'],
                    ['/local_costmap/local_costmap'],
                    ['/global_costmap/global_costmap'],
                ],
                # None of them answers bonds: neither a costmap of its own nor a Python node.
                'bond_timeout': 0.0,
            },
        ],
        arguments=log_level,
        output='screen',
    )
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        arguments=['-d', str(share / 'config' / 'nav2_mapping.rviz')],
        parameters=[use_sim_time],
        remappings=remappings,
        condition=IfCondition(LaunchConfiguration('rviz')),
        output='screen',
    )
    unified = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / 'launch' / 'unified.launch.py')),
        launch_arguments={'autostart': 'false'}.items(),  # that is the lifecycle manager's
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                'layer',
                default_value='obstacle',
                choices=list(LAYER_PACKAGES),
                description='the layer that turns hazards into costs',
            ),
            DeclareLaunchArgument(
                'costmap_params_file',
                default_value=[str(share / 'config' / 'nav2'), '/', layer, '.yaml'],
                description='YAML of parameters of local_costmap and global_costmap',
            ),
            DeclareLaunchArgument(
                'namespace', default_value='perception', description='namespace of node and topics'
            ),
            DeclareLaunchArgument(
                'use_sim_time', default_value='false', description='follow /clock: true or false'
            ),
            DeclareLaunchArgument(
                'autostart',
                default_value='true',
                description='have the lifecycle manager take all to active: true or false',
            ),
            DeclareLaunchArgument(
                'log_level', default_value='info', description='debug, info, warn, error or fatal'
            ),
            DeclareLaunchArgument(
                'rviz', default_value='true', description='start RViz: true or false'
            ),
            DeclareLaunchArgument(
                'camera_transform',
                default_value='true',
                description='publish where the camera sits, from the five below; false where a '
                'robot description or a bag does',
            ),
            DeclareLaunchArgument(
                'camera_frame',
                default_value='camera_left_optical',
                description="the images' frame, an optical one",
            ),
            DeclareLaunchArgument(
                'base_frame', default_value='base_link', description="the rover's frame"
            ),
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in CAMERA.items()
            ),
            OpaqueFunction(function=refuse_missing_packages),
            # Fast DDS's shared memory is by default smaller than an image or a cloud.
            SetEnvironmentVariable(
                'FASTRTPS_DEFAULT_PROFILES_FILE',
                EnvironmentVariable(
                    'FASTRTPS_DEFAULT_PROFILES_FILE',
                    default_value=str(share / 'config' / 'fastdds.xml'),
                ),
            ),
            GroupAction([unified]),  # which keeps its `autostart` to itself
            camera_transform,
            *costmaps,
            lifecycle_manager,
            rviz,
        ]
    )


def refuse_missing_packages(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Raise RuntimeError, naming all that is missing, before anything starts."""
    values = {
        name: LaunchConfiguration(name).perform(context)
        for name in ('layer', 'rviz', 'camera_transform')
    }
    needed = ['nav2_costmap_2d', 'nav2_lifecycle_manager', LAYER_PACKAGES[values['layer']]]
    needed += ['rviz2'] if values['rviz'].lower() in ('true', '1') else []
    needed += ['tf2_ros'] if values['camera_transform'].lower() in ('true', '1') else []
    installed = get_packages_with_prefixes()
    missing = [name for name in dict.fromkeys(needed) if name not in installed]
    if missing:
        raise RuntimeError(
            f'not installed: {", ".join(missing)}; docs/nav2.md says how to get what '
            f'layer:={values["layer"]} needs'
        )
    return []
