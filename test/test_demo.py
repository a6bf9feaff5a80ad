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

"""The demo: its checks, its node process, its client, and the whole of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from time import monotonic, sleep

from lunar_perception.camera import PinholeCamera
from lunar_perception.commands import CommandError
from lunar_perception.commands.local_dds import use_local_dds
from lunar_perception.commands.node_process import NodeProcess
from lunar_perception.commands.output_checks import violations
from lunar_perception.data.lusnar import Scene
from lunar_perception.inference.predictor import SHIPPED_WEIGHTS
from lunar_perception.taxonomy import SKY
import numpy as np
import pytest
from tiny_network import save_tiny_network

COMMAND = [sys.executable, '-m', 'lunar_perception.cli', 'demo']
CAMERA = PinholeCamera(50, 34, 40.0, 44.0, 23.0, 15.5)
POINT = np.dtype(
    {
        'names': ['x', 'y', 'z', 'rgb', 'label', 'confidence'],
        'formats': ['<f4', '<f4', '<f4', '<f4', '<u4', '<f4'],
        'offsets': [0, 4, 8, 16, 20, 24],
        'itemsize': 32,
    }
)


@dataclass(frozen=True)
class Outputs:
    label: np.ndarray
    confidence: np.ndarray
    depth: np.ndarray
    uncertainty: np.ndarray
    points: np.ndarray


@dataclass(frozen=True)
class DrawnFrame:
    stamp_ns: int
    image: np.ndarray
    camera: PinholeCamera = CAMERA


def drawn_image(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (7, 10, 3), np.uint8)
    return noise.repeat(5, axis=0).repeat(5, axis=1)[: CAMERA.height, : CAMERA.width]


@pytest.fixture
def sound() -> Outputs:
    """Return outputs of `drawn_image(0)` as they should be, made pixel by pixel."""
    rng = np.random.default_rng(1)
    shape = CAMERA.height, CAMERA.width
    label = rng.integers(0, 5, shape).astype(np.uint8)
    confidence = rng.integers(50, 256, shape).astype(np.uint8)
    depth = rng.uniform(1, 90, shape).astype(np.float32)
    depth[label == SKY] = np.inf
    points = np.zeros((9, 13), POINT)
    image = drawn_image(0)
    for row, column in np.ndindex(points.shape):
        v, u = 4 * row, 4 * column
        z = float(depth[v, u]) if np.isfinite(depth[v, u]) else np.nan
        red, green, blue = (int(value) for value in image[v, u])
        points[row, column] = (
            (u - 23.0) * z / 40.0,
            (v - 15.5) * z / 44.0,
            z,
            np.uint32(red * 65536 + green * 256 + blue).view(np.float32),
            label[v, u],
            confidence[v, u] / 255,
        )
    sigma = np.where(label == SKY, np.nan, depth / 10).astype(np.float32)
    return Outputs(label, confidence, depth, sigma, points)


def test_sound_outputs_pass(sound: Outputs) -> None:
    assert violations(sound, drawn_image(0), CAMERA) == []


def change_point(field: str, by: float) -> Callable[[Outputs], None]:
    def change(outputs: Outputs) -> None:
        ground = outputs.label[::4, ::4] != SKY
        outputs.points[field][ground] += np.array(by, outputs.points[field].dtype)

    return change


def set_all(name: str, chosen: Callable[[Outputs], np.ndarray], value: float):
    def change(outputs: Outputs) -> None:
        getattr(outputs, name)[chosen(outputs)] = value

    return change


def sky(outputs: Outputs) -> np.ndarray:
    return outputs.label == SKY


def ground(outputs: Outputs) -> np.ndarray:
    return outputs.label != SKY


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (set_all('label', sky, 9), 'known class'),
        (set_all('depth', sky, 100.0), 'depth is +Inf'),
        (set_all('depth', ground, np.inf), 'depth is +Inf'),
        (set_all('depth', ground, np.nan), 'finite and positive'),
        (set_all('depth', ground, -1.0), 'finite and positive'),
        (set_all('uncertainty', ground, np.nan), 'uncertainty is finite'),
        (set_all('uncertainty', ground, -1.0), 'uncertainty is not negative'),
        (change_point('x', 1e-3), "point's x"),
        (change_point('y', 1e-3), "point's y"),
        (change_point('z', 1e-3), "point's z"),
        (change_point('label', 1), "pixel's label"),
        (change_point('confidence', 0.01), "pixel's confidence"),
    ],
)
def test_each_violation_is_found(
    sound: Outputs, change: Callable[[Outputs], None], says: str
) -> None:
    change(sound)
    assert any(says in rule for rule in violations(sound, drawn_image(0), CAMERA))


def test_a_cloud_of_another_size_or_colour_is_found(sound: Outputs) -> None:
    smaller = replace(sound, points=sound.points[:, :-1])
    assert '(9, 12)' in violations(smaller, drawn_image(0), CAMERA)[-1]
    assert any('colour' in rule for rule in violations(sound, drawn_image(1), CAMERA))


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use a ROS domain of the test's own; the environment is as before afterwards."""
    pytest.importorskip('rclpy', reason='needs ROS 2')
    for name in (
        'ROS_DOMAIN_ID',
        'ROS_AUTOMATIC_DISCOVERY_RANGE',
        'ROS_LOG_DIR',
        'FASTRTPS_DEFAULT_PROFILES_FILE',
    ):
        monkeypatch.setenv(name, '')
    use_local_dds(tmp_path / 'log')


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny network that sees sky and ground in a drawn image."""
    return save_tiny_network(tmp_path_factory.mktemp('weights'))


def test_the_real_node_answers_every_frame_and_ends_well(
    ros: None, weights: Path, tmp_path: Path
) -> None:
    from lunar_perception.nodes.frame_client import FrameClient, NodeOutputError

    frames = [DrawnFrame(1 + 10**9 * n, drawn_image(n)) for n in range(1, 9)]
    log = tmp_path / 'log' / 'node.txt'
    with NodeProcess({'lossless': 'true', 'model': weights}, log) as node:
        with FrameClient(alive=node.check_alive) as client:
            client.wait_until_ready(CAMERA)
            outputs = list(client.stream(frames))
            diagnostics = client.diagnostics_after(len(frames))
        assert [each.stamp_ns for each in outputs] == [frame.stamp_ns for frame in frames]
        for frame, each in zip(frames, outputs, strict=True):
            assert violations(each, frame.image, CAMERA) == []
            assert each.latency_ms > 0
        assert 0 < np.mean([each.label == SKY for each in outputs]) < 1
        counts = {key: diagnostics[key] for key in ('received', 'processed', 'dropped')}
        assert counts == {'received': '8', 'processed': '8', 'dropped': '0'}
        node.stop()

        with (
            pytest.raises(CommandError, match='ended by itself'),
            FrameClient(alive=node.check_alive) as client,
        ):
            client.wait_until_ready(CAMERA)
    with (
        pytest.raises(NodeOutputError, match='did not become active within 1 s'),
        FrameClient(alive=lambda: None) as client,
    ):
        client.wait_until_ready(CAMERA, timeout_s=1)


def test_a_node_that_can_not_load_its_weights_says_why(ros: None, tmp_path: Path) -> None:
    from lunar_perception.nodes.frame_client import FrameClient, NodeOutputError

    log = tmp_path / 'log' / 'node.txt'
    with (
        NodeProcess({'model': tmp_path / 'no weights'}, log) as node,
        FrameClient(alive=node.check_alive) as client,
        pytest.raises(NodeOutputError, match='no weights'),
    ):
        client.wait_until_ready(CAMERA)


def test_a_node_that_ends_by_itself_is_reported_with_its_last_words(
    ros: None, tmp_path: Path
) -> None:
    log = tmp_path / 'node.txt'
    with NodeProcess({'no such': 'syntax: ['}, log) as node:
        deadline = monotonic() + 60
        with pytest.raises(CommandError, match='ended by itself') as ending:
            while monotonic() < deadline:
                node.check_alive()
                sleep(0.1)
    assert str(log) in str(ending.value)
    assert log.read_text().splitlines()[-1] in str(ending.value)


def run_demo(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def nodes_logging_to(folder: Path) -> list[str]:
    """Return the command lines of the unified nodes that have `folder` in their environment."""
    found = []
    for process in Path('/proc').glob('[0-9]*'):
        try:
            command = (process / 'cmdline').read_bytes().replace(b'\0', b' ').decode()
            if (
                'unified_node' in command
                and str(folder).encode() in (process / 'environ').read_bytes()
            ):
                found.append(command)
        except OSError:  # it has just ended, or is not ours
            continue
    return found


def test_the_demo(tmp_path: Path) -> None:
    pytest.importorskip('rclpy', reason='needs ROS 2')
    for name in ('model.safetensors', 'position_prior.png'):
        if not (SHIPPED_WEIGHTS / name).is_file():
            pytest.skip(f'no {name} ships yet')
    result = run_demo('--frames', '2', '--output', tmp_path)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert (metrics['received'], metrics['processed'], metrics['dropped']) == (2, 2, 0)
    assert metrics['frames'] == 2
    assert metrics['miou'] > metrics['reference_rows']['position_prior']['miou']
    assert metrics['rock']['abs_rel'] < metrics['reference_rows']['flat_plane']['rock']['abs_rel']
    assert 0 < metrics['latency_ms']['p50'] <= metrics['latency_ms']['p95']
    assert 'http' not in (tmp_path / 'report.html').read_text()
    assert len(Scene(tmp_path / 'scene')) == len(list((tmp_path / 'images').iterdir())) == 2
    assert (tmp_path / 'demo.png').is_file()
    assert str(tmp_path / 'report.html') in result.stdout
    assert nodes_logging_to(tmp_path) == []


def test_ctrl_c_ends_the_demo_and_its_node(tmp_path: Path) -> None:
    pytest.importorskip('rclpy', reason='needs ROS 2')
    process = subprocess.Popen(
        [*COMMAND, '--output', str(tmp_path)], stderr=subprocess.PIPE, text=True
    )
    deadline = monotonic() + 60
    while not nodes_logging_to(tmp_path) and monotonic() < deadline:
        sleep(0.1)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert errors.splitlines()[-1] == 'lunar-perception demo: interrupted'
    assert 'Traceback' not in errors
    assert nodes_logging_to(tmp_path) == []


def test_without_ros_the_demo_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / 'rclpy.py').write_text('raise ImportError("No module named rclpy")')
    result = run_demo('--output', tmp_path / 'out', PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert 'the demo needs ROS 2' in result.stderr and 'source your ROS 2' in result.stderr


def test_the_demo_touches_no_folder_that_is_not_its_own(tmp_path: Path) -> None:
    pytest.importorskip('rclpy', reason='needs ROS 2')
    (tmp_path / 'scene').mkdir()
    (tmp_path / 'scene' / 'mine.txt').write_text('mine')
    result = run_demo('--output', tmp_path)
    assert result.returncode == 1
    assert 'name another folder' in result.stderr
    assert (tmp_path / 'scene' / 'mine.txt').read_text() == 'mine'
