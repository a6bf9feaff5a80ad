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

"""Nav2's parameter files: every key is one that is declared, every topic one that is published."""

from collections.abc import Iterator
from copy import deepcopy
from itertools import product
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lunar_perception.taxonomy import LUNAR_TERRAIN
import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / 'config' / 'nav2').glob('*.yaml'))
COSTMAPS = ('local_costmap', 'global_costmap')
DECLARED = yaml.safe_load((ROOT / 'test' / 'nav2_parameters.yaml').read_text())
TYPES = {bool: 'bool', int: 'int', float: 'double', str: 'string', list: 'string_array'}

LAYER = {
    'obstacle': 'nav2_costmap_2d::ObstacleLayer',
    'voxel': 'nav2_costmap_2d::VoxelLayer',
    'stvl': 'spatio_temporal_voxel_layer/SpatioTemporalVoxelLayer',
    'semantic': 'semantic_segmentation_layer::SemanticSegmentationLayer',
}
SET_IN_EACH_SOURCE = {
    'obstacle': {
        *('topic', 'data_type', 'marking', 'clearing', 'min_obstacle_height'),
        *('max_obstacle_height', 'obstacle_min_range', 'obstacle_max_range'),
        *('raytrace_min_range', 'raytrace_max_range', 'expected_update_rate'),
    },
    'stvl': {'topic', 'data_type', 'marking', 'clearing', 'expected_update_rate'},
    'semantic': {
        *('segmentation_topic', 'confidence_topic', 'labels_topic', 'pointcloud_topic'),
        *('min_obstacle_distance', 'max_obstacle_distance', 'tile_map_decay_time'),
    },
}
SET_IN_EACH_SOURCE['voxel'] = SET_IN_EACH_SOURCE['obstacle']


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / 'config' / 'nav2' / f'{name}.yaml').read_text())


def costmaps(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield names and parameters of a file's costmaps."""
    for name, nodes in content.items():
        yield name, nodes[name]['ros__parameters']


def layer_of(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the perceiving layer of a costmap: its first plugin."""
    return parameters[parameters['plugins'][0]]


def sources_of(layer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {source: layer[source] for source in layer['observation_sources'].split()}


def faults(content: dict[str, Any]) -> list[str]:
    """Return what Nav2 would ignore, or end at: unknown keys, and values of another type."""
    found: list[str] = []

    def check(place: str, values: dict[str, Any], declared: dict[str, Any]) -> None:
        for key, value in values.items():
            if key not in declared:
                found.append(f'{place}.{key} is not a parameter')
            elif TYPES.get(type(value)) != declared[key]['type']:
                found.append(f'{place}.{key} = {value!r} is not a {declared[key]["type"]}')

    def without(values: dict[str, Any], names: list[str]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key not in names}

    for name, parameters in costmaps(content):
        layers = parameters['plugins']
        check(name, without(parameters, layers), DECLARED['costmap']['parameters'])
        for layer in layers:
            values = parameters[layer]
            known = DECLARED['plugins'].get(values.get('plugin'))
            if known is None:
                found.append(f'{name}.{layer}.plugin = {values.get("plugin")!r} is not known')
                continue
            sources = values.get('observation_sources', '').split()
            check(f'{name}.{layer}', without(values, sources), known['parameters'])
            for source in sources:
                place, of_source = f'{name}.{layer}.{source}', values.get(source, {})
                kinds = of_source.get('class_types', [])
                check(place, without(of_source, kinds), known['per_source'])
                for kind in kinds:
                    check(f'{place}.{kind}', of_source[kind], known['per_class_type'])
    return found


def test_the_list_says_what_was_read() -> None:
    for source in DECLARED['sources'].values():
        assert source['repository'].startswith('https://github.com/')
        assert len(source['commit']) == 40
    for known in (DECLARED['costmap'], *DECLARED['plugins'].values()):
        assert known['source'] in DECLARED['sources']
        groups = ('parameters', 'per_source', 'per_class_type')
        for name, fact in (item for g in groups for item in known.get(g, {}).items()):
            default, kind = fact['default'], fact['type']
            assert default is None or TYPES[type(default)] == kind, name


def test_each_layer_has_its_file() -> None:
    assert {path.stem for path in FILES} == LAYER.keys()
    for path in FILES:
        content = yaml.safe_load(path.read_text())
        assert tuple(content) == COSTMAPS
        for _, parameters in costmaps(content):
            assert layer_of(parameters)['plugin'] == LAYER[path.stem]


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_every_key_is_declared_with_its_type(path: Path) -> None:
    assert faults(yaml.safe_load(path.read_text())) == []


def paths_of(tree: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield where the values of a tree stand."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from paths_of(value, (*at, key))
    else:
        yield at


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_every_misspelt_key_is_found(path: Path) -> None:
    """Each key of the file in turn, with one letter too many."""
    content = yaml.safe_load(path.read_text())
    names = {'observation_sources', 'plugins', 'class_types', 'plugin'}  # what the checks go by
    tried = 0
    for *way, key in paths_of(content):
        if key in names:
            continue
        spoilt = deepcopy(content)
        values = spoilt
        for step in way:
            values = values[step]
        values[f'{key}s'] = values.pop(key)
        place = '.'.join(step for step in way[1:] if step != 'ros__parameters')
        assert faults(spoilt) == [f'{place}.{key}s is not a parameter']
        tried += 1
    assert tried > 50


@pytest.mark.parametrize(
    ('key', 'value'),
    [('resolution', 1), ('width', 16.0), ('footprint', [0.5]), ('rolling_window', 'yes')],
)
def test_a_value_of_another_type_is_found(key: str, value: Any) -> None:
    content = read('obstacle')
    content['local_costmap']['local_costmap']['ros__parameters'][key] = value
    (fault,) = faults(content)
    assert fault.startswith(f'local_costmap.{key} = ')


def test_an_unknown_plugin_is_found() -> None:
    content = read('obstacle')
    layer_of(content['local_costmap']['local_costmap']['ros__parameters'])['plugin'] = 'Obstacle'
    assert faults(content) == ["local_costmap.obstacle_layer.plugin = 'Obstacle' is not known"]


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_rover_scale(path: Path) -> None:
    """Windows, cells and footprint of a rover, and nothing that matters left to defaults."""
    for name, parameters in costmaps(yaml.safe_load(path.read_text())):
        assert parameters['rolling_window'] is True
        # A bag's clock jumps from 0 to the time of recording, and a wait is not to end by that.
        assert parameters['initial_transform_timeout'] > 2**31
        assert 10 <= parameters['width'] == parameters['height'] <= 20
        assert 0.05 <= parameters['resolution'] <= 0.1
        corners = np.array(yaml.safe_load(parameters['footprint']))
        assert corners.shape == (4, 2)
        inflation = parameters['inflation_layer']
        assert inflation['inflation_radius'] > np.hypot(*corners.T).max()
        assert parameters['plugins'][-1] == 'inflation_layer'  # it inflates what stands before it
        for source in sources_of(layer_of(parameters)).values():
            assert SET_IN_EACH_SOURCE[path.stem] <= source.keys(), name


@pytest.mark.parametrize(
    ('stem', 'costmap'), list(product(('obstacle', 'voxel', 'stvl'), COSTMAPS))
)
def test_hazards_mark_and_clearing_clears(stem: str, costmap: str) -> None:
    pytest.importorskip('rclpy', reason='needs ROS 2')
    from lunar_perception.nodes.unified_parameters import UnifiedParameters

    reach = UnifiedParameters().max_range
    layer = layer_of(dict(costmaps(read(stem)))[costmap])
    sources = sources_of(layer)
    roles = {name: (source['marking'], source['clearing']) for name, source in sources.items()}
    assert roles == {'hazards': (True, False), 'clearing': (False, True)}
    for source in sources.values():
        assert source['data_type'] == 'PointCloud2'
    hazards, clearing = sources['hazards'], sources['clearing']
    # A hazard is marked at any height; so is a ray into the sky let through to its end.
    for limits in (hazards, layer) if stem != 'stvl' else (hazards,):
        assert limits['min_obstacle_height'] < -reach < reach < limits['max_obstacle_height']
    if stem == 'stvl':
        assert 2.5 < hazards['obstacle_range'] < clearing['max_z'] <= reach
        return
    assert clearing['min_obstacle_height'] < -reach < reach < clearing['max_obstacle_height']
    # What is marked can be cleared, and no ray is believed beyond its end.
    assert 2.5 < hazards['obstacle_max_range'] < clearing['raytrace_max_range'] <= reach
    if stem == 'voxel':
        assert layer['z_voxels'] <= 16
        # Level ground lies amid a layer: no ray enters the one below it.
        above_border = -layer['origin_z'] % layer['z_resolution']
        assert 0.25 <= above_border <= layer['z_resolution'] - 0.25


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_every_topic_is_one_of_the_node_s(path: Path) -> None:
    pytest.importorskip('rclpy', reason='needs ROS 2')
    from lunar_perception.nodes.outputs import OUTPUTS

    published = {f'/perception/{name}': out.message_type.__name__ for name, out in OUTPUTS.items()}
    published['/perception/costmap/label_info'] = 'LabelInfo'
    expected = {
        'topic': 'PointCloud2',
        'pointcloud_topic': 'PointCloud2',
        'segmentation_topic': 'Image',
        'confidence_topic': 'Image',
        'labels_topic': 'LabelInfo',
    }
    topics = set()
    for _, parameters in costmaps(yaml.safe_load(path.read_text())):
        for source in sources_of(layer_of(parameters)).values():
            topics |= {(source[key], expected[key]) for key in expected.keys() & source.keys()}
    assert topics
    assert topics <= published.items()


def test_class_types_cover_what_label_info_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every class of the message in exactly one class_type, and no other there."""
    pytest.importorskip('rclpy', reason='needs ROS 2')
    from builtin_interfaces.msg import Time
    from lunar_perception.nodes import label_info

    if label_info.LabelInfo is None:  # vision_msgs is not on PyPI; its messages' fields are known
        monkeypatch.setattr(
            label_info,
            'LabelInfo',
            lambda threshold: SimpleNamespace(header=SimpleNamespace(), threshold=threshold),
        )
        monkeypatch.setattr(label_info, 'VisionClass', SimpleNamespace)
    message = label_info.label_info(LUNAR_TERRAIN, 0.0, Time())
    announced = sorted(entry.class_name for entry in message.class_map)
    for _, parameters in costmaps(read('semantic')):
        for source in sources_of(layer_of(parameters)).values():
            kinds = source['class_types']
            assert kinds  # without any, the layer ends the process
            assert sorted(name for kind in kinds for name in source[kind]['classes']) == announced
            costs = {
                name: source[kind]['max_cost']
                for kind in kinds
                for name in source[kind]['classes']
            }
            assert costs['rock'] == costs['crater'] == 254
            assert costs['regolith'] == 0


def flat(values: dict[str, Any], before: str = '') -> dict[str, Any]:
    """Return nested parameters by their full names."""
    found = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f'{before}{name}.')
        else:
            found[before + name] = value
    return found


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_ros_reads_the_file_as_yaml_does(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The costmaps' nodes get each parameter, with the type that it has in the file."""
    rclpy = pytest.importorskip('rclpy', reason='needs ROS 2')
    monkeypatch.setenv('ROS_DOMAIN_ID', str(1 + (os.getpid() + 41) % 100))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        for name, parameters in costmaps(yaml.safe_load(path.read_text())):
            node = rclpy.create_node(
                name,
                namespace=name,
                context=context,
                cli_args=['--ros-args', '--params-file', str(path)],
                automatically_declare_parameters_from_overrides=True,
                enable_rosout=False,
            )
            given = {key: value.value for key, value in node.get_parameters_by_prefix('').items()}
            node.destroy_node()
            for key, value in flat(parameters).items():
                assert (type(given[key]), given[key]) == (type(value), value), key
    finally:
        context.try_shutdown()


def test_rviz_shows_topics_that_there_are() -> None:
    pytest.importorskip('rclpy', reason='needs ROS 2')
    from lunar_perception.nodes.outputs import OUTPUTS

    rviz = yaml.safe_load((ROOT / 'config' / 'nav2_mapping.rviz').read_text())
    displays = rviz['Visualization Manager']['Displays']
    types = {
        display['Topic']['Value']: display['Class'].removeprefix('rviz_default_plugins/')
        for display in displays
        if 'Topic' in display
    }
    published = {f'/perception/{t}': o.message_type.__name__ for t, o in OUTPUTS.items()}
    published |= {f'/{costmap}/costmap': 'Map' for costmap in COSTMAPS}
    published['/local_costmap/published_footprint'] = 'Polygon'
    assert types.items() <= published.items()
    assert {f'/{costmap}/costmap' for costmap in COSTMAPS} <= types.keys()
