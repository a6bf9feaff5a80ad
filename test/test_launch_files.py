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

"""What can be checked of launch files and configurations without starting anything."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location('launch_file', ROOT / 'launch' / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rviz_shows_topics_of_the_node() -> None:
    pytest.importorskip('rclpy', reason='needs ROS 2')
    from lunar_perception.nodes.outputs import OUTPUTS

    rviz = yaml.safe_load((ROOT / 'config' / 'unified.rviz').read_text())
    displays = rviz['Visualization Manager']['Displays']
    types = {
        display['Topic']['Value']: display['Class'].removeprefix('rviz_default_plugins/')
        for display in displays
    }
    published = {f'/perception/{t}': o.message_type.__name__ for t, o in OUTPUTS.items()}
    published['/perception/image'] = 'Image'
    assert len(types) == len(displays)
    assert types.items() <= published.items()


@pytest.mark.parametrize('name', ['unified', 'mars_terrain'])
def test_launch_arguments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = pytest.importorskip('launch', reason='needs the ROS 2 launch system')
    pytest.importorskip('launch_ros', reason='needs the ROS 2 launch system')
    file = load(f'{name}.launch.py')
    monkeypatch.setattr(file, 'get_package_share_directory', lambda _: str(ROOT))
    arguments = {a.name: a for a in file.generate_launch_description().get_launch_arguments()}
    assert arguments.keys() == {
        *('namespace', 'params_file', 'use_sim_time', 'log_level', 'image_topic'),
        *('camera_info_topic', 'image_transport', 'autostart', 'model', 'device'),
    }
    assert all(argument.description for argument in arguments.values())
    defaults = {
        name: launch.utilities.perform_substitutions(launch.LaunchContext(), a.default_value)
        for name, a in arguments.items()
    }
    assert defaults['namespace'] == 'perception'
    assert yaml.safe_load(Path(defaults['params_file']).read_text())
