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
Start a camera driver, rectify its images in the driver's process, and start the unified node.

Needs image_proc and the driver, by default v4l2_camera. Driver and rectification are components
of one container and hand images on without copying; the unified node is Python, which no
container takes, and runs beside it. It takes the arguments of unified.launch.py too.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import ComposableNodeContainer
from launch_ros.descriptions import ComposableNode

ARGUMENTS = {
    'camera_namespace': ('camera', 'namespace of the driver and its topics'),
    'camera_package': ('v4l2_camera', 'package of the driver'),
    'camera_plugin': ('v4l2_camera::V4L2Camera', 'component class of the driver'),
    'camera_frame': ('camera_optical', 'optical frame of the images'),
    'camera_info_url': ('', "the driver's calibration, such as file:///path/to/camera.yaml"),
}


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory('lunar_perception'))
    namespace = LaunchConfiguration('camera_namespace')
    intra_process = [{'use_intra_process_comms': True}]
    driver = ComposableNode(
        package=LaunchConfiguration('camera_package'),
        plugin=LaunchConfiguration('camera_plugin'),
        name='driver',
        namespace=namespace,
        parameters=[
            {
                'camera_frame_id': LaunchConfiguration('camera_frame'),
                'camera_info_url': LaunchConfiguration('camera_info_url'),
            }
        ],
        extra_arguments=intra_process,
    )
    rectify = ComposableNode(
        package='image_proc',
        plugin='image_proc::RectifyNode',
        name='rectify',
        namespace=namespace,
        remappings=[('image', 'image_raw')],
        extra_arguments=intra_process,
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in ARGUMENTS.items()
            ),
            ComposableNodeContainer(
                package='rclcpp_components',
                executable='component_container',
                name='camera_container',
                namespace=namespace,
                composable_node_descriptions=[driver, rectify],
                output='screen',
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(share / 'launch' / 'unified.launch.py')),
                launch_arguments={
                    'image_topic': ['/', namespace, '/image_rect'],
                    'camera_info_topic': ['/', namespace, '/camera_info'],
                }.items(),
            ),
        ]
    )
