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

"""What figures were measured on: processor, device, versions."""

from importlib.metadata import PackageNotFoundError, version
import os
from pathlib import Path
import platform
import sys
from typing import Any

LIBRARIES = (
    'torch',
    'transformers',
    'timm',
    'segmentation-models-pytorch',
    'onnxruntime',
    'openvino',
    'ros-rclpy',
    'numpy',
    'opencv-python-headless',
    'embreex',
)


def processor() -> str:
    """Return the processor's name, as Linux tells it; on x86 with what tells generations apart."""
    told: dict[str, str] = {}
    for line in Path('/proc/cpuinfo').read_text().splitlines():
        key, _, value = line.partition(':')
        told.setdefault(key.strip(), value.strip())
    name = told.get('model name', platform.machine())
    # Virtual machines often call processors of several generations by one name.
    if {'cpu family', 'model'} <= told.keys():
        name += f' (family {told["cpu family"]}, model {told["model"]})'
    return name


def hardware() -> dict[str, Any]:
    """Return processor, cores, and where torch is in use its threads and the GPU's name."""
    found: dict[str, Any] = {'processor': processor(), 'cores': len(os.sched_getaffinity(0))}
    torch = sys.modules.get('torch')
    if torch is not None:
        found['threads'] = torch.get_num_threads()
        if torch.cuda.is_initialized():
            found['gpu'] = torch.cuda.get_device_name()
    return found


def versions() -> dict[str, str]:
    """Return Python's version, and that of each library that is installed."""
    found = {'python': platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
