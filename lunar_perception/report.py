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

"""One self-contained HTML page about an evaluation, and its metrics.json."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from lunar_perception import report_figures
from lunar_perception.atomic import encode_png, write_json, write_text
from lunar_perception.metrics import CALIBRATION_BINS, Evaluation, NORMALISED_RANGE_M
from lunar_perception.scoreboard import Scoreboard
from lunar_perception.visualize import color_depth, color_depth_errors, DEPTH_RANGE_M
import numpy as np

PAPER_SEGMENTATION = {
    'UNet++': 0.7681,
    'MaskFormer': 0.8955,
    'SegFormer': 0.9686,
    'Unified': 0.7766,
}
"""Mean IoU in the unified lunar perception paper, table 1."""

PAPER_DEPTH = {
    'Depth Anything v2': (0.688, 0.080, 0.901, 0.954, 0.972),
    'Unified': (0.074, 0.024, 0.947, 0.986, 0.997),
}
"""abs_rel, rmse, delta1, delta2, delta3 in the same paper, table 2."""

_DEPTH_KEYS = ('abs_rel', 'rmse', 'delta1', 'delta2', 'delta3')


def write_results(
    output: str | Path,
    scoreboard: Scoreboard,
    *,
    title: str,
    data: str,
    model: str,
    latency_ms: Sequence[float] | None = None,
    counts: Mapping[str, int] | None = None,
    missing: Mapping[int, Sequence[str]] | None = None,
    partial: str | None = None,
) -> dict[str, Any]:
    """
    Write `metrics.json` and `report.html` into a folder and return the metrics.

    `data` says on what was evaluated and how it was split, `model` with which weights;
    `latency_ms`: of each frame, `counts`: `received`, `processed`, `dropped`, both when a node
    was evaluated. `missing`: by stamp, what kept frames of a bag from being scored; it becomes
    `missing_pairs`. `partial`: why the evaluation ended early; None when it did not.
    """
    metrics = scoreboard.to_dict()
    if latency_ms:
        p50, p95 = np.percentile(latency_ms, [50, 95])
        metrics['latency_ms'] = {'p50': float(p50), 'p95': float(p95)}
    metrics.update(counts or {})
    if missing is not None:
        metrics['missing_pairs'] = {str(stamp): list(parts) for stamp, parts in missing.items()}
    if partial is not None:
        metrics['partial'] = partial
    figures = {
        'iou': report_figures.iou_by_class(scoreboard.network, scoreboard.position_prior),
        'confusion': report_figures.confusion_matrix(scoreboard.network),
        'distance': report_figures.depth_error_by_distance(
            scoreboard.network, scoreboard.flat_plane
        ),
        'reliability': report_figures.reliability_diagram(scoreboard.network),
        'sparsification': report_figures.sparsification_curves(scoreboard.network),
        'latency': report_figures.latency_histogram(latency_ms) if latency_ms else None,
    }
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {'number': _number, 'picture': _picture, 'uri': _uri}
    template = environment.from_string(
        files('lunar_perception').joinpath('report.html.jinja').read_text('utf-8')
    )
    page = template.render(
        title=title,
        data=data,
        model=model,
        metrics=metrics,
        segmentation=_segmentation_rows(scoreboard),
        depth=_depth_rows(scoreboard),
        classes=scoreboard.network.taxonomy.names,
        colors=scoreboard.network.taxonomy.colors,
        figures=figures,
        gallery=scoreboard.gallery,
        depth_range=DEPTH_RANGE_M,
        depth_ramp=_ramp(color_depth(np.geomspace(*DEPTH_RANGE_M, 12)[None])),
        error_ramp=_ramp(color_depth_errors(np.linspace(1, 1.5, 8)[None], np.ones((1, 8)))),
        normalised_range=NORMALISED_RANGE_M,
        calibration_bins=CALIBRATION_BINS,
    )
    write_json(Path(output) / 'metrics.json', metrics)
    write_text(Path(output) / 'report.html', page)
    return metrics


def _segmentation_rows(scoreboard: Scoreboard) -> list[dict[str, Any]]:
    """Return the rows of the table beside the paper's table 1; ours first."""
    rows = []
    for name, evaluation in (
        ('This network', scoreboard.network),
        ('Position prior', scoreboard.position_prior),
    ):
        if evaluation.frames:
            scores = evaluation.to_dict()
            iou = list(scores['iou'].values())
            rows.append({'name': name, 'ours': True, 'miou': scores['miou'], 'iou': iou})
    for name, miou in PAPER_SEGMENTATION.items():
        rows.append({'name': name, 'ours': False, 'miou': miou, 'iou': []})
    return rows


def _depth_rows(scoreboard: Scoreboard) -> list[dict[str, Any]]:
    """Return the rows of the table beside the paper's table 2, by protocol and pixels."""
    network, plane = scoreboard.network, scoreboard.flat_plane

    def row(
        name: str, evaluation: Evaluation, protocol: str, classes: Sequence[str] | None = None
    ) -> dict[str, Any]:
        scores = evaluation.depth_metrics(protocol, classes)
        return {
            'name': name,
            'ours': True,
            'protocol': protocol,
            'pixels': ', '.join(classes) if classes else 'all but sky',
            'scores': [scores[key] for key in _DEPTH_KEYS],
            'invalid': scores['invalid_predictions'],
        }

    rows = []
    for protocol, classes in (('metric', None), ('metric', ['rock']), ('normalised', None)):
        rows.append(row('This network', network, protocol, classes))
        if plane.frames:
            rows.append(row('Flat plane', plane, protocol, classes))
    for name, values in PAPER_DEPTH.items():
        rows.append(
            {
                'name': name,
                'ours': False,
                'protocol': 'normalised',
                'pixels': 'not stated',
                'scores': list(values),
                'invalid': None,
            }
        )
    return rows


def _ramp(colors: np.ndarray) -> list[str]:
    return ['#' + bytes(color).hex() for color in colors[0]]


def _number(value: float | None, digits: int = 3) -> str:
    return '–' if value is None else f'{value:.{digits}f}'


def _picture(image: np.ndarray) -> str:
    return _uri(encode_png(image, compression=6))


def _uri(png: bytes) -> str:
    return 'data:image/png;base64,' + b64encode(png).decode()
