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
Write docs/performance.md and its plots from the figures in benchmarks/results.

    python -m benchmarks.performance [--folder FOLDER]

Every number on that page comes from those files; none is typed by hand.
"""

from argparse import ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
import json
from pathlib import Path
from typing import Any, NamedTuple

from lunar_perception.atomic import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results'
PAGE = ROOT / 'docs' / 'performance.md'
NAMES = ('stages', 'node', 'echo', 'alternatives', 'encoder', 'growth', 'memory', 'start')
"""The records that the page is made of; gpu_<name> where they were taken on a GPU."""

Records = Mapping[str, Mapping[str, Any]]

TITLES = {
    'default': 'ours, default backend',
    'eager': 'ours, torch eager',
    'fp32': 'ours, fp32',
    'int8': 'ours, int8',
    'sam-vision-model': 'ours with SamVisionModel, torch eager',
    'segformer-b0': 'SegFormer-B0 (labels)',
    'depth-anything-v2-small': 'Depth Anything V2 Small (depth)',
    'unet++': 'UNet++, ResNet-34 (labels)',
    'dpt-large': 'DPT-Large, 384² (depth)',
    'segformer-b0 + depth-anything-v2-small': 'SegFormer-B0 + Depth Anything V2 Small',
    'unet++ + dpt-large': 'UNet++ + DPT-Large',
}


class Goal(NamedTuple):
    """A bound that a figure shall keep: at least, or at most."""

    text: str
    value: float
    bound: float
    at_least: bool

    @property
    def holds(self) -> bool:
        """Whether the figure keeps the bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def main() -> None:
    from benchmarks.plots import draw_all

    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--folder', type=Path, help='of records, page and plots (the tree)')
    folder = parser.parse_args().folder
    records = read_records(folder or RESULTS)
    target = folder / PAGE.name if folder else PAGE
    images = target.parent / 'images'
    images.mkdir(parents=True, exist_ok=True)
    draw_all(records, images)
    write_text(target, page(records))
    print(f'wrote {target} and its plots from {len(records)} records')


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records by name; ValueError when one that the page needs is missing."""
    missing = [name for name in NAMES if not (folder / f'{name}.json').is_file()]
    if missing:
        raise ValueError(
            f'{folder} has no {", ".join(missing)}; python -m benchmarks.all measures them'
        )
    wanted = [*NAMES, *(f'gpu_{name}' for name in (*NAMES, 'huge'))]
    paths = {name: folder / f'{name}.json' for name in wanted}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()}


def page(records: Records) -> str:
    """Return docs/performance.md."""
    results = {name: record['results'] for name, record in records.items()}
    sections = [
        '# Performance',
        'Made by `python -m benchmarks.performance` from `benchmarks/results/*.json`, which '
        '`python -m benchmarks.all` measures. Medians; the spread is from least to most. '
        'Programs that are compared ran in turn in the same run.',
        machine(records),
        '## At a glance',
        table(
            ['', 'asked', 'measured', ''],
            [
                [
                    goal.text,
                    f'{"≥" if goal.at_least else "≤"} {goal.bound:g}',
                    f'{goal.value:.4g}',
                    'holds' if goal.holds else 'does not hold',
                ]
                for goal in goals(results)
            ],
        ),
        *stages(results['stages']),
        *alternatives(results['alternatives']),
        *encoder(results['encoder']),
        *node(results['node']),
        *echo(results['echo']),
        *growth(results['growth']),
        *memory(results['memory']),
        *start(results['start']),
        *gpu(results),
        '## How it was called',
        table(
            ['figures', 'command'],
            [[f'`{name}.json`', f'`{record["command"]}`'] for name, record in records.items()],
        ),
    ]
    return '\n\n'.join(sections) + '\n'


def goals(results: Mapping[str, Any]) -> list[Goal]:
    """Return what is asked of the figures, and whether they keep it."""
    faster = results['alternatives']['default_is_faster_by']
    base = results['encoder']['sam-vit-base']
    echoes = results['echo']['topics']['main']
    return [
        Goal(
            'whole predictor, 448²: speed over the same on torch eager with SamVisionModel',
            faster['sam-vision-model'],
            1.8,
            True,
        ),
        Goal(
            'labels and depth, 448²: speed over SegFormer-B0 + Depth Anything V2 Small',
            faster['segformer-b0 + depth-anything-v2-small'],
            4,
            True,
        ),
        Goal(
            'node without network: time from image to outputs, over a bare echo',
            echoes['round_trip_over_echo'],
            2,
            False,
        ),
        Goal(
            'node without network: time on the processor, over a bare echo',
            echoes['processor_over_echo'],
            2,
            False,
        ),
        Goal(
            "SAM-ViT-B's encoder, 1024²: speed over transformers' SamVisionModel",
            base['speed_over_transformers']['default'],
            1.3,
            True,
        ),
        Goal(
            "SAM-ViT-B's encoder, 1024²: share of the rate of matrix products",
            base['share_of_roofline']['default'],
            0.65,
            True,
        ),
        Goal(
            'second start to active, over importing torch and rclpy and reading the weights',
            results['start']['node_over_least'],
            1.5,
            False,
        ),
        Goal(
            f'memory after {results["memory"]["long_run"]["frames"]:,} frames, over a tenth of '
            'them',
            results['memory']['long_run']['last_over_a_tenth'],
            1.02,
            False,
        ),
    ]


def machine(records: Records) -> str:
    """Return what the figures were measured on; what differs between them is named."""
    hardware = unique(record['hardware'] for record in records.values())
    versions = unique(record['versions'] for record in records.values())
    dates = sorted({record['date'] for record in records.values()})
    lines = ['- ' + ', '.join(f'{key} {value}' for key, value in one.items()) for one in hardware]
    lines += [
        '- ' + ', '.join(f'{name} {value}' for name, value in one.items()) for one in versions
    ]
    lines.append(f'- {" to ".join(unique([dates[0], dates[-1]]))}')
    return '\n'.join(lines)


def stages(results: Mapping[str, Any]) -> list[str]:
    """Return the stage table."""
    parts = ['## Where the time goes', plot('stages', 'Time by stage and backend')]
    for side, backends in results['by_side'].items():
        used = {name: row for name, row in backends.items() if 'stages_ms' in row}
        names = list(next(iter(used.values()))['stages_ms'])
        rows = [
            [
                name + (' (default)' if name == results['default_backend'] else ''),
                *(f'{row["stages_ms"][stage]["median"]:.1f}' for stage in names),
                f'{row["predictor_hz"]:.1f}',
                f'{row["ready_s"]:.1f}',
            ]
            for name, row in used.items()
        ]
        parts += [
            f'An image of {side}², milliseconds; `lunar-perception bench` makes this table on '
            'your machine:',
            table(['backend', *names, 'predictor, Hz', 'ready, s'], rows),
        ]
        refused = [
            f'- `{name}` is not used: {row["refused"]}'
            for name, row in backends.items()
            if 'refused' in row
        ]
        if refused:
            parts.append('\n'.join(refused))
    return parts


def alternatives(results: Mapping[str, Any]) -> list[str]:
    """Return the comparison with what a user would run instead."""
    faster, times = results['default_is_faster_by'], results['milliseconds']
    about = results['programs']
    rows = [
        [
            TITLES[name],
            f'{about[name]["parameters_millions"]:.1f}',
            span(times[name]),
            by(faster[name]),
        ]
        for name in times
    ]
    rows += [
        [f'**{TITLES[pair]}**', '', f'{ms:.0f}', by(faster[pair])]
        for pair, ms in results['pair_milliseconds'].items()
    ]
    backend = about['default']['backend']
    return [
        '## Beside what a user would run instead',
        plot('alternatives', 'Time an image of ours and of others'),
        f'One image of {results["side"]}² to arrays of its size, the same in every row, by '
        f'programs in a process each; the default backend is `{backend}`. The others run through '
        'the code of transformers and segmentation-models-pytorch, with random weights: what is '
        'compared is time alone. A pair takes the sum of its two. The rows of our network took '
        'turns among themselves, and are held against the default there; in turn with the others, '
        f'it took {results["default_beside_others_milliseconds"]:.0f} ms.',
        table(['', 'parameters, millions', 'ms (spread)', 'time over ours'], rows),
        f'Our network takes {results["gflop"]:.1f} GFLOP an image. At the '
        f'{results["product_gflop_per_s"]:.0f} GFLOP/s of one large matrix product, timed in the '
        f'same rounds, that is {results["least_milliseconds_at_that_rate"]:.0f} ms: the least '
        'that any program needs which multiplies as the network says, in float32. What '
        '`openvino_bf16` rounds to bfloat16, and what that changes: [backends.md](backends.md).',
    ]


def encoder(results: Mapping[str, Any]) -> list[str]:
    """Return the encoder against transformers' and against the roofline."""
    rows = []
    for name, row in results.items():
        for who in row['milliseconds']:
            if who != 'product':
                rows.append(
                    [
                        f'{name}, {row["side"]}²',
                        f'{who} ({row["backend"]})' if who == 'default' else who,
                        span(row['milliseconds'][who]),
                        f'{row["share_of_roofline"][who]:.2f}',
                    ]
                )
    rates = ', '.join(
        f'{row["product_gflop_per_s"]:.0f} GFLOP/s beside {name}' for name, row in results.items()
    )
    work = ', '.join(f'{name} {row["gflop"]:.0f}' for name, row in results.items())
    worst = max(x for row in results.values() for x in row['largest_difference'].values())
    return [
        '## The encoder, and how near it comes to the machine',
        plot('encoder', 'Share of the rate of matrix products'),
        f'The roofline is one large matrix product, timed in the same rounds: {rates}. '
        f'GFLOP a pass (2 × multiply-adds, attention and padding included): {work}. With the same '
        f'weights, the outputs differ by at most {worst:.1g}.',
        table(['encoder', 'run by', 'ms (spread)', 'share of the roofline'], rows),
    ]


def node(results: Mapping[str, Any]) -> list[str]:
    """Return rates and latencies of the node."""
    rows, fixed = [], []
    for side, row in results['by_side'].items():
        rows.append(
            [
                f'{side}²',
                f'{row["highest_rate_hz"]["median"]:.1f}',
                span(row['round_trip_ms']),
                f'{1e3 * row["processor_s_per_frame"]:.0f}',
                f'{row["memory_mib"]:.0f}',
            ]
        )
        for at in row['fixed_rates']:
            latency = at.get('latency_ms', {})
            fixed.append(
                [
                    f'{side}²',
                    f'{at["rate_hz"]:g}',
                    f'{at["missed"]} of {at["sent"]}',
                    *(
                        f'{latency[key]:.0f}' if latency else ''
                        for key in ('least', 'mean', 'p95', 'most', 'standard_deviation')
                    ),
                ]
            )
    loss = next(iter(results['by_side'].values()))['allowed_loss']
    return [
        '## The node over DDS',
        plot('node', 'Latency of the node at fixed rates'),
        'As in the benchmarks of Isaac ROS: the highest rate at which at most '
        f'{loss:.0%} of the images go without an answer, and latencies, from sending an image to '
        f'the last of its outputs ({", ".join(results["listened_to"])}), while images come at a '
        'fixed rate. The node, and the camera that sends and listens, are processes of their own '
        'and share the cores.',
        table(
            [
                'image',
                'highest rate, Hz',
                'one at a time, ms',
                'processor, ms a frame',
                'memory, MiB',
            ],
            rows,
        ),
        table(
            ['image', 'Hz', 'missed', 'least, ms', 'mean', 'p95', 'most', 'standard deviation'],
            fixed,
        ),
    ]


def echo(results: Mapping[str, Any]) -> list[str]:
    """Return the node's own work over that of an echo."""
    rows = [
        [
            {'main': 'what a planner listens to', 'all': 'every topic'}[name],
            span(row['round_trip_ms']['unified'], 2),
            span(row['round_trip_ms']['echo'], 2),
            by(row['round_trip_over_echo']),
            span(row['processor_ms']['unified'], 2),
            span(row['processor_ms']['echo'], 2),
            by(row['processor_over_echo']),
        ]
        for name, row in results['topics'].items()
    ]
    return [
        "## The node's own work",
        plot('echo', 'The node without its network beside an echo'),
        f'The node with a network that always answers with the same arrays ({results["side"]}²), '
        'beside a node that receives the same image and publishes ready messages of the same '
        'types and sizes. Time is from sending the image to the last output; processor is what '
        "the node's own process spends.",
        table(
            ['', 'node, ms', 'echo, ms', 'ratio', 'node, processor ms', 'echo', 'ratio'],
            rows,
        ),
    ]


def growth(results: Mapping[str, Any]) -> list[str]:
    """Return how time grows with pixels and images."""
    rows = [
        [
            str(row['batch']),
            f'{row["side"]}²',
            span(row['milliseconds']),
            f'{row["images_per_s"]:.2f}',
            f'{row["megapixels_per_s"]:.2f}',
        ]
        for row in results['rows']
    ]
    return [
        '## Growth with pixels and with images',
        plot('growth', 'Time by size and batch'),
        'The shipped network alone, on torch eager. Windowed attention grows with the pixels, '
        'global attention with their square.',
        table(['images', 'size', 'ms (spread)', 'images a second', 'megapixels a second'], rows),
    ]


def memory(results: Mapping[str, Any]) -> list[str]:
    """Return what memory is used."""
    use, run = results['shipped_network_mib'], results['long_run']
    return [
        '## Memory',
        plot('memory', "The node's memory over frames"),
        f'Resident memory of a process, MiB: {", ".join(f"{k} {v:.0f}" for k, v in use.items())} '
        '(after each step of importing, loading and predicting; then the most it ever was).',
        f'The node over {run["frames"]:,} frames with a tiny network, every topic listened to: '
        f'{run["memory_mib_by_frames"][-1][1]:.1f} MiB at the end, '
        f'{run["last_over_a_tenth"]:.4f} of what it had after a tenth of them.',
    ]


def start(results: Mapping[str, Any]) -> list[str]:
    """Return how long the node takes to active."""
    times = results['seconds']
    return [
        '## Start',
        plot('start', 'Start of the node'),
        f'From the call to active: {span(times["node"], 2)} s. A process that imports torch and '
        f'rclpy and reads the weights: {span(times["least"], 2)} s. The first start, with nothing '
        f'in the cache of backends: {results["first_start_s"]:.1f} s.',
    ]


def gpu(results: Mapping[str, Any]) -> list[str]:
    """Return the same on a GPU, if that was measured."""
    if not any(name.startswith('gpu_') for name in results):
        return [
            '## On a GPU',
            'Not measured yet. `python -m benchmarks.all --device cuda` takes the same figures '
            "there, and SAM-ViT-H's encoder and whole node at 1024² in bfloat16.",
        ]
    parts = ['## On a GPU']
    for name, tell in (('encoder', encoder), ('node', node), ('alternatives', alternatives)):
        if f'gpu_{name}' in results:
            parts += [text for text in tell(results[f'gpu_{name}'])[1:] if '![' not in text]
    if 'gpu_huge' in results:
        huge = results['gpu_huge']
        parts += [f'The whole {huge["config"]} network:']
        parts += [t for t in (*stages(huge)[1:], *node(huge['node'])[1:]) if '![' not in t]
    return parts


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, its first column to the left and the others to the right."""
    lines = [head, ['---', *(['---:'] * (len(head) - 1))], *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def plot(name: str, caption: str) -> str:
    """Return a picture among the page's plots."""
    return f'![{caption}](images/performance_{name}.png)'


def span(times: Mapping[str, float], digits: int = 0) -> str:
    """Return a median and its spread."""
    median, least, most = (f'{times[key]:.{digits}f}' for key in ('median', 'least', 'most'))
    return f'{median} ({least}–{most})'


def by(factor: float) -> str:
    """Return a factor."""
    return f'× {factor:.2f}'


def unique(values: Iterable[Any]) -> list[Any]:
    """Return the values, each once, in their order."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


if __name__ == '__main__':
    main()
