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

"""`python -m train tables`: the paper's Tables 1 and 2, ours beside, from finished runs only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from train.rows import GROUPS

RESULTS = Path(__file__).resolve().parents[1] / 'benchmarks' / 'results'

PAPER: dict[str, dict[str, float]] = {
    'unified': {
        'miou': 0.7766, 'abs_rel': 0.074, 'rmse': 0.024,
        'delta1': 0.947, 'delta2': 0.986, 'delta3': 0.997,
    },
    'segformer': {'miou': 0.9686},
    'maskformer': {'miou': 0.8955},
    'unetplusplus': {'miou': 0.7681},
    'depth_anything': {
        'abs_rel': 0.688, 'rmse': 0.080, 'delta1': 0.901, 'delta2': 0.954, 'delta3': 0.972,
    },
}  # fmt: skip
"""What the paper's Tables 1 and 2 say, on LuSNAR and with pretrained weights."""

DEPTH = ('abs_rel', 'rmse', 'delta1', 'delta2', 'delta3')
DEPTH_TITLES = ('ARE', 'RMSE', 'δ1', 'δ2', 'δ3')
CLASSES = ('regolith', 'crater', 'rock', 'mountain', 'sky')
REFERENCES = {'position_prior': 'Position prior', 'flat_plane': 'Flat plane'}


@dataclass(frozen=True)
class TablesCommand:
    """
    Print the tables of finished runs.

    Params:
        records: what `python -m train experiments` wrote; without any, all that are in
            benchmarks/results/.

    """

    records: tuple[Path, ...] = ()


def print_tables(command: TablesCommand) -> None:
    """Print the tables of each record; ValueError when there is none, or one is no record."""
    records = command.records or tuple(sorted(RESULTS.glob('training_*.json')))
    if not records:
        raise ValueError(f'{RESULTS} has no training_*.json; run `python -m train experiments`')
    for path in records:
        print(format_tables(_read(path)))


def format_tables(record: dict[str, Any]) -> str:
    """Return a record's tables as Markdown: how it was measured, Tables 1 and 2, the ablations."""
    rows = {row['name']: row for row in record['rows']}
    references = record['references']
    parts = [_heading(record)]
    compared = [(row.title, row.name) for row in GROUPS['comparison']]
    comparison = any(name in rows for _, name in compared)
    if comparison:
        parts.append('### Table 1: labels\n\n' + _labels(compared, rows, references, paper=True))
        parts.append(
            "### Table 2: depth, clipped to 100 m and divided by it, as the paper's\n\n"
            + _depth(compared, rows, references, 'normalised', paper=True)
        )
        parts.append(
            '### Table 2 in metres\n\n' + _depth(compared, rows, references, 'metric', paper=False)
        )
    for group, title in (
        ('distillation', 'Distillation'),
        ('story', "The paper's story, at the small network's size"),
        ('ours', 'From there to ours'),
    ):
        there = [(row.title, row.name) for row in GROUPS[group] if row.name in rows]
        if len(there) > 1:
            parts.append(f'### {title}\n\n' + _both(there, rows, references))
    if comparison:
        parts.append(_verdict(rows))
    return '\n\n'.join(parts) + '\n'


def _heading(record: dict[str, Any]) -> str:
    options = record['options']
    runs = [run for row in record['rows'] for run in row['runs']]
    lines = [f'## Protocol: {record["protocol"]}', '']
    seeds = sorted({run['seed'] for run in runs})
    rates = ', '.join(f'{rate:g}' for rate in options['rates'])
    searched = options['search_minutes'] and len(options['rates']) > 1
    rate = (
        f'the best of {rates} after {options["search_minutes"]:g} min each on a scene of the '
        'training part'
        if searched
        else f'{options["rates"][0]:g} for all, not searched'
    )
    lines.append(
        f'{options["minutes"]:g} min a run ({options["clock"]} clock), seeds '
        f'{", ".join(map(str, seeds)) or "none"}, learning rate {rate}.'
    )
    if runs:
        hardware, versions = runs[0]['hardware'], runs[0]['versions']
        lines.append(
            f'{hardware["processor"]}, {hardware.get("threads", "?")} thread; '
            + ', '.join(f'{name} {version}' for name, version in versions.items())
        )
    return '\n'.join(lines)


def _labels(
    titles: Sequence[tuple[str, str]],
    rows: dict[str, Any],
    references: dict[str, Any],
    *,
    paper: bool,
) -> str:
    keys = ['miou', *(f'iou.{name}' for name in CLASSES)]
    head = ['Model', *(['paper mIoU'] if paper else []), 'mIoU', *CLASSES, *COST_TITLES]
    table = []
    for title, name in titles:
        published = [_number(PAPER.get(name, {}).get('miou'))] if paper else []
        if name.startswith('depth_anything'):
            continue
        cells = _cells(rows.get(name), keys)
        table.append([title, *published, *cells, *_cost(rows.get(name))])
    table.append(
        _reference(references, 'position_prior', ['miou', *(f'iou.{c}' for c in CLASSES)], paper)
    )
    return _markdown(head, table)


def _depth(
    titles: Sequence[tuple[str, str]],
    rows: dict[str, Any],
    references: dict[str, Any],
    protocol: str,
    *,
    paper: bool,
) -> str:
    prefix = 'normalised.' if protocol == 'normalised' else ''
    keys = [prefix + key for key in DEPTH]
    head = ['Model', *([f'paper {t}' for t in DEPTH_TITLES] if paper else []), *DEPTH_TITLES]
    table = []
    for title, name in titles:
        if name not in ('unified', 'depth_anything', 'depth_anything_metric'):
            continue
        published = [_number(PAPER.get(name, {}).get(key)) for key in DEPTH] if paper else []
        table.append([title, *published, *_cells(rows.get(name), keys), *_cost(rows.get(name))])
    table.append(_reference(references, 'flat_plane', keys, len(DEPTH) if paper else 0))
    return _markdown([*head, *COST_TITLES], table)


def _both(
    titles: Sequence[tuple[str, str]], rows: dict[str, Any], references: dict[str, Any]
) -> str:
    classes = ['crater', 'rock', 'mountain']
    keys = ['miou', *(f'iou.{name}' for name in classes), 'abs_rel', 'rmse', 'delta1', 'ece']
    head = ['Model', 'mIoU', *classes, 'ARE', 'RMSE (m)', 'δ1', 'ECE', *COST_TITLES]
    table = [[title, *_cells(rows[name], keys), *_cost(rows[name])] for title, name in titles]
    for name, title in REFERENCES.items():
        values = [_number(_get(references[name], key)) for key in keys]
        table.append([title, *values, *[''] * len(COST_TITLES)])
    return _markdown(head, table)


def _verdict(rows: dict[str, Any]) -> str:
    """Return whether the unified network leads, and costs less than the two best together."""
    lines = ['### What it shows', '']
    if 'unified' not in rows:
        return '\n'.join([*lines, '- The unified network has no finished run.'])
    measures: tuple[tuple[str, str, Callable[[Sequence[float]], float]], ...] = (
        ('mIoU', 'miou', max), ('ARE', 'abs_rel', min), ('RMSE', 'rmse', min),
        ('δ1', 'delta1', max),
    )  # fmt: skip
    names = {row.name: row.title for row in GROUPS['comparison']}
    unfinished = [title for name, title in names.items() if name not in rows]
    if unfinished:
        lines.append(f'- No finished run of {", ".join(unfinished)}: nothing is shown yet.')
    best: dict[str, str] = {}
    for title, key, better in measures:
        found = {n: _mean(rows[n], key) for n in names if n in rows}
        values = {n: v for n, v in found.items() if v is not None}
        top = better(list(values.values()))
        first = next(n for n, v in values.items() if v == top)
        mine = values['unified']
        place = 'first' if first == 'unified' else f'behind {names[first]} ({top:.3f})'
        place = f'{place}, of {len(values)}' if len(values) > 1 else 'with none to compare'
        lines.append(f'- {title}: unified {mine:.3f}, {place}.')
        others = {n: v for n, v in values.items() if n != 'unified'}
        if others:
            best[key] = next(n for n, v in others.items() if v == better(list(others.values())))
    if {'miou', 'delta1'} <= best.keys():
        pair = (best['miou'], best['delta1'])
        cost = sum(rows[n]['gflop'] for n in pair)
        lines.append(
            f'- One pass costs {rows["unified"]["gflop"]:.2f} GFLOP; the two best single-task '
            f'networks ({names[pair[0]]}, {names[pair[1]]}) together {cost:.2f}.'
        )
    return '\n'.join(lines)


COST_TITLES = ('M parameters', 'GFLOP', 'steps', 'runs')


def _cost(row: dict[str, Any] | None) -> list[str]:
    if row is None:
        return [''] * len(COST_TITLES)
    runs = row['runs']
    steps = round(fmean(run['steps'] for run in runs))
    return [f'{row["parameters"] / 1e6:.1f}', f'{row["gflop"]:.2f}', str(steps), str(len(runs))]


def _reference(
    references: dict[str, Any], name: str, keys: Sequence[str], unpublished: int
) -> list[str]:
    """Return the row of one that looks at no image, `unpublished` blanks for the paper's."""
    values = [_number(_get(references[name], key)) for key in keys]
    return [REFERENCES[name], *[''] * unpublished, *values, *[''] * len(COST_TITLES)]


def _cells(row: dict[str, Any] | None, keys: Sequence[str]) -> list[str]:
    """Return mean ± standard deviation over the runs; blank where there is no figure."""
    if row is None:
        return [''] * len(keys)
    cells = []
    for key in keys:
        values = [v for run in row['runs'] if (v := _get(run['metrics'], key)) is not None]
        spread = f' ± {stdev(values):.3f}' if len(values) > 1 else ''
        cells.append(f'{fmean(values):.3f}{spread}' if values else '')
    return cells


def _mean(row: dict[str, Any], key: str) -> float | None:
    values = [v for run in row['runs'] if (v := _get(run['metrics'], key)) is not None]
    return fmean(values) if values else None


def _get(metrics: dict[str, Any], key: str) -> float | None:
    value: Any = metrics
    for part in key.split('.'):
        value = value[part]
    return None if value is None else float(value)


def _number(value: float | None) -> str:
    return '' if value is None else f'{value:.3f}'


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ['| ' + ' | '.join(head) + ' |', '|' + '---|' * len(head)]
    return '\n'.join([*lines, *('| ' + ' | '.join(row) + ' |' for row in rows)])


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f'{path} does not exist') from None
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is not JSON: {error}') from None
    if not isinstance(record, dict) or not {'protocol', 'rows', 'references'} <= record.keys():
        raise ValueError(f'{path} is no record of `python -m train experiments`')
    return record
