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

"""The package as its users get it: what it declares, what a wheel carries."""

import ast
from collections.abc import Iterator
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path
import re
import subprocess
import sys
import tomllib
from xml.etree import ElementTree
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'lunar_perception'
MANIFEST = ElementTree.parse(ROOT / 'package.xml').getroot()
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())

# What a Python module is called in rosdep and on PyPI, where the names differ.
ROSDEP = {'cv2': 'python3-opencv', 'yaml': 'python3-yaml'}
PYPI = {'cv2': 'opencv-python-headless', 'yaml': 'pyyaml', 'huggingface_hub': 'huggingface-hub'}


def imported_modules(*files: Path) -> Iterator[tuple[Path, str]]:
    """Yield (file, top-level module) of every absolute import in `files`, wherever it stands."""
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name.split('.')[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield file, node.module.split('.')[0]


def declared_to_ros() -> set[str]:
    return {depend.text or '' for depend in MANIFEST.findall('exec_depend')}


def declared_to_pip() -> set[str]:
    project = PROJECT['project']
    lines = [*project['dependencies'], *project['optional-dependencies']['fast']]
    return {re.split('[<>=~ ]', line)[0] for line in lines}


def test_every_import_is_declared() -> None:
    """What pip can't bring stands in package.xml; what ROS doesn't bring, in pyproject.toml."""
    files = [*PACKAGE.rglob('*.py'), *(ROOT / 'launch').glob('*.py')]
    missing = []
    for file, module in imported_modules(*files):
        if module in sys.stdlib_module_names or module == 'lunar_perception':
            continue
        for_ros = {module, ROSDEP.get(module, f'python3-{module}')} & declared_to_ros()
        for_pip = PYPI.get(module, module) in declared_to_pip()
        if not (for_ros or for_pip):
            missing.append(f'{file.relative_to(ROOT)}: {module}')
    assert not missing


def test_only_the_nodes_import_ros() -> None:
    """The rest runs without ROS, so none of it may name a module that package.xml brings."""
    ros = {name for name in declared_to_ros() if not name.startswith('python3-')}
    others = [file for file in PACKAGE.rglob('*.py') if PACKAGE / 'nodes' not in file.parents]
    wrong = {f'{file.relative_to(ROOT)}: {m}' for file, m in imported_modules(*others) if m in ros}
    assert not wrong


def test_the_manifests_agree() -> None:
    setup = (ROOT / 'setup.py').read_text()
    assert MANIFEST.findtext('name') == PROJECT['project']['name'] == 'lunar_perception'
    assert f"version='{MANIFEST.findtext('version')}'" in setup
    assert f"license='{MANIFEST.findtext('license')}'" in setup
    assert MANIFEST.findtext('export/build_type') == 'ament_python'
    # With a malformed address colcon quietly takes the package for plain Python.
    maintainer = MANIFEST.find('maintainer')
    assert maintainer is not None
    assert re.fullmatch(r'[\w.-]+@[\w-]+(\.[\w-]+)+', maintainer.get('email', ''))


def test_every_pin_is_a_version_of_something_used() -> None:
    """A pin whose range moved on would silently hold nothing."""
    groups = PROJECT['dependency-groups']
    used = {re.split('[<>=~ []', line)[0] for group in groups.values() for line in group}
    used |= declared_to_pip() | {
        'timm',
        'tokenizers',
    }  # these two come with the networks' libraries
    pins = dict(pin.split('==') for pin in PROJECT['tool']['uv']['constraint-dependencies'])
    assert set(pins) <= used


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel of a copy of the tree, as pip would, without a network."""
    source = tmp_path_factory.mktemp('source')
    listing = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode != 0:
        pytest.skip('not a git checkout, so what belongs to the tree is not known')
    for name in filter(None, listing.stdout.split('\0')):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = 'from setuptools.build_meta import build_wheel; build_wheel("dist")'
    subprocess.run([sys.executable, '-c', build], cwd=source, check=True, capture_output=True)
    return next((source / 'dist').glob('*.whl'))


def test_the_wheel_carries_what_the_package_reads(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    data = [
        file.relative_to(ROOT).as_posix()
        for file in PACKAGE.rglob('*')
        if file.is_file() and '__pycache__' not in file.parts
    ]
    assert set(data) <= names
    for shared in [*ROOT.glob('launch/*.launch.py'), *ROOT.glob('config/*.*')]:
        place = f'share/lunar_perception/{shared.relative_to(ROOT).as_posix()}'
        assert any(name.endswith(f'.data/data/{place}') for name in names), place
    assert not any(name.startswith(('test/', 'train/')) for name in names)


def test_the_commands_are_installed() -> None:
    commands = {point.name for point in entry_points(group='console_scripts')}
    assert {'lunar-perception', 'unified_node'} <= commands
    assert 'lunar_perception' in packages_distributions()


def test_importing_the_package_is_cheap() -> None:
    """The label sets and the command line must not wait for a network's library, nor for ROS."""
    code = (
        'import sys, lunar_perception, lunar_perception.cli; lunar_perception.LUNAR_TERRAIN;'
        'print(*{"torch", "transformers", "rclpy", "matplotlib"} & set(sys.modules))'
    )
    loaded = subprocess.run(
        [sys.executable, '-c', code], check=True, capture_output=True, text=True
    )
    assert loaded.stdout.split() == []


def test_readme_names_every_topic() -> None:
    """What the node publishes and what the README promises are one list."""
    check = ast.parse((ROOT / '.ci' / 'check_node.py').read_text())
    table = next(
        node.value
        for node in check.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'TOPICS'
    )
    assert isinstance(table, ast.Dict)
    topics = [ast.literal_eval(key) for key in table.keys if key is not None]
    rows = [line for line in (ROOT / 'README.md').read_text().splitlines() if line.startswith('|')]
    cells = set(re.findall('`([^`]+)`', ' '.join(row.split('|')[1] for row in rows)))
    assert {topic.removeprefix('/perception/') for topic in topics} <= cells
