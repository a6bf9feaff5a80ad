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

"""launch/evaluate.launch.py under the real launch system: a bag goes in, a report comes out."""

import json
import os
from pathlib import Path
from threading import Event

from ament_index_python.packages import get_package_share_directory, PackageNotFoundError
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, RegisterEventHandler
from launch.event_handlers import OnProcessExit, OnShutdown
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
import launch_pytest
from lunar_perception.data.bag_writer import convert_scene
from lunar_perception.data.lusnar import Scene
from lunar_perception.synthetic import generate_scene, MoonConfig
import pytest
from tiny_network import save_tiny_network

try:
    LAUNCH = Path(get_package_share_directory('lunar_perception')) / 'launch'
except PackageNotFoundError:
    pytest.skip('needs lunar_perception as colcon installs it', allow_module_level=True)

TIMEOUT_S = 240.0
FRAMES = 2
EXITS: dict[str, int] = {}
SHUT_DOWN = Event()


def note_exit(event: ProcessExited, _: object) -> None:
    EXITS[event.process_name.split('-')[0]] = event.returncode


@pytest.fixture(scope='module')
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('launched') / 'results'


@launch_pytest.fixture(scope='module', auto_shutdown=False)
def launched(results: Path) -> LaunchDescription:
    os.environ['ROS_DOMAIN_ID'] = str(1 + (os.getpid() + 83) % 100)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    folder = results.parent
    generate_scene(folder / 'Moon_1', MoonConfig(seed=6, size=64), FRAMES)
    convert_scene(Scene(folder / 'Moon_1'), folder / 'bag')
    arguments = {
        'bag': str(folder / 'bag'),
        'output': str(results),
        'model': str(save_tiny_network(folder / 'model')),
        'device': 'cpu',
    }
    source = PythonLaunchDescriptionSource(str(LAUNCH / 'evaluate.launch.py'))
    return LaunchDescription(
        [
            RegisterEventHandler(OnProcessExit(on_exit=note_exit)),
            RegisterEventHandler(OnShutdown(on_shutdown=lambda *_: SHUT_DOWN.set())),
            IncludeLaunchDescription(source, launch_arguments=arguments.items()),
            launch_pytest.actions.ReadyToTest(),
        ]
    )


@pytest.mark.launch(fixture=launched)
def test_it_ends_by_itself() -> None:
    assert SHUT_DOWN.wait(TIMEOUT_S)


@pytest.mark.launch(fixture=launched, shutdown=True)
def test_each_ends_with_0_and_every_frame_is_scored(results: Path) -> None:
    assert EXITS == {'unified_node': 0, 'evaluator_node': 0, 'lunar': 0}
    metrics = json.loads((results / 'metrics.json').read_text())
    assert metrics['frames'] == metrics['received'] == metrics['processed'] == FRAMES
    assert (metrics['dropped'], metrics['missing_pairs']) == (0, {})
    assert 'partial' not in metrics
    assert 'Latency of a frame' in (results / 'report.html').read_text()
