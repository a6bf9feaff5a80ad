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

"""The report's figures, each returned as the bytes of a PNG."""

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from typing import Any

from lunar_perception.metrics import DISTANCE_EDGES_M, Evaluation
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np

NETWORK, REFERENCE, INK, GRID = '#1f5f99', '#b9a37e', '#2b2f36', '#e4e6ea'

_STYLE: Any = {
    'figure.dpi': 160,
    'font.size': 9,
    'axes.edgecolor': '#9aa0a8',
    'axes.labelcolor': INK,
    'text.color': INK,
    'xtick.color': INK,
    'ytick.color': INK,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.color': GRID,
    'legend.frameon': False,
}


@rc_context(_STYLE)
def iou_by_class(network: Evaluation, prior: Evaluation) -> bytes:
    """Draw the IoU of each class as bars, the network's beside the position prior's."""
    figure, axes = _figure(5.2, 3.2)
    names = network.taxonomy.names
    places = np.arange(len(names))
    rows = [
        ('network', network.iou(), NETWORK, -0.19),
        ('position prior', prior.iou(), REFERENCE, 0.19),
    ]
    for name, iou, color, shift in rows:
        if np.isnan(iou).all():
            continue
        bars = axes.bar(places + shift, np.nan_to_num(iou), 0.36, color=color, label=name)
        text = ['–' if np.isnan(value) else f'{value:.2f}' for value in iou]
        axes.bar_label(bars, text, padding=1, fontsize=7.5)
    axes.set_xticks(places, names)
    axes.set_ylim(0, 1.08)
    axes.set_ylabel('IoU')
    axes.grid(axis='x', visible=False)
    _legend_above(axes)
    return _png(figure)


@rc_context(_STYLE)
def confusion_matrix(network: Evaluation) -> bytes:
    """Draw the confusion matrix in percent of each true class."""
    counts = network.confusion
    if not counts[:, -1].any():
        counts = counts[:, :-1]
    names = [*network.taxonomy.names, 'unlabelled'][: counts.shape[1]]
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _figure(5.2, 3.2)
    axes.grid(visible=False)
    axes.imshow(share, cmap='Blues', vmin=0, vmax=100, aspect='auto')
    for (row, column), value in np.ndenumerate(share):
        text = f'{value:.1f}' if counts[row].any() else '–'
        axes.text(
            column, row, text, ha='center', va='center', color='white' if value > 55 else INK
        )
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(counts)), network.taxonomy.names)
    axes.set_xlabel('predicted')
    axes.set_ylabel('true')
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return _png(figure)


@rc_context(_STYLE)
def depth_error_by_distance(network: Evaluation, plane: Evaluation) -> bytes:
    """Draw abs_rel against true depth, and below it the share of pixels at each distance."""
    figure = Figure(figsize=(8.2, 3.4), layout='constrained')
    axes, share = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    edges = np.array(DISTANCE_EDGES_M)
    places = np.arange(len(edges))
    rows = [('network', network, NETWORK, 'o'), ('flat plane', plane, REFERENCE, 's')]
    for name, evaluation, color, marker in rows:
        errors = evaluation.distance_errors()
        if errors.pixels.any():
            axes.plot(places, errors.abs_rel, marker=marker, ms=4, color=color, label=name)
    axes.set_ylabel('abs. rel. error')
    axes.set_ylim(0)
    axes.set_xlim(-0.6, len(edges) - 0.4)
    _legend_above(axes)
    pixels = network.distance_errors().pixels
    share.bar(places, 100 * pixels / max(pixels.sum(), 1), 0.8, color='#c9d3de')
    share.set_ylabel('% of pixels')
    share.grid(axis='x', visible=False)
    labels = [f'{low:g}–{high:g}' for low, high in pairwise(edges)]
    share.set_xticks(places, [*labels, f'{edges[-1]:g}+'])
    share.set_xlabel('true depth [m]')
    return _png(figure)


@rc_context(_STYLE)
def reliability_diagram(network: Evaluation) -> bytes | None:
    """Draw accuracy against confidence, and the share of pixels; None without confidence."""
    confidence, accuracy, pixels = network.reliability()
    if not len(pixels):
        return None
    figure, axes = _figure(3.6, 3.2)
    axes.bar(confidence, pixels / pixels.sum(), 0.05, color='#c9d3de', label='share of pixels')
    axes.plot([0, 1], [0, 1], color='#9aa0a8', lw=1, ls='--', label='perfect')
    axes.plot(confidence, accuracy, marker='o', ms=4, color=NETWORK, label='network')
    axes.set_xlim(0, 1.03)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel('confidence')
    axes.set_ylabel('accuracy')
    axes.legend(loc='upper left', fontsize=8)
    return _png(figure)


@rc_context(_STYLE)
def sparsification_curves(network: Evaluation) -> bytes | None:
    """Draw the error left as the most uncertain pixels go; None without uncertainty."""
    curves = network.sparsification()
    if curves is None:
        return None
    figure, axes = _figure(3.6, 3.2)
    percent = 100 * curves.fraction
    axes.axhline(curves.by_oracle[0], color='#9aa0a8', lw=1, ls='--', label='in any order')
    axes.plot(percent, curves.by_uncertainty, color=NETWORK, label='by uncertainty')
    axes.plot(percent, curves.by_oracle, color=REFERENCE, label='by true error (oracle)')
    axes.fill_between(
        percent, curves.by_oracle, curves.by_uncertainty, color=NETWORK, alpha=0.12, lw=0
    )
    axes.set_xlim(0, 100)
    axes.set_ylim(0)
    axes.set_xlabel('% of pixels taken away')
    axes.set_ylabel('abs. rel. error of the rest')
    _legend_above(axes)
    return _png(figure)


@rc_context(_STYLE)
def latency_histogram(latency_ms: Sequence[float]) -> bytes:
    """Draw how long frames took, with median and 95th percentile."""
    figure, axes = _figure(3.6, 3.2)
    axes.hist(latency_ms, bins=min(30, max(5, len(latency_ms) // 4)), color=NETWORK, alpha=0.8)
    for percentile, style in ((50, '-'), (95, '--')):
        value = np.percentile(latency_ms, percentile)
        label = f'p{percentile}: {value:.0f} ms'
        axes.axvline(value, color=INK, lw=1, ls=style, label=label)
    axes.set_xlabel('latency [ms]')
    axes.set_ylabel('frames')
    _legend_above(axes)
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout='constrained')
    return figure, figure.subplots()


def _legend_above(axes: Axes) -> None:
    if not axes.get_legend_handles_labels()[0]:
        return
    axes.legend(loc='lower right', bbox_to_anchor=(1, 1), ncols=2, fontsize=8, borderaxespad=0.2)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={'Software': None})
    return buffer.getvalue()
