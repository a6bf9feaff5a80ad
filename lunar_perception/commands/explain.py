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

"""`lunar-perception explain`: where an image shows what the network takes it for."""

from argparse import Namespace
from dataclasses import asdict
from typing import Any

from lunar_perception.atomic import write_json, write_png
from lunar_perception.commands import CommandError
from lunar_perception.commands.images import find_images, ReadImages
from lunar_perception.inference.explain import explain, Explanation
from lunar_perception.inference.terrain import TerrainPrediction, TerrainPredictor
from lunar_perception.visualize import overlay_evidence


def run(arguments: Namespace) -> None:
    """Write both overlays and their figures for an image; CommandError if it can't be done."""
    if arguments.image.is_dir():
        raise CommandError(f'{arguments.image} is a folder; name an image')
    images = ReadImages('explain', find_images(arguments.image))
    try:
        predictor = TerrainPredictor.from_pretrained(arguments.model)
    except ValueError as error:
        raise CommandError(error) from error
    for path, image in images:
        prediction = predictor(image)
        found = explain(predictor, image)
        stem = arguments.output / path.stem
        write_png(f'{stem}_gradcam.png', overlay_evidence(image, found.grad_cam))
        write_png(
            f'{stem}_integrated_gradients.png',
            overlay_evidence(image, found.integrated_gradients),
        )
        figures = {'image': path.name, **figures_of(prediction, found, predictor)}
        write_json(f'{stem}_explanation.json', figures)


def figures_of(
    prediction: TerrainPrediction, found: Explanation, predictor: TerrainPredictor
) -> dict[str, Any]:
    """Return what the JSON says: the class, the attributions' sum, the maps' agreement."""
    names, attributions = predictor.taxonomy.names, found.attributions
    return {
        'class': names[found.class_id],
        'class_id': found.class_id,
        'probability': float(prediction.probabilities[found.class_id]),
        'probabilities': dict(zip(names, map(float, prediction.probabilities), strict=True)),
        'grad_cam': {'largest': float(found.grad_cam.max())},
        'integrated_gradients': {
            'baseline': 'ImageNet mean colour',
            'steps': attributions.steps,
            'difference': attributions.difference,
            'sum': float(attributions.values.double().sum()),
            'completeness_error': attributions.error,
            'tolerance': attributions.tolerance,
            'complete': attributions.complete,
        },
        'consistency': {'pixels': asdict(found.pixels), 'cells': asdict(found.cells)},
    }
