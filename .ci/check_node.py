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
Start the unified node that colcon installed, look at it over DDS, and stop it as launch does.

Run with install/setup.sh sourced. Exit status 0 when the node came to active with every topic
and left with status 0 on SIGINT.
"""

from pathlib import Path
import signal
import subprocess
import sys
import time

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
import rclpy
from rclpy.node import Node

PACKAGE = 'lunar_perception'
SHARED = ('package.xml', 'launch/unified.launch.py', 'config/unified.yaml')
IMAGE = 'sensor_msgs/msg/Image'
CLOUD = 'sensor_msgs/msg/PointCloud2'
TOPICS = {
    '/perception/image': IMAGE,
    '/perception/camera_info': 'sensor_msgs/msg/CameraInfo',
    '/perception/label': IMAGE,
    '/perception/label/overlay': IMAGE,
    '/perception/confidence': IMAGE,
    '/perception/depth': IMAGE,
    '/perception/depth/camera_info': 'sensor_msgs/msg/CameraInfo',
    '/perception/depth/uncertainty': IMAGE,
    '/perception/depth/colored': IMAGE,
    '/perception/points': CLOUD,
    '/perception/points/hazards': CLOUD,
    '/perception/points/clearing': CLOUD,
    '/perception/costmap/label': IMAGE,
    '/perception/costmap/confidence': IMAGE,
    '/diagnostics': 'diagnostic_msgs/msg/DiagnosticArray',
}
START_S = 120.0
STOP_S = 30.0


def wait_until_active(node: Node, process: subprocess.Popen[bytes]) -> None:
    """Ask for the lifecycle state until it is active; SystemExit when the node does not come."""
    client = node.create_client(GetState, '/perception/unified/get_state')
    deadline = time.monotonic() + START_S
    state = 'absent'
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f'unified_node ended by itself with status {process.returncode}')
        if client.wait_for_service(timeout_sec=1.0):
            future = client.call_async(GetState.Request())
            rclpy.spin_until_future_complete(node, future, timeout_sec=5.0)
            if future.done():
                state = future.result().current_state.label
                if future.result().current_state.id == State.PRIMARY_STATE_ACTIVE:
                    return
    sys.exit(f'unified_node is not active after {START_S:.0f} s, but {state}')


def check_topics(node: Node) -> None:
    """Compare the topics in the graph with the interface; SystemExit names what differs."""
    found = dict(node.get_topic_names_and_types())
    wrong = [
        f'{topic} is {found.get(topic, "absent")}, not {kind}'
        for topic, kind in TOPICS.items()
        if found.get(topic) != [kind]
    ]
    if wrong:
        sys.exit('\n'.join(wrong))


def main() -> None:
    share = Path(get_package_share_directory(PACKAGE))
    missing = [name for name in SHARED if not (share / name).is_file()]
    if missing:
        sys.exit(f'not installed under {share}: {", ".join(missing)}')

    executable = Path(get_package_prefix(PACKAGE)) / 'lib' / PACKAGE / 'unified_node'
    rclpy.init()
    node = Node('check_node')
    process = subprocess.Popen([executable])
    try:
        wait_until_active(node, process)
        check_topics(node)
        process.send_signal(signal.SIGINT)
        if process.wait(STOP_S) != 0:
            sys.exit(f'unified_node left with status {process.returncode} on SIGINT')
    finally:
        process.kill()
        process.wait()
        rclpy.try_shutdown()
    print(f'{executable}: active, {len(TOPICS)} topics, ended cleanly')


if __name__ == '__main__':
    main()
