# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""Data sets on disk."""
