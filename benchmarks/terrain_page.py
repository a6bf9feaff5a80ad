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

"""
Write the figures in docs/terrain.md and in the terrain weights' card from benchmarks/results.

    python -m benchmarks.terrain_page

A part of a page that stands between `<!-- name -->` and `<!-- end of name -->` is replaced; where
its record is missing it stays as it is.
"""

from collections.abc import Callable, Mapping
import json
from pathlib import Path
import re
from typing import Any

from lunar_perception.atomic import write_text
from train.terrain_tables import markdown, percent, tables

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results'
PAGES = (
    ROOT / 'docs' / 'terrain.md',
    ROOT / 'lunar_perception' / 'weights' / 'terrain' / 'README.md',
)


def main() -> None:
    """Fill in what there are records of."""
    parts = {}
    for name, write in PARTS.items():
        path = RESULTS / f'terrain_{name}.json'
        if path.is_file():
            parts[name] = write(json.loads(path.read_text())['results'])
    for page in PAGES:
        write_text(page, filled(page.read_text(), parts))


def filled(text: str, parts: Mapping[str, str]) -> str:
    """Return a page with the named parts in their places."""
    for name, part in parts.items():
        begin, end = f'<!-- {name} -->', f'<!-- end of {name} -->'
        text = re.sub(
            f'{begin}.*?{end}',
            lambda _, part=part, b=begin, e=end: f'{b}\n{part}\n{e}',
            text,
            flags=re.DOTALL,
        )
    return text


def split_part(found: Mapping[str, Any]) -> str:
    """Return the recipe's figures on held-out observations."""
    held = found['held_out']
    rows = [['class', 'precision', 'recall', 'F1', 'IoU', 'crops']]
    for name, own in found['classes'].items():
        figures = [f'{own[key]:.3f}' for key in ('precision', 'recall', 'f1', 'iou')]
        rows.append([name, *figures, str(own['support'])])
    return (
        f'{held["crops"]} crops of {held["sources"]} observations: **accuracy '
        f'{found["accuracy"]:.3f}, macro F1 {found["macro"]["f1"]:.3f}, weighted F1 '
        f'{found["weighted"]["f1"]:.3f}**, expected calibration error {found["ece"]:.3f}.\n\n'
        + markdown(rows)
    )


def trials_part(found: Mapping[str, Any]) -> str:
    """Return what each run reached, a row a run."""
    rows = [['run', 'crops seen', 'accuracy', 'macro F1', 'adjusted: accuracy', 'macro F1']]
    for name, run in found.items():
        seen, start, what = str(run['crops_seen']), run['initial'], f'{run["size"]} px'
        if run['input_size']:
            what += f', scored at {run["input_size"]} px'
        if run['generated']:
            what += ', generated crops only'
        if start in found:
            what, seen = f'{name}: {start} gone on with, {what}', f'… + {seen}'
        else:
            what = f'{name}: from scratch, {what}'
        adjusted = run['adjusted'] or {}
        figures = [run['accuracy'], run['macro_f1']]
        figures += [adjusted.get('accuracy'), adjusted.get('macro_f1')]
        rows.append([what, seen, *('–' if x is None else f'{x:.3f}' for x in figures)])
    return markdown(rows)


def attention_part(found: Mapping[str, Any]) -> str:
    """Return what networks lose without their gates, a row a network."""
    rows = [['network', 'runs', 'macro F1', 'gates replaced by identity', 'by their own mean']]
    for name, own in found.items():
        rows.append(
            [
                name,
                str(len(own['trained']['values'])),
                percent(own['trained']),
                percent(own['identity'], sign=True),
                percent(own['mean'], sign=True),
            ]
        )
    return f'{markdown(rows)}\n\nPer cent; mean ± standard deviation over runs.'


def explanations_part(found: Mapping[str, Any]) -> str:
    """Return how well the two explanations agree, in words and numbers."""
    exact = found['integrated_gradients']
    steps = ', '.join(f'{count} with {n}' for n, count in exact['images_by_steps'].items())
    rows = [['compared by', 'overlap', 'shared', 'rank correlation']]
    for scale, own in found['consistency']['all'].items():
        figures = [own.get(key) for key in ('overlap', 'shared', 'rank_correlation')]
        rows.append([scale, *('–' if x is None else f'{x["mean"]:.2f}' for x in figures)])
    return (
        f'Over {found["crops"]} crops, drawn evenly over the classes, of which the network names '
        f'{found["named_right"]} right: Integrated Gradients is complete on '
        f'{exact["complete"]} (steps: {steps}). Means:\n\n{markdown(rows)}'
    )


def node_part(found: Mapping[str, Any]) -> str:
    """Return what explanations cost classification."""
    rows = [['somebody listens to', 'answered', 'explanations', 'p50, ms', 'p95, ms', 'p95 ratio']]
    for name, own in found['listeners'].items():
        rows.append(
            [
                name.replace('_', ' '),
                f'{own["answered"]} of {own["sent"]}',
                str(own['explanations']),
                f'{own["p50_ms"]:.1f}',
                f'{own["p95_ms"]:.1f}',
                f'{found["p95_over_nobody"][name]:.2f}',
            ]
        )
    return f'{found["rate_hz"]:g} images a second, from image to label:\n\n{markdown(rows)}'


PARTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    'split': split_part,
    'trials': trials_part,
    'attention': attention_part,
    'study': tables,
    'explanations': explanations_part,
    'node': node_part,
}
"""By the record's name, without 'terrain_' before it; it is the part's name too."""


if __name__ == '__main__':
    main()
