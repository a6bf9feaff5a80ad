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

"""Figures of a classifier, from its confusion matrix."""

from typing import Any

from lunar_perception.taxonomy import HIRISE_LANDMARKS, Taxonomy
import numpy as np


class ClassificationScore:
    """
    Counts of images by true and predicted class, and what follows from them.

    Definitions, of a class: precision = right / predicted, recall = right / true, F1 = their
    harmonic mean, IoU = right / (true + predicted − right), support = true. `macro` is the plain
    mean over classes that occur in the truth, `weighted` the mean by support; accuracy = right /
    all. A class that is never predicted has precision 0.

    IoU here counts images, not pixels: of truth that is one label an image, 'the intersection of
    the images called a crater with those that are' is all that it can mean.
    """

    def __init__(self, taxonomy: Taxonomy = HIRISE_LANDMARKS) -> None:
        self.taxonomy = taxonomy
        self.confusion = np.zeros((len(taxonomy), len(taxonomy)), np.int64)
        """Images by true class (row) and predicted class (column)."""

    def update(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Add images: ids (N,) each. Raises ValueError for an id that is no class."""
        classes = len(self.taxonomy)
        for name, ids in (('true', truth), ('predicted', predicted)):
            bad = (ids < 0) | (ids >= classes)
            if bad.any():
                raise ValueError(f'{name} id {ids[bad][0]} is not of {self.taxonomy.name}')
        counts = np.bincount(truth * classes + predicted, minlength=classes**2)
        self.confusion += counts.reshape(classes, classes)

    def by_class(self) -> dict[str, np.ndarray]:
        """Return precision, recall, f1, iou and support, each (C,); NaN without support."""
        right = np.diag(self.confusion).astype(float)
        true, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        figures = {
            'precision': right / np.maximum(predicted, 1),
            'recall': right / np.maximum(true, 1),
            'f1': 2 * right / np.maximum(true + predicted, 1),
            'iou': right / np.maximum(true + predicted - right, 1),
        }
        absent = true == 0
        return {**{k: np.where(absent, np.nan, v) for k, v in figures.items()}, 'support': true}

    def to_dict(self) -> dict[str, Any]:
        """Return accuracy, macro and weighted figures, the classes' own, and the matrix."""
        figures = self.by_class()
        support = figures.pop('support')
        total = int(support.sum())
        if not total:
            raise ValueError('no image was scored')
        present = support > 0
        weight = support[present] / total
        names = self.taxonomy.names
        return {
            'accuracy': float(np.trace(self.confusion) / total),
            'macro': {k: float(v[present].mean()) for k, v in figures.items()},
            'weighted': {k: float(v[present] @ weight) for k, v in figures.items()},
            'classes': {
                name: {
                    **{k: float(v[i]) if present[i] else None for k, v in figures.items()},
                    'support': int(support[i]),
                }
                for i, name in enumerate(names)
            },
            'confusion': self.confusion.tolist(),
            'images': total,
        }
