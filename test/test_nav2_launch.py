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
The mapping launch file under the real launch system.

With stand-ins for what need not be installed: nodes that take their parameters and topics as any
node does, and say what they were given. `test_nav2_installed.py` has Nav2 itself, where it is.
"""

from collections.abc import Iterator
from importlib.util import find_spec
import json
from math import cos, radians, sin
import os
from pathlib import Path
import sys
from typing import Any

from ament_index_python.packages import (
    get_package_share_directory,
    get_packages_with_prefixes,
    PackageNotFoundError,
)
from lifecycle_msgs.srv import GetState
from lunar_perception.data.lusnar_format import LUSNAR_MOUNTING
from lunar_perception.data.ros_frames import camera_pose
from mapping_launch import COSTMAPS, Launched, own_domain, peer_node, TIMEOUT_S
import numpy as np
import pytest
from rclpy.node import Node
from tiny_network import save_tiny_network
import yaml

if find_spec('ros2launch') is None:
    pytest.skip("needs ROS 2's launch system", allow_module_level=True)
try:
    SHARE = Path(get_package_share_directory('lunar_perception'))
except PackageNotFoundError:
    pytest.skip('needs lunar_perception as colcon installs it', allow_module_level=True)

TAKEN = {
    *('points', 'points/hazards', 'points/clearing'),
    *('costmap/label', 'costmap/confidence', 'costmap/label_info'),
}
"""What the parameter files take from the unified node."""

REPORT = """
import json, os, sys
from pathlib import Path
def report(name, content):
    file = Path(os.environ['STAND_IN_REPORTS'], name + '.json')
    file.with_suffix('.part').write_text(json.dumps(content))
    file.with_suffix('.part').rename(file)
"""
RECORDER = """
import signal
report(Path(sys.argv[0]).name, sys.argv[1:])
signal.sigwait({signal.SIGINT, signal.SIGTERM})
"""
COSTMAP = """
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
class Costmap(LifecycleNode):
    def on_configure(self, state):
        report(self.get_name(), {
            'name': self.get_fully_qualified_name(),
            'parameters': {
                name: value.value for name, value in self.get_parameters_by_prefix('').items()
            },
            'topics': {t: self.resolve_topic_name('/perception/' + t) for t in TOPICS},
        })
        return TransitionCallbackReturn.SUCCESS
TOPICS = os.environ['STAND_IN_TOPICS'].split()
rclpy.init()
node = Costmap('costmap', automatically_declare_parameters_from_overrides=True)
try:
    rclpy.spin(node)
except (KeyboardInterrupt, ExternalShutdownException):
    pass
rclpy.try_shutdown()
"""
MANAGER = """
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
rclpy.init()
node = rclpy.create_node('manager', automatically_declare_parameters_from_overrides=True)
parameters = {name: value.value for name, value in node.get_parameters_by_prefix('').items()}
succeeded = []
try:
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        for name in parameters['node_names']:
            client = node.create_client(ChangeState, name + '/change_state')
            client.wait_for_service()
            request = ChangeState.Request(transition=Transition(id=transition))
            future = client.call_async(request)
            rclpy.spin_until_future_complete(node, future)
            succeeded.append(future.result().success)
    report('lifecycle_manager', {'parameters': parameters, 'succeeded': succeeded})
    rclpy.spin(node)
except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
    pass
rclpy.try_shutdown()
"""
STAND_INS = {
    ('nav2_costmap_2d', 'nav2_costmap_2d'): COSTMAP,
    ('nav2_lifecycle_manager', 'lifecycle_manager'): MANAGER,
    ('tf2_ros', 'static_transform_publisher'): RECORDER,
    ('rviz2', 'rviz2'): RECORDER,
    ('spatio_temporal_voxel_layer', 'nothing'): '',
}


@pytest.fixture(scope='module')
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return a domain of our own, and a network that loads at once."""
    folder = tmp_path_factory.mktemp('nav2')
    return {
        **own_domain(folder, 33),
        'TINY_NETWORK': str(save_tiny_network(folder / 'model')),
    }


@pytest.fixture
def stand_ins(tmp_path: Path, environment: dict[str, str]) -> dict[str, str]:
    """Put stand-ins for Nav2, tf2_ros and RViz before anything installed."""
    prefix, reports = tmp_path / 'stand_ins', tmp_path / 'reports'
    reports.mkdir()
    index = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
    index.mkdir(parents=True)
    for (package, executable), program in STAND_INS.items():
        (index / package).touch()
        file = prefix / 'lib' / package / executable
        file.parent.mkdir(parents=True)
        file.write_text(f'#!{sys.executable}{REPORT}{program}')
        file.chmod(0o755)
    return {
        **environment,
        'AMENT_PREFIX_PATH': f'{prefix}{os.pathsep}{environment["AMENT_PREFIX_PATH"]}',
        'STAND_IN_REPORTS': str(reports),
        'STAND_IN_TOPICS': ' '.join(TAKEN),
    }


@pytest.fixture
def peer(environment: dict[str, str]) -> Iterator[Node]:
    with peer_node(environment) as node:
        yield node


def state_of(peer: Node, launched: Launched, name: str) -> str:
    client = peer.create_client(GetState, f'{name}/get_state')
    launched.until(client.service_is_ready, name, peer.spin_once)
    future = client.call_async(GetState.Request())
    launched.until(future.done, name, peer.spin_once)
    return future.result().current_state.label


def flat(values: dict[str, Any], before: str = '') -> dict[str, Any]:
    """Return nested parameters by their full names."""
    found = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f'{before}{name}.')
        else:
            found[before + name] = value
    return found


def test_each_node_is_given_what_it_needs(
    tmp_path: Path, stand_ins: dict[str, str], peer: Node
) -> None:
    layer, namespace = 'stvl', 'rover'
    arguments = {'layer': layer, 'namespace': namespace, 'model': stand_ins['TINY_NETWORK']}
    output, reports = tmp_path / 'output.txt', Path(stand_ins['STAND_IN_REPORTS'])
    names = {*COSTMAPS, 'lifecycle_manager', 'static_transform_publisher', 'rviz2'}
    with Launched(stand_ins, output, device='cpu', **arguments) as launched:
        launched.until(
            lambda: {file.stem for file in reports.glob('*.json')} >= names,
            'all reports',
            peer.spin_once,
        )
        assert state_of(peer, launched, f'/{namespace}/unified') == 'active'
        said = {name: json.loads((reports / f'{name}.json').read_text()) for name in names}
    assert launched.process.returncode == 0

    content = yaml.safe_load((SHARE / 'config' / 'nav2' / f'{layer}.yaml').read_text())
    for costmap in COSTMAPS:
        given = said[costmap]
        assert given['name'] == f'/{costmap}/{costmap}'
        expected = flat(content[costmap][costmap]['ros__parameters']) | {'use_sim_time': False}
        parameters = given['parameters']
        assert {name: parameters[name] for name in expected} == expected
        assert {name: type(parameters[name]) for name in expected} == {
            name: type(value) for name, value in expected.items()
        }
        assert given['topics'] == {topic: f'/{namespace}/{topic}' for topic in TAKEN}

    manager = said['lifecycle_manager']
    assert manager['succeeded'] == [True] * 6
    assert manager['parameters']['bond_timeout'] == 0.0
    assert manager['parameters']['autostart'] is True
    assert manager['parameters']['node_names'] == [
        f'/{namespace}/unified',
        *(f'/{costmap}/{costmap}' for costmap in COSTMAPS),
    ]
    check_camera(said['static_transform_publisher'])
    assert Path(said['rviz2'][said['rviz2'].index('-d') + 1]).is_file()


def check_camera(words: list[str]) -> None:
    """Hold the static transform's arguments against where LuSNAR's left camera sits."""
    given = dict(zip(words[0::2], words[1::2], strict=False))
    assert (given['--frame-id'], given['--child-frame-id']) == ('base_link', 'camera_left_optical')
    expected = camera_pose(LUSNAR_MOUNTING)
    position = [float(given[f'--{axis}']) for axis in 'xyz']
    np.testing.assert_allclose(position, expected.position)
    roll, pitch, yaw = (float(given[f'--{angle}']) for angle in ('roll', 'pitch', 'yaw'))
    assert pitch == 0
    about_x = np.array([[1, 0, 0], [0, cos(roll), -sin(roll)], [0, sin(roll), cos(roll)]])
    about_z = np.array([[cos(yaw), -sin(yaw), 0], [sin(yaw), cos(yaw), 0], [0, 0, 1]])
    down = radians(LUSNAR_MOUNTING.pitch_deg)
    np.testing.assert_allclose(
        about_z @ about_x,  # columns: the optical frame's axes in base_link
        [[0, -sin(down), cos(down)], [-1, 0, 0], [0, -cos(down), -sin(down)]],
        atol=1e-4,
    )


def test_what_is_not_installed_is_named(tmp_path: Path, environment: dict[str, str]) -> None:
    needed = {'nav2_costmap_2d', 'semantic_segmentation_layer'}
    missing = sorted(needed - set(get_packages_with_prefixes()))
    if not missing:
        pytest.skip('all of it is installed')
    output = tmp_path / 'output.txt'
    launched = Launched(environment, output, layer='semantic')
    assert launched.process.wait(TIMEOUT_S) != 0
    said = output.read_text()
    assert 'not installed: ' in said and all(name in said for name in missing)
    assert 'process started' not in said
