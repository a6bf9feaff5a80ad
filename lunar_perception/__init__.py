# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""Terrain labels, metric depth and labelled point clouds for planetary rovers."""
