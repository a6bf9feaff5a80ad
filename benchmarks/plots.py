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

"""The plots of docs/performance.md, from the records that it is made of."""

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from benchmarks.performance import TITLES
from lunar_perception.atomic import write_bytes
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, GREY, ORANGE = '#2a6f97', '#b8bec6', '#d1803a'
STAGE_COLORS = ('#8f6bb3', '#5b8fb9', BLUE, '#68a691', '#d9b44a', ORANGE)


def draw_all(records: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Draw every plot of the page as performance_<name>.png in `folder`."""
    for name, draw in PLOTS.items():
        figure = Figure(figsize=(8, 3.4), layout='constrained')
        axes = figure.subplots()
        for side in ('top', 'right'):
            axes.spines[side].set_visible(False)
        draw(axes, records[name]['results'])
        buffer = BytesIO()
        figure.savefig(buffer, format='png', dpi=110)
        write_bytes(folder / f'performance_{name}.png', buffer.getvalue())


def stages(axes: Axes, results: Mapping[str, Any]) -> None:
    """Stack the stages of each backend and size."""
    bars = {
        f'{name}, {side}²': row['stages_ms']
        for side, backends in results['by_side'].items()
        for name, row in backends.items()
        if 'stages_ms' in row
    }
    names = list(next(iter(bars.values())))
    left = [0.0] * len(bars)
    for stage, color in zip(names, STAGE_COLORS, strict=False):
        widths = [row[stage]['median'] for row in bars.values()]
        axes.barh(list(bars), widths, left=left, color=color, label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel('ms')
    axes.legend(
        frameon=False, ncols=6, fontsize='small', loc='lower center', bbox_to_anchor=(0.4, 1.0)
    )


def alternatives(axes: Axes, results: Mapping[str, Any]) -> None:
    """Draw the time of each network, and of each pair."""
    times = {name: row['median'] for name, row in results['milliseconds'].items()}
    least = {name: row['least'] for name, row in results['milliseconds'].items()}
    most = {name: row['most'] for name, row in results['milliseconds'].items()}
    times |= results['pair_milliseconds']
    colors = [
        BLUE if name == 'default' else ORANGE if name in results['pair_milliseconds'] else GREY
        for name in times
    ]
    axes.barh([TITLES[name] for name in times], list(times.values()), color=colors)
    for i, (name, time) in enumerate(times.items()):
        if name in least:
            axes.plot([least[name], most[name]], [i, i], color='black', linewidth=1)
        end = most.get(name, time)
        axes.annotate(f'{time:.0f}', (end, i), (4, 0), textcoords='offset points', va='center')
    axes.invert_yaxis()
    axes.set_xlabel(f'ms for one image of {results["side"]}²')


def encoder(axes: Axes, results: Mapping[str, Any]) -> None:
    """Draw what share of the roofline each encoder reaches."""
    shares = {
        f'{name}, {row["side"]}²: {who}': share
        for name, row in results.items()
        for who, share in row['share_of_roofline'].items()
    }
    colors = [GREY if name.endswith('transformers') else BLUE for name in shares]
    bars = axes.barh(list(shares), list(shares.values()), color=colors)
    axes.bar_label(bars, fmt='%.2f', padding=4)
    axes.axvline(1, color='black', linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel('share of the rate of one large matrix product')


def node(axes: Axes, results: Mapping[str, Any]) -> None:
    """Draw the latencies at fixed rates, from least to most."""
    ticks = []
    for side, row in results['by_side'].items():
        for at in row['fixed_rates']:
            if 'latency_ms' not in at:
                continue
            latency, i = at['latency_ms'], len(ticks)
            ticks.append(f'{side}², {at["rate_hz"]:g} Hz')
            axes.plot([latency['least'], latency['most']], [i, i], color=GREY, linewidth=6)
            axes.plot(latency['median'], i, 'o', color=BLUE)
            axes.plot(latency['p95'], i, '|', color=ORANGE, markersize=14)
    axes.set_yticks(range(len(ticks)), ticks)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel('ms from sending an image to its last output: least to most, median ●, p95 |')


def echo(axes: Axes, results: Mapping[str, Any]) -> None:
    """Draw the node's times beside the echo's."""
    bars = {
        f'{name} topics, {what}: {who}': row[key][who]['median']
        for name, row in results['topics'].items()
        for what, key in (('round trip', 'round_trip_ms'), ('processor', 'processor_ms'))
        for who in row[key]
    }
    colors = [GREY if name.endswith('echo') else BLUE for name in bars]
    drawn = axes.barh(list(bars), list(bars.values()), color=colors)
    axes.bar_label(drawn, fmt='%.1f', padding=4)
    axes.invert_yaxis()
    axes.set_xlabel(f'ms a frame of {results["side"]}²')


def growth(axes: Axes, results: Mapping[str, Any]) -> None:
    """Draw time over pixels, one image at a time and in batches."""
    single = [row for row in results['rows'] if row['batch'] == 1]
    first = min(row['side'] for row in results['rows'] if row['batch'] > 1)
    batches = [row for row in results['rows'] if row['side'] == first]
    for rows, color, text in (
        (single, BLUE, 'one image, larger and larger'),
        (batches, ORANGE, f'more and more images of {first}²'),
    ):
        pixels = [row['batch'] * row['side'] ** 2 / 1e6 for row in rows]
        axes.loglog(
            pixels, [row['milliseconds']['median'] for row in rows], 'o-', color=color, label=text
        )
    pixels = [row['side'] ** 2 / 1e6 for row in single]
    straight = [single[0]['milliseconds']['median'] * p / pixels[0] for p in pixels]
    axes.loglog(pixels, straight, '--', color=GREY, label='in proportion')
    axes.set_xlabel('megapixels')
    axes.set_ylabel('ms')
    axes.legend(frameon=False)


def memory(axes: Axes, results: Mapping[str, Any]) -> None:
    """Draw the node's memory over frames."""
    frames, mib = zip(*results['long_run']['memory_mib_by_frames'], strict=True)
    axes.plot(frames, mib, color=BLUE)
    axes.set_ylim(0, 1.2 * max(mib))
    axes.set_xlabel('frames')
    axes.set_ylabel('resident memory, MiB')


def start(axes: Axes, results: Mapping[str, Any]) -> None:
    """Draw the node's starts beside the least that they could take."""
    times = {
        'node, first start': results['first_start_s'],
        'node, second start': results['seconds']['node']['median'],
        'importing torch and rclpy, reading weights': results['seconds']['least']['median'],
    }
    bars = axes.barh(list(times), list(times.values()), color=[GREY, BLUE, GREY])
    axes.bar_label(bars, fmt='%.1f', padding=4)
    axes.invert_yaxis()
    axes.set_xlabel('s from the call to active')


PLOTS: dict[str, Callable[[Axes, Mapping[str, Any]], None]] = {
    'stages': stages,
    'alternatives': alternatives,
    'encoder': encoder,
    'node': node,
    'echo': echo,
    'growth': growth,
    'memory': memory,
    'start': start,
}
