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

"""The ROS 2 side: the only folder that imports ROS."""

from importlib import import_module
from importlib.util import find_spec
import sys


def _import_type_support_alone() -> None:
    """
    Import what loads messages' C code without the generator of message code beside it.

    Both are in one package, which imports a parser and a template engine for the generator; they
    take as long as all else that a node imports of ROS. It does without where they are missing.
    """
    package = 'rosidl_generator_py'
    generator = f'{package}.generate_py_impl'
    if package in sys.modules or find_spec(package) is None:
        return
    sys.modules[generator] = None  # type: ignore[assignment]
    try:
        import_module(package)
    finally:
        del sys.modules[generator]


_import_type_support_alone()
