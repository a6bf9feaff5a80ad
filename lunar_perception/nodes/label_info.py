# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
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
