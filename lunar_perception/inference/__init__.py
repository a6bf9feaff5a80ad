# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""An image in, a prediction out."""

from lunar_perception.inference.predictor import Prediction, UnifiedPredictor

__all__ = ['Prediction', 'UnifiedPredictor']
