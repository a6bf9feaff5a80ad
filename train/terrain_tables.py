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

"""The paper's Tables 1 and 3 beside ours, as Markdown, every figure's definition named."""

from collections.abc import Mapping
from typing import Any

import numpy as np

PAPER_TABLE_1: Mapping[str, tuple[float, float, float, int]] = {
    'bright dune': (99.06, 92.92, 95.89, 113),
    'crater': (95.19, 87.68, 91.28, 203),
    'dark dune': (97.44, 77.55, 86.36, 49),
    'impact ejecta': (100.00, 62.50, 76.92, 8),
    'other': (91.04, 97.66, 94.23, 728),
    'slope streak': (89.66, 73.24, 80.62, 71),
    'spider': (88.89, 80.00, 84.21, 10),
    'swiss cheese': (93.48, 87.76, 90.53, 49),
}
"""Class: precision, recall, F1 in per cent, support."""

PAPER_TABLE_3: Mapping[str, tuple[float | None, float, float]] = {
    'baseline': (88.20, 78.10, 83.45),
    'segmentation head': (90.35, 81.25, 85.92),
    'attention': (91.10, 82.60, 86.75),
    'full': (92.61, 84.70, 88.48),
    'U-Net': (None, 76.0, 82.07),
    'DeepLabV3+': (None, 81.5, 85.89),
}
"""Network: accuracy, 'IoU', 'F1' in per cent; the last two rows stand in the text only."""


def tables(study: Mapping[str, Any]) -> str:
    """Return the paper's Tables 1 and 3 beside a study's, as Markdown, definitions named."""
    parts = []
    held = study['held_out']
    where = (
        f'{held["crops"]} held-out crops of {held["sources"]} sources, split by {held["split"]} '
        f'(fold {held["fold"]} of {held["folds"]}); mean ± standard deviation over '
        f'{study["seeds"]} seeds; per cent'
    )
    if 'full' in study['rows']:
        ours = study['rows']['full']
        rows = [
            [
                'class',
                *(f'{figure}, paper' for figure in ('precision', 'recall', 'F1')),
                'support',
                *(f'{figure}, ours' for figure in ('precision', 'recall', 'F1')),
                'support',
            ]
        ]
        for name, (*theirs, support) in PAPER_TABLE_1.items():
            own = ours['classes'][name]
            rows.append(
                [
                    name,
                    *(f'{value:.2f}' for value in theirs),
                    str(support),
                    *(percent(own.get(figure)) for figure in ('precision', 'recall', 'f1')),
                    str(own['support']),
                ]
            )
        for kind in ('macro', 'weighted'):
            theirs = paper_average(kind)
            rows.append(
                [
                    f'{kind} mean',
                    *(f'{theirs[figure]:.2f}' for figure in ('precision', 'recall', 'f1')),
                    '',
                    *(percent(ours[f'{kind}_{f}']) for f in ('precision', 'recall', 'f1')),
                    '',
                ]
            )
        parts.append(f'Table 1, {where}\n\n{markdown(rows)}')
    rows = [
        [
            'network',
            'accuracy, paper',
            'IoU, paper',
            'F1, paper',
            'accuracy',
            'macro IoU',
            'macro F1',
            'weighted IoU',
            'weighted F1',
        ],
    ]
    for name, own in study['rows'].items():
        theirs = PAPER_TABLE_3[name]
        rows.append(
            [name]
            + ['–' if value is None else f'{value:.2f}' for value in theirs]
            + [
                percent(own[figure])
                for figure in ('accuracy', 'macro_iou', 'macro_f1', 'weighted_iou', 'weighted_f1')
            ]
        )
    macro, weighted = paper_average('macro'), paper_average('weighted')
    parts.append(f'Table 3, {where}\n\n{markdown(rows)}')
    parts.append(
        'Definitions: F1 and IoU count images; truth is one label an image, and IoU of a class is '
        'right / (true + predicted − right). macro = plain mean over classes, weighted = by '
        'support. The paper names neither; its Table 1 gives by these definitions macro F1 '
        f'{macro["f1"]:.1f} and IoU {macro["iou"]:.1f}, weighted {weighted["f1"]:.1f} and '
        f'{weighted["iou"]:.1f}; its Table 3 says 88.48 and 84.70. Its split is random by file, '
        'and its backbone started from ImageNet weights.'
    )
    if 'attention' in study:
        identity, constant = study['attention']['identity'], study['attention']['mean']
        parts.append(
            'Attention taken from the trained network, change of macro F1: gates replaced by '
            f'identity {percent(identity, sign=True)}, by their own mean '
            f'{percent(constant, sign=True)}.'
        )
    return '\n\n'.join(parts)


def paper_average(kind: str) -> dict[str, float]:
    """Return means over the classes of the paper's Table 1, in per cent; IoU = F1 / (2 − F1)."""
    weight = [support if kind == 'weighted' else 1 for *_, support in PAPER_TABLE_1.values()]
    columns = {
        'precision': [row[0] for row in PAPER_TABLE_1.values()],
        'recall': [row[1] for row in PAPER_TABLE_1.values()],
        'f1': [row[2] for row in PAPER_TABLE_1.values()],
        'iou': [100 * row[2] / (200 - row[2]) for row in PAPER_TABLE_1.values()],
    }
    return {name: float(np.average(column, weights=weight)) for name, column in columns.items()}


def percent(value: Mapping[str, Any] | None, *, sign: bool = False) -> str:
    """Return a spread in per cent, as 'mean ± sd'; a dash where there is none."""
    if value is None:
        return '–'
    mark = '+' if sign else ''
    return f'{100 * value["mean"]:{mark}.1f} ± {100 * value["sd"]:.1f}'


def markdown(rows: list[list[str]]) -> str:
    """Return a table whose first row is its head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        '| ' + ' | '.join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + ' |'
        for row in rows
    ]
    lines.insert(1, '|' + '|'.join('-' * (w + 2) for w in widths) + '|')
    return '\n'.join(lines)
