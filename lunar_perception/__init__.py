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

"""Terrain labels, metric depth and labelled point clouds for planetary rovers."""

from importlib import import_module
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
    from lunar_perception.camera import LUSNAR_CAMERA, PinholeCamera
    from lunar_perception.inference.prediction import Prediction
    from lunar_perception.inference.predictor import UnifiedPredictor
    from lunar_perception.inference.terrain import TerrainPrediction, TerrainPredictor
    from lunar_perception.models.terrain import TerrainConfig, TerrainModel, TerrainOutput
    from lunar_perception.models.unified import UnifiedConfig, UnifiedModel, UnifiedOutput
    from lunar_perception.taxonomy import HIRISE_LANDMARKS, LUNAR_TERRAIN, Taxonomy

# Where each public name lives. It is imported when first asked for (PEP 562), so that the command
# line and the label sets do not wait for torch.
_HOMES = {
    'HIRISE_LANDMARKS': 'taxonomy',
    'LUNAR_TERRAIN': 'taxonomy',
    'LUSNAR_CAMERA': 'camera',
    'PinholeCamera': 'camera',
    'Prediction': 'inference.prediction',
    'Taxonomy': 'taxonomy',
    'TerrainConfig': 'models.terrain',
    'TerrainModel': 'models.terrain',
    'TerrainOutput': 'models.terrain',
    'TerrainPrediction': 'inference.terrain',
    'TerrainPredictor': 'inference.terrain',
    'UnifiedConfig': 'models.unified',
    'UnifiedModel': 'models.unified',
    'UnifiedOutput': 'models.unified',
    'UnifiedPredictor': 'inference.predictor',
}

__all__ = [
    'HIRISE_LANDMARKS',
    'LUNAR_TERRAIN',
    'LUSNAR_CAMERA',
    'PinholeCamera',
    'Prediction',
    'Taxonomy',
    'TerrainConfig',
    'TerrainModel',
    'TerrainOutput',
    'TerrainPrediction',
    'TerrainPredictor',
    'UnifiedConfig',
    'UnifiedModel',
    'UnifiedOutput',
    'UnifiedPredictor',
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
