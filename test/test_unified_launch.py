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

"""The shipped launch files under the real launch system: graph, parameters, a clean end."""

from collections.abc import Callable, Iterator, Set
from contextlib import suppress
import json
import os
from pathlib import Path
import sys
from time import monotonic, sleep
from typing import Any

from ament_index_python.packages import get_package_share_directory, PackageNotFoundError
from launch import LaunchDescription
from launch.actions import GroupAction, IncludeLaunchDescription, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
import launch_pytest
from lifecycle_msgs.srv import GetState
from lunar_perception.nodes.label_info import LabelInfo
from lunar_perception.nodes.outputs import OUTPUTS
import pytest
from rcl_interfaces.srv import GetParameters
import rclpy
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.parameter import parameter_value_to_python
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tiny_network import save_tiny_network

try:
    LAUNCH = Path(get_package_share_directory('lunar_perception')) / 'launch'
except PackageNotFoundError:
    pytest.skip('needs lunar_perception as colcon installs it', allow_module_level=True)

TIMEOUT_S = 240.0
EXITS: list[int] = []

CONTAINER = """#!{python}
# Stands in for a component container: notes what it is told to load.
import json, os, pathlib, sys
sys.dont_write_bytecode = True
from composition_interfaces.srv import LoadNode
import rclpy
from rclpy.parameter import parameter_value_to_python

rclpy.init()
node = rclpy.create_node('container')
loaded = []

def load(request, response):
    parameters = (*request.parameters, *request.extra_arguments)
    loaded.append({{
        'plugin': request.plugin_name,
        'package': request.package_name,
        'name': request.node_namespace + '/' + request.node_name,
        'remappings': list(request.remap_rules),
        'parameters': {{p.name: parameter_value_to_python(p.value) for p in parameters}},
    }})
    pathlib.Path({loaded!r} + '.new').write_text(json.dumps(loaded))
    os.replace({loaded!r} + '.new', {loaded!r})
    response.success, response.unique_id = True, len(loaded)
    response.full_node_name = loaded[-1]['name']
    return response

node.create_service(LoadNode, '~/_container/load_node', load)
try:
    rclpy.spin(node)
except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
    os._exit(0)
"""


def included(name: str, **arguments: str) -> GroupAction:
    """Return a shipped launch file that keeps its arguments to itself."""
    source = PythonLaunchDescriptionSource(str(LAUNCH / f'{name}.launch.py'))
    return GroupAction([IncludeLaunchDescription(source, launch_arguments=arguments.items())])


def install_container(prefix: Path) -> None:
    """Put the stand-in where ROS finds it before a real container."""
    package = 'rclcpp_components'
    container = prefix / 'lib' / package / 'component_container'
    container.parent.mkdir(parents=True)
    loaded = str(prefix / 'loaded.json')
    container.write_text(CONTAINER.format(python=sys.executable, loaded=loaded))
    container.chmod(0o755)
    index = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
    index.mkdir(parents=True)
    (index / package).touch()
    os.environ['AMENT_PREFIX_PATH'] = f'{prefix}{os.pathsep}{os.environ["AMENT_PREFIX_PATH"]}'


def note_exit(event: ProcessExited, _: object) -> None:
    if event.process_name.startswith('unified_node'):
        EXITS.append(event.returncode)


@pytest.fixture(scope='module')
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('prefix')


@launch_pytest.fixture(scope='module')
def launched(tmp_path_factory: pytest.TempPathFactory, prefix: Path) -> LaunchDescription:
    """Start all files at once: launch_ros starts only once in a process."""
    install_container(prefix)
    os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    folder = tmp_path_factory.mktemp('launched')
    model = str(save_tiny_network(folder / 'model'))
    parameters = folder / 'parameters.yaml'
    parameters.write_text('/**:\n  ros__parameters:\n    cloud_stride: 7\n    device: cuda:9\n')
    return LaunchDescription(
        [
            RegisterEventHandler(OnProcessExit(on_exit=note_exit)),
            included(
                'unified',
                namespace='rover',
                image_topic='/mast/image_rect',
                camera_info_topic='/mast/camera_info',
                params_file=str(parameters),
                model=model,
                device='cpu',
                use_sim_time='true',
                log_level='debug',
            ),
            included('two_cameras', model=model, device='cpu'),
            included(
                'camera_and_unified',
                camera_namespace='mast',
                camera_info_url='file:///mast.yaml',
                namespace='mast_perception',
                model=model,
                device='cpu',
            ),
            launch_pytest.actions.ReadyToTest(),
        ]
    )


@pytest.fixture
def peer() -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('peer', context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


def call(peer: Node, service: type, name: str, request: Any) -> Any:
    executor = rclpy.executors.SingleThreadedExecutor(context=peer.context)
    client = peer.create_client(service, name)
    assert client.wait_for_service(TIMEOUT_S), name
    executor.add_node(peer)
    future = client.call_async(request)
    executor.spin_until_future_complete(future, TIMEOUT_S)
    executor.remove_node(peer)
    assert future.done(), name
    return future.result()


def topics_of(
    ask: Callable[[str, str], list[tuple[str, list[str]]]], namespace: str, awaited: Set[str]
) -> dict[str, list[str]]:
    """Return the node's topics and types once `awaited` are among them, or what there is then."""
    deadline, topics = monotonic() + TIMEOUT_S, dict[str, list[str]]()
    while not awaited <= topics.keys() and monotonic() < deadline:
        sleep(0.1)  # discovery takes its time, the node's own name included
        with suppress(NodeNameNonExistentError):
            topics = dict(ask('unified', namespace))
    return topics


def wait_until_active(peer: Node, node_name: str) -> None:
    deadline, state = monotonic() + TIMEOUT_S, ''
    while state != 'active':
        assert monotonic() < deadline, f'{node_name} is {state}'
        answer = call(peer, GetState, f'{node_name}/get_state', GetState.Request())
        state = answer.current_state.label


def parameters_of(peer: Node, node_name: str, *names: str) -> list[Any]:
    request = GetParameters.Request(names=names)
    values = call(peer, GetParameters, f'{node_name}/get_parameters', request).values
    return [parameter_value_to_python(value) for value in values]


@pytest.mark.launch(fixture=launched)
def test_the_graph(peer: Node) -> None:
    """Exactly the topics that the interface names, in the namespace that was asked for."""
    wait_until_active(peer, '/rover/unified')
    message_types = {t: f'sensor_msgs/msg/{t.__name__}' for t in (Image, CameraInfo, PointCloud2)}
    expected = {f'/rover/{t}': [message_types[o.message_type]] for t, o in OUTPUTS.items()}
    expected['/diagnostics'] = ['diagnostic_msgs/msg/DiagnosticArray']
    if LabelInfo is not None:
        for topic in ('label_info', 'costmap/label_info'):
            expected[f'/rover/{topic}'] = ['vision_msgs/msg/LabelInfo']
    usual = {'/parameter_events', '/rosout', '/rover/unified/transition_event'}
    ask = peer.get_publisher_names_and_types_by_node
    published = topics_of(ask, '/rover', expected.keys() | usual)
    assert {topic: types for topic, types in published.items() if topic not in usual} == expected
    inputs = {'/mast/image_rect', '/mast/camera_info', '/rover/imu'}
    subscribed = topics_of(peer.get_subscriber_names_and_types_by_node, '/rover', inputs)
    assert subscribed.keys() - {'/parameter_events', '/clock'} == inputs
    assert ('unified', '/rover') in peer.get_node_names_and_namespaces()


@pytest.mark.launch(fixture=launched)
def test_parameters_reach_the_node(peer: Node) -> None:
    """From the file; an argument goes before it; what neither names is as always."""
    names = ('cloud_stride', 'device', 'use_sim_time', 'autostart', 'max_range')
    values = parameters_of(peer, '/rover/unified', *names)
    assert values == [7, 'cpu', True, True, 20.0]


@pytest.mark.launch(fixture=launched)
def test_two_cameras(peer: Node) -> None:
    for side, other in (('left', 'right'), ('right', 'left')):
        wait_until_active(peer, f'/{side}/unified')
        inputs = {f'/{side}/image_raw', f'/{side}/camera_info'}
        ask = peer.get_subscriber_names_and_types_by_node
        subscribed = topics_of(ask, f'/{side}', inputs)
        assert inputs <= subscribed.keys()
        ask = peer.get_publisher_names_and_types_by_node
        published = topics_of(ask, f'/{side}', {f'/{side}/label'})
        assert f'/{side}/label' in published
        assert not any(topic.startswith(f'/{other}/') for topic in (*subscribed, *published))


@pytest.mark.launch(fixture=launched)
def test_camera_and_unified(peer: Node, prefix: Path) -> None:
    """Driver and rectification share a container; the node listens to what comes out of it."""
    wait_until_active(peer, '/mast_perception/unified')
    file, deadline = prefix / 'loaded.json', monotonic() + TIMEOUT_S
    while not (file.is_file() and len(json.loads(file.read_text())) == 2):
        assert monotonic() < deadline
        sleep(0.1)
    driver, rectify = json.loads(file.read_text())
    assert (driver['package'], driver['plugin']) == ('v4l2_camera', 'v4l2_camera::V4L2Camera')
    assert driver['name'] == '/mast/driver'
    assert driver['parameters'] == {
        'camera_frame_id': 'camera_optical',
        'camera_info_url': 'file:///mast.yaml',
        'use_intra_process_comms': True,
    }
    assert (rectify['package'], rectify['plugin']) == ('image_proc', 'image_proc::RectifyNode')
    assert rectify['name'] == '/mast/rectify'
    assert rectify['remappings'] == ['image:=image_raw']
    assert rectify['parameters'] == {'use_intra_process_comms': True}
    inputs = {'/mast/image_rect', '/mast/camera_info'}
    ask = peer.get_subscriber_names_and_types_by_node
    assert inputs <= topics_of(ask, '/mast_perception', inputs).keys()


@pytest.mark.launch(fixture=launched, shutdown=True)
def test_sigint_ends_each_with_0() -> None:
    assert EXITS == [0, 0, 0, 0]
