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

"""Play a LuSNAR bag losslessly through the unified node, and evaluate what it says."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.substitutions import ExecutableInPackage
from lunar_perception.data.bag_reader import BagError, BagReader
from lunar_perception.data.bag_topics import CAMERA_INFO, COMPRESSED_SUFFIX, IMAGE

WRITING_S = '120'
"""For the evaluator to write its report after SIGINT, before launch insists."""


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument('bag', description='a bag of `lunar-perception bag convert`'),
            DeclareLaunchArgument(
                'output', default_value='evaluation', description='folder for the results'
            ),
            DeclareLaunchArgument(
                'model', default_value='', description='checkpoint folder; empty: the shipped one'
            ),
            DeclareLaunchArgument(
                'device', default_value='auto', description='auto, cpu, cuda or cuda:<n>'
            ),
            OpaqueFunction(function=start),
        ]
    )


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return node, evaluator and player; all end with the evaluator."""
    bag, output, model, device = (
        LaunchConfiguration(name).perform(context) for name in ('bag', 'output', 'model', 'device')
    )
    try:
        with BagReader(bag) as reader:
            compressed = IMAGE['left'] + COMPRESSED_SUFFIX in reader.topics
    except BagError as error:
        reason = f'nothing to evaluate: {error}'
        return [LogInfo(msg=reason), EmitEvent(event=Shutdown(reason=reason))]
    share = Path(get_package_share_directory('lunar_perception'))
    node = LifecycleNode(
        package='lunar_perception',
        executable='unified_node',
        name='unified',
        namespace='perception',
        parameters=[
            str(share / 'config' / 'unified.yaml'),
            {
                'lossless': True,
                'model': model,
                'device': device,
                'image_transport': 'compressed' if compressed else 'raw',
            },
        ],
        remappings=[('image', IMAGE['left']), ('camera_info', CAMERA_INFO['left'])],
        output='screen',
    )
    evaluator = Node(
        package='lunar_perception',
        executable='evaluator_node',
        parameters=[{'bag': bag, 'output': output, 'model': model}],
        output='screen',
        sigterm_timeout=WRITING_S,
    )
    player = ExecuteProcess(
        cmd=[
            ExecutableInPackage('lunar-perception', 'lunar_perception'),
            *('bag', 'play', bag, '--lossless'),
        ],
        output='screen',
    )

    def end(event: ProcessExited, context: LaunchContext) -> EmitEvent | None:
        """End all with the first to exit; but the player's good end is not the evaluation's."""
        if context.is_shutdown or (event.action is player and event.returncode == 0):
            return None
        return EmitEvent(event=Shutdown(reason=f'{event.process_name} has ended'))

    return [
        # Fast DDS's shared memory is by default smaller than a depth image.
        SetEnvironmentVariable(
            'FASTRTPS_DEFAULT_PROFILES_FILE', str(share / 'config' / 'fastdds.xml')
        ),
        node,
        evaluator,
        player,
        RegisterEventHandler(OnProcessExit(on_exit=end)),
    ]
