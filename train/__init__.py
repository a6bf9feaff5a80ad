# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""Experiments behind the networks; run from a checkout with `python -m train`."""
