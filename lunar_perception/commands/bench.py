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

"""`lunar-perception bench`: how fast the shipped network is here, and where the time goes."""

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import cv2
from lunar_perception.atomic import write_json
from lunar_perception.commands import CommandError
from lunar_perception.commands.local_dds import use_local_dds
from lunar_perception.inference.backends import (
    AUTO_ORDER,
    BackendError,
    BackendRefusedError,
    BACKENDS,
)
from lunar_perception.inference.predictor import choose_device, UnifiedPredictor
from lunar_perception.inference.stages import predict_by_stages
from lunar_perception.machine import hardware, versions
from lunar_perception.timing import spreads
import numpy as np
import torch
from tqdm import tqdm

SIDES = (448, 1024)
REPEATS = 7

Stages = Callable[[UnifiedPredictor, np.ndarray], dict[str, float]]


def run(arguments: Namespace) -> None:
    """Measure, print tables, write JSON where `--output` says; CommandError if nothing runs."""
    results = measure(SIDES, REPEATS, backends=tuple(BACKENDS))
    print(describe(results))
    if arguments.output is not None:
        write_json(
            arguments.output,
            {
                'date': date.today().isoformat(),
                'command': 'lunar-perception bench',
                'hardware': hardware(),
                'versions': versions(),
                'results': results,
            },
        )
        print(f'figures in {arguments.output}')
    if not any(usable(rows) for rows in results['by_side'].values()):
        raise CommandError('no backend could be used; the reasons are above')


def measure(
    sides: Sequence[int],
    repeats: int,
    *,
    device: str = 'auto',
    model: str | Path | None = None,
    backends: Sequence[str],
) -> dict[str, Any]:
    """
    Return the stages' times by backend and side of a square image, and the default backend.

    Stages are in milliseconds; decode, cloud and publish need ROS 2. `predictor_hz` is how many
    images a second become labels, depth, confidence and uncertainty. A backend that can not be
    used has `refused`, the reason, instead. `ready_s` is what loading and the first image took,
    `device_memory_mib` the most that torch held on a GPU by then. The backends take turns.
    """
    with _stages() as stages:
        predictors, opened = _open(backends, sides[0], device, model)
        by_side = {}
        for side in sides:
            image = picture(side)
            times: dict[str, list[dict[str, float]]] = {name: [] for name in predictors}
            for number in tqdm(range(-1, repeats), desc=f'{side}²', disable=None):
                names = list(predictors)
                if number % 2:
                    names.reverse()
                for name in names:
                    seconds = stages(predictors[name], image)
                    if number >= 0:
                        times[name].append(seconds)
            rows = {name: opened[name] for name in backends}
            rows |= {name: opened[name] | _row(laps) for name, laps in times.items()}
            by_side[str(side)] = rows
    order = AUTO_ORDER[choose_device(device).type]
    default = next((name for name in order if name in predictors), '')
    return {'default_backend': default, 'by_side': by_side}


def picture(side: int) -> np.ndarray:
    """Return an image (side, side, 3) uint8 RGB, always the same."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    return cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)


def describe(results: dict[str, Any]) -> str:
    """Return the figures as tables for a terminal."""
    lines = []
    for side, rows in results['by_side'].items():
        used = usable(rows)
        stages = list(next(iter(used.values()))['stages_ms']) if used else []
        lines.append(f'\nan image of {side}×{side}, milliseconds (median)')
        if used:
            heads = ''.join(f'{stage:>13}' for stage in stages)
            lines.append(f'{"backend":<15}{heads}{"predictor Hz":>15}')
        for name, row in used.items():
            cells = ''.join(f'{row["stages_ms"][stage]["median"]:13.1f}' for stage in stages)
            mark = ' ← default' if name == results['default_backend'] else ''
            lines.append(f'{name:<15}{cells}{row["predictor_hz"]:15.1f}{mark}')
        lines += [f'{name:<15}{row["refused"]}' for name, row in rows.items() if name not in used]
        if used and 'decode' not in stages:
            lines.append('decode, cloud and publish are not measured: ROS 2 does not import here')
    return '\n'.join(lines)


def usable(rows: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of the backends that could be used."""
    return {name: row for name, row in rows.items() if 'refused' not in row}


@contextmanager
def _stages() -> Iterator[Stages]:
    """Give what takes an image through all stages; without ROS 2, through those that need none."""
    try:
        from lunar_perception.nodes.stages import NodeStages
    except ImportError:
        yield lambda predictor, image: predict_by_stages(predictor, image)[1]
        return
    with TemporaryDirectory() as folder:
        use_local_dds(Path(folder))
        with NodeStages() as stages:
            yield stages.run


def _open(
    names: Sequence[str], side: int, device: str, model: str | Path | None
) -> tuple[dict[str, UnifiedPredictor], dict[str, Any]]:
    """Return predictors by backend, ready for images of `side`, and how that went, by backend."""
    predictors: dict[str, UnifiedPredictor] = {}
    rows: dict[str, Any] = {}
    for name in tqdm(names, desc='prepare backends', disable=None):
        start = perf_counter()
        try:
            predictor = UnifiedPredictor.from_pretrained(model, device=device, backend=name)
            predictor.warm_up(side, side)
            predictors[name] = predictor
            rows[name] = {'ready_s': round(perf_counter() - start, 2)}
            if predictor.device.type == 'cuda':
                most = torch.cuda.max_memory_allocated(predictor.device)
                rows[name]['device_memory_mib'] = round(most / 2**20)
        except (BackendError, BackendRefusedError) as error:
            rows[name] = {'refused': ' '.join(str(error).split())}
    return predictors, rows


def _row(laps: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return one backend's figures."""
    inner = ('preprocess', 'network', 'postprocess')
    return {
        'stages_ms': spreads({stage: [lap[stage] for lap in laps] for stage in laps[0]}),
        'predictor_hz': round(1 / median(sum(lap[stage] for stage in inner) for lap in laps), 3),
    }
