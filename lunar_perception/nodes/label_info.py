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

"""vision_msgs/LabelInfo, where vision_msgs is installed."""

from typing import Any

from builtin_interfaces.msg import Time
from lunar_perception.taxonomy import Taxonomy

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:  # not on PyPI; comes with a ROS installation
    LabelInfo = VisionClass = None

__all__ = ['LabelInfo', 'label_info']


def label_info(taxonomy: Taxonomy, threshold: float, stamp: Time) -> Any:
    """Return a LabelInfo with the classes' ids and names, and the confidence threshold."""
    message = LabelInfo(threshold=threshold)
    message.header.stamp = stamp
    message.class_map = [
        VisionClass(class_id=class_id, class_name=name)
        for class_id, name in enumerate(taxonomy.names)
    ]
    return message
