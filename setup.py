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

"""Build lunar_perception for colcon (ament_python), uv and pip alike."""

from glob import glob

from setuptools import find_packages, setup

package_name = 'lunar_perception'

setup(
    name=package_name,
    version='0.1.0',
    license='Apache-2.0',
    python_requires='>=3.11,<3.14',
    packages=[
        *find_packages(include=[package_name, f'{package_name}.*']),
        # No code; named so that setuptools takes the folders.
        f'{package_name}.weights.rover',
        f'{package_name}.weights.terrain',
    ],
    package_data={
        '': ['*.jinja', '*.png', '*.xml', 'py.typed'],
        f'{package_name}.weights.rover': ['*'],
        f'{package_name}.weights.terrain': ['*'],
    },
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{package_name}']),
        (f'share/{package_name}', ['package.xml']),
        (f'share/{package_name}/launch', glob('launch/*.launch.py')),
        (
            f'share/{package_name}/config',
            [*glob('config/*.*'), f'{package_name}/commands/fastdds.xml'],
        ),
        (f'share/{package_name}/config/nav2', glob('config/nav2/*.yaml')),
    ],
    zip_safe=False,
    entry_points={
        'console_scripts': [
            'lunar-perception = lunar_perception.cli:main',
            'evaluator_node = lunar_perception.nodes.evaluator_node:main',
            'terrain_node = lunar_perception.nodes.terrain_node:main',
            'unified_node = lunar_perception.nodes.unified_node:main',
        ],
    },
)
