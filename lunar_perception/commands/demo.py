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

"""`lunar-perception demo`: a drive over a generated Moon, through the real node, to a report."""

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
import shutil
from typing import Any, TYPE_CHECKING

import cv2
from lunar_perception.atomic import write_png
from lunar_perception.commands import CommandError
from lunar_perception.commands.local_dds import use_local_dds
from lunar_perception.commands.node_process import NodeProcess
from lunar_perception.commands.output_checks import violations
from lunar_perception.data.lusnar import Frame, Scene
from lunar_perception.reference_rows import PositionPrior
from lunar_perception.report import write_results
from lunar_perception.scoreboard import Scoreboard
from lunar_perception.synthetic import CameraMount, generate_scene, MoonConfig
from lunar_perception.taxonomy import LUNAR_TERRAIN
from lunar_perception.visualize import color_depth, DEPTH_RANGE_M, overlay_labels, side_by_side
import numpy as np
from tqdm import tqdm

if TYPE_CHECKING:
    from lunar_perception.nodes.frame_client import NodeOutputs

LOG = 'unified_node.txt'
MOUNT = CameraMount()
# Shipped weights must never have been trained on this scene: training takes other seeds. This one
# was chosen by what there is to see, all five classes, before any network had seen it.
MOON = MoonConfig(seed=1969, size=512, mount=MOUNT, frame_interval=0.5)


def run(arguments: Namespace) -> None:
    """Run the demo; CommandError when the node fails, or one of its outputs is wrong."""
    try:
        from lunar_perception.nodes.frame_client import FrameClient, NodeOutputError
    except ImportError as error:
        raise CommandError(
            f'the demo needs ROS 2, which does not import here ({error}); in a checkout run '
            '"uv run lunar-perception demo", or source your ROS 2 installation first'
        ) from error
    output: Path = arguments.output
    clear(output)
    log = output / 'log' / LOG
    use_local_dds(log.parent)

    # The node loads its network while the scene is generated.
    with NodeProcess({'lossless': 'true'}, log) as node:
        with tqdm(total=arguments.frames, desc='generate', unit='frame', disable=None) as bar:

            def advance() -> None:
                node.check_alive()
                bar.update()

            generate_scene(output / 'scene', MOON, arguments.frames, progress=advance)
        scene = Scene(output / 'scene')
        try:
            with FrameClient(alive=node.check_alive) as client:
                client.wait_until_ready(scene.camera)
                scoreboard, latency_ms = score(scene, client.stream(scene), output)
                diagnostics = client.diagnostics_after(len(scene))
        except NodeOutputError as error:
            raise CommandError(f'{error}.\n{node.last_words()}') from error
        node.stop()

    counts = {key: int(diagnostics[key]) for key in ('received', 'processed', 'dropped')}
    metrics = write_results(
        output,
        scoreboard,
        title='A drive over a generated Moon',
        data=f'{len(scene)}, {MOON.size} px, of a generated scene that was never trained on',
        model='the rover weights that ship with the package, in the ROS 2 node',
        latency_ms=latency_ms,
        counts=counts,
    )
    if counts != {'received': len(scene), 'processed': len(scene), 'dropped': 0}:
        raise CommandError(f'the node was sent {len(scene)} frames but counts {counts}; see {log}')
    print(summary(metrics, output))


def clear(output: Path) -> None:
    """Remove an earlier demo's results; CommandError when the folder is something else."""
    folders = [output / name for name in ('scene', 'images', 'log')]
    if any(folder.exists() for folder in folders) and not (folders[-1] / LOG).is_file():
        raise CommandError(f'{output} holds other files; name another folder with --output')
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
    for name in ('metrics.json', 'report.html', 'demo.png'):
        (output / name).unlink(missing_ok=True)


def score(
    scene: Scene, stream: Iterable['NodeOutputs'], output: Path
) -> tuple[Scoreboard, list[float]]:
    """
    Hold what the node says of each frame against the truth, and picture it.

    Returns the scores and each frame's latency in milliseconds. CommandError when the outputs
    of a frame contradict the interface or one another.
    """
    scoreboard = Scoreboard(PositionPrior.shipped(), MOUNT.height, MOUNT.pitch_deg)
    latency_ms: list[float] = []
    most_to_see = -1
    progress = tqdm(scene, desc='perceive', unit='frame', disable=None)
    for frame, outputs in zip(progress, stream, strict=True):
        found = violations(outputs, frame.image, frame.camera)
        if found:
            raise CommandError(f'the outputs of frame {frame.stamp_ns} are wrong: {found[0]}')
        scoreboard.add(
            str(frame.stamp_ns),
            frame.image,
            frame.camera,
            label=outputs.label,
            confidence=outputs.confidence,
            depth=outputs.depth,
            uncertainty=outputs.uncertainty,
            truth_label=frame.label,
            truth_depth=frame.depth,
        )
        latency_ms.append(outputs.latency_ms)
        picture = draw(frame, outputs.label, outputs.depth)
        write_png(output / 'images' / f'{frame.stamp_ns}.png', picture)
        to_see = np.isin(frame.label, LUNAR_TERRAIN.ids_of(['crater', 'rock'])).sum()
        if to_see > most_to_see:
            most_to_see = to_see
            write_png(output / 'demo.png', picture)
    return scoreboard, latency_ms


def draw(frame: Frame, label: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return image, true labels, labels and depth side by side; (H', W', 3) uint8 RGB."""
    panels = {
        'Camera image': frame.image,
        'True labels': overlay_labels(frame.image, frame.label),
        'Labels': overlay_labels(frame.image, label),
        'Depth': color_depth(depth),
    }
    row = side_by_side(list(panels.values()), list(panels))
    return np.concatenate([row, draw_legend(row.shape[1])])


def draw_legend(width: int) -> np.ndarray:
    """Return a strip with the colours of classes and depth; (h, width, 3) uint8 RGB."""
    near, far = DEPTH_RANGE_M
    ramp = color_depth(np.geomspace(near, far, 160)[None].repeat(16, axis=0))
    swatches = [np.full((16, 16, 3), color, np.uint8) for color in LUNAR_TERRAIN.colors]
    keys = [*zip(swatches, LUNAR_TERRAIN.names, strict=True), (ramp, f'{near:g} to {far:g} m')]
    strip = np.full((40, width, 3), 255, np.uint8)
    x = 0
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.55
    for key, text in keys:
        end = x + key.shape[1]
        strip[14:30, x:end] = key
        x = end + 8
        cv2.putText(strip, text, (x, 27), font, scale, (40, 40, 40), 1, cv2.LINE_AA)
        x += cv2.getTextSize(text, font, scale, 1)[0][0] + 28
    return strip


def summary(metrics: dict[str, Any], output: Path) -> str:
    """Return the closing words."""
    prior, plane = (metrics['reference_rows'][key] for key in ('position_prior', 'flat_plane'))

    def number(value: float | None) -> str:
        return 'none' if value is None else f'{value:.3f}'

    return '\n'.join(
        [
            f'{metrics["processed"]} frames through the node, none dropped, every output sound; '
            f'median latency {metrics["latency_ms"]["p50"]:.0f} ms',
            f'labels  mIoU {number(metrics["miou"])} (position prior {number(prior["miou"])})',
            f'depth   abs. rel. error {number(metrics["abs_rel"])}, on rocks '
            f'{number(metrics["rock"]["abs_rel"])} '
            f'(flat plane {number(plane["abs_rel"])}, {number(plane["rock"]["abs_rel"])})',
            f'look at {output / "report.html"} and {output / "demo.png"}',
        ]
    )
