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

"""Loss curves as a picture."""

import json
from pathlib import Path

from lunar_perception.atomic import atomic_path
from matplotlib.figure import Figure


def draw_curves(log: Path, picture: Path) -> None:
    """Draw the figures of a log.jsonl over the steps as a PNG: training left, held-out right."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    figure = Figure(figsize=(12, 4.5), layout='constrained')
    for axes, part in zip(figure.subplots(1, 2), ('train', 'held_out'), strict=True):
        own = [row for row in rows if row['part'] == part]
        names = [n for n in (own[0] if own else {}) if n not in ('step', 'seconds', 'part')]
        for name in names:
            if name not in ('learning_rate', 'gradient_norm', 'rmse'):
                axes.plot([row['step'] for row in own], [row.get(name) for row in own], label=name)
        axes.set(title=part.replace('_', ' '), xlabel='step')
        axes.grid(alpha=0.3)
        if names:
            axes.legend(fontsize='small')
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, format='png', dpi=110)
