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

"""Pictures of where a classifier errs: its confusion matrix, its failures with their heatmaps."""

import json
from pathlib import Path

from lunar_perception.atomic import atomic_path
from lunar_perception.inference import TerrainPredictor
from lunar_perception.inference.explain import grad_cam, resized
from lunar_perception.taxonomy import HIRISE_LANDMARKS
from lunar_perception.visualize import overlay_evidence
from matplotlib.figure import Figure
import numpy as np
from train.terrain_batches import CropImages


def draw_confusion(confusion: np.ndarray, picture: Path) -> None:
    """Draw a confusion matrix (C, C) of counts as a PNG, coloured by share of the true class."""
    names = HIRISE_LANDMARKS.names
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(7.5, 6.5), layout='constrained')
    axes = figure.subplots()
    shown = axes.imshow(share, vmin=0, vmax=1, cmap='Blues')
    for row, column in np.ndindex(*confusion.shape):
        axes.text(
            column,
            row,
            str(confusion[row, column]),
            ha='center',
            va='center',
            color='white' if share[row, column] > 0.5 else 'black',
        )
    axes.set_xticks(range(len(names)), names, rotation=40, ha='right')
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel='predicted', ylabel='true')
    figure.colorbar(shown, label='share of the true class')
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, format='png', dpi=110)


def draw_failures(run: Path, images: CropImages, count: int = 8) -> None:
    """
    Draw `failures.png` in a run's folder: the held-out crops that it is most surely wrong about.

    Beside each crop stand the places that speak for the class it was taken for and for the true
    one (Grad-CAM). Without failures there is no picture.
    """
    rows = json.loads((run / 'predictions.json').read_text())
    wrong = [row for row in rows if int(np.argmax(row['probability'])) != row['truth']]
    wrong = sorted(wrong, key=lambda row: -max(row['probability']))[:count]
    if not wrong:
        return
    place = {crop.path.name: i for i, crop in enumerate(images.crops)}
    predictor = TerrainPredictor.from_pretrained(run / 'weights', device='cpu')
    size = (predictor.config.input_size,) * 2
    figure = Figure(figsize=(7.5, 2.5 * len(wrong)), layout='constrained')
    for axes, row in zip(figure.subplots(len(wrong), 3, squeeze=False), wrong, strict=True):
        image = np.ascontiguousarray(
            np.broadcast_to(images.image[place[row['name']]], (*images.image.shape[1:3], 3))
        )
        features = predictor.model.features(predictor.network_input(image))
        predicted = int(np.argmax(row['probability']))
        shown = [(image, f'true: {HIRISE_LANDMARKS.names[row["truth"]]}')]
        for label in (predicted, row['truth']):
            heat = resized(grad_cam(predictor.model, features, size, label), image.shape[:2])
            title = f'{HIRISE_LANDMARKS.names[label]}: {100 * row["probability"][label]:.0f} %'
            shown.append((overlay_evidence(image, heat), title))
        for axis, (picture, title) in zip(axes, shown, strict=True):
            axis.imshow(picture)
            axis.set_title(title, fontsize='small')
            axis.set_axis_off()
    with atomic_path(run / 'failures.png') as temporary:
        figure.savefig(temporary, format='png', dpi=100)
