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

"""`ros2 launch lunar_perception mars_terrain.launch.py`, as a user calls it."""

from collections.abc import Iterator
import os
import shutil
import signal
import subprocess
from time import monotonic, sleep

from ament_index_python.packages import get_package_share_directory, PackageNotFoundError
from lifecycle_msgs.srv import GetState
from lunar_perception.nodes.codec import encode
from lunar_perception.nodes.terrain_outputs import OUTPUT_TYPES
import numpy as np
import pytest
from rcl_interfaces.srv import GetParameters
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tiny_terrain import save_tiny_terrain

if shutil.which('ros2') is None:
    pytest.skip('needs the ros2 command', allow_module_level=True)
try:
    get_package_share_directory('lunar_perception')
except (OSError, PackageNotFoundError):  # OSError: no installation at all
    pytest.skip('needs lunar_perception as colcon installs it', allow_module_level=True)

DOMAIN = (os.getpid() + 37) % 102
TIMEOUT_S = 240.0


@pytest.fixture(scope='module')
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """Launch the node on a tiny network, its images from another topic."""
    folder = tmp_path_factory.mktemp('launched')
    model = save_tiny_terrain(folder / 'model')
    words = ['ros2', 'launch', 'lunar_perception', 'mars_terrain.launch.py', 'namespace:=orbiter']
    words += [f'model:={model}', 'device:=cpu', 'image_topic:=/hirise/image']
    discovery = {'ROS_DOMAIN_ID': str(DOMAIN), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    with (folder / 'output.txt').open('wb') as output:
        process = subprocess.Popen(
            words,
            env=os.environ | discovery,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = rclpy.create_node('peer', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield node, executor
    node.destroy_node()
    context.try_shutdown()


def test_images_are_answered_and_sigint_ends_it_with_0(
    launched: subprocess.Popen[bytes], peer: tuple[Node, SingleThreadedExecutor]
) -> None:
    node, executor = peer
    deadline = monotonic() + TIMEOUT_S

    def call(kind: type, name: str, request: object) -> object:
        client = node.create_client(kind, f'/orbiter/terrain/{name}')
        while not client.service_is_ready():
            assert launched.poll() is None and monotonic() < deadline, name
            executor.spin_once(0.1)
        future = client.call_async(request)
        executor.spin_until_future_complete(future, deadline - monotonic())
        return future.result()

    while call(GetState, 'get_state', GetState.Request()).current_state.label != 'active':
        assert monotonic() < deadline
        sleep(0.2)
    given = call(GetParameters, 'get_parameters', GetParameters.Request(names=['device']))
    assert given.values[0].string_value == 'cpu'

    got: list[Image] = []
    node.create_subscription(Image, '/orbiter/terrain/label', got.append, 1)
    camera = node.create_publisher(Image, '/hirise/image', 1)
    header = Header(frame_id='orbit')
    header.stamp.sec = 7
    image = encode(np.full((48, 48), 90, np.uint8), 'mono8', header)
    while not got:
        assert launched.poll() is None and monotonic() < deadline
        camera.publish(image)
        executor.spin_once(0.5)
    assert (got[0].header, got[0].encoding) == (header, 'mono8')
    assert (got[0].height, got[0].width) == (48, 48)
    published = dict(node.get_publisher_names_and_types_by_node('terrain', '/orbiter'))
    topics = {f'/orbiter/{topic}' for topic, kind in OUTPUT_TYPES.items() if kind}
    assert topics <= published.keys()

    launched.send_signal(signal.SIGINT)
    assert launched.wait(TIMEOUT_S) == 0
