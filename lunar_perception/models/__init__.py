# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""Networks: tensors in, tensors out. No files, no ROS."""

from lunar_perception.models.unified import UnifiedConfig, UnifiedModel, UnifiedOutput

__all__ = ['UnifiedConfig', 'UnifiedModel', 'UnifiedOutput']
