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

"""The command line: help, exit status, one-line errors, and every command but the demo."""

import os
from pathlib import Path
import signal
import subprocess
import sys
from time import monotonic, sleep

import cv2
from lunar_perception.cli import main
from lunar_perception.data.lusnar import Scene
from lunar_perception.data.lusnar_writer import LusnarSceneWriter
from lunar_perception.data.pfm import read_pfm
from lunar_perception.models import UnifiedConfig, UnifiedModel
from lunar_perception.models.encoders import SamEncoderConfig
from lunar_perception.taxonomy import SKY
import numpy as np
import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / 'shared' / 'data'
COMMAND = [sys.executable, '-m', 'lunar_perception.cli']
SYNTH = ['synth', '--scenes', '2', '--frames', '2', '--size', '32', '--seed', '5']


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny network whose labels vary over an image."""
    encoder = SamEncoderConfig(
        hidden_size=16,
        depth=4,
        heads=2,
        global_blocks=(1, 3),
        window_size=3,
        image_size=64,
        taps=(0, 1, 2, 3),
    )
    config = UnifiedConfig(
        encoder, decoder_channels=8, detail_channels=(6, 6, 8, 8), input_size=96
    )
    torch.manual_seed(1)
    network = UnifiedModel(config).eval()
    with torch.no_grad():
        network.segmentation_head[-1].weight.normal_(std=3)
    folder = tmp_path_factory.mktemp('model')
    network.save_pretrained(folder)
    return folder


@pytest.fixture
def picture() -> np.ndarray:
    """Return a BGR image (40, 50, 3) uint8 of smooth blobs."""
    noise = np.random.default_rng(3).uniform(0, 255, (5, 6, 3))
    return cv2.resize(noise, (50, 40), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def predict(source: Path, output: Path, model: Path, *options: str) -> int:
    return main(['predict', str(source), '--output', str(output), '--model', str(model), *options])


def outputs(folder: Path, stem: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label = cv2.imread(str(folder / f'{stem}_label.png'), cv2.IMREAD_UNCHANGED)
    overlay = cv2.imread(str(folder / f'{stem}_overlay.png'), cv2.IMREAD_UNCHANGED)
    return label, read_pfm(folder / f'{stem}_depth.pfm'), overlay


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def test_help_waits_for_nothing_that_is_slow() -> None:
    program = (
        'import sys; from lunar_perception.cli import parser; print(parser().format_help()); '
        'sys.exit(any(name in sys.modules for name in ("cv2", "numpy", "rclpy", "torch")))'
    )
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert result.returncode == 0
    assert all(name in result.stdout for name in ('demo', 'synth', 'check', 'predict'))


@pytest.mark.parametrize(
    'arguments',
    [
        [],
        ['no-such-command'],
        ['demo', '--frames', '0'],
        ['demo', '--frames', 'many'],
        ['predict', 'image.png'],
        ['predict', 'image.png', '--output', 'out', '--fov-deg', '180'],
        ['synth', '--output', 'out', '--size', '8'],
        ['synth', '--output', 'out', '--seed', '-1'],
    ],
)
def test_usage_errors_end_with_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2
    assert 'usage: lunar-perception' in capsys.readouterr().err


def test_predict_writes_labels_depth_and_overlay_at_the_images_size(
    tmp_path: Path, model: Path, picture: np.ndarray
) -> None:
    cv2.imwrite(str(tmp_path / 'frame.png'), picture)
    assert predict(tmp_path / 'frame.png', tmp_path / 'out', model) == 0
    label, depth, overlay = outputs(tmp_path / 'out', 'frame')
    assert label.dtype == np.uint8
    assert label.shape == depth.shape == (40, 50)
    assert overlay.shape == (40, 50, 3)
    assert 0 < np.mean(label == SKY) < 1
    np.testing.assert_array_equal(np.isposinf(depth), label == SKY)
    assert (depth > 0).all()
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert names == {'frame_label.png', 'frame_depth.pfm', 'frame_overlay.png'}


def test_predict_takes_grey_rgba_and_16_bit_images_for_what_they_show(
    tmp_path: Path, model: Path, picture: np.ndarray
) -> None:
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    images = {
        'color': picture,
        'color16': picture.astype(np.uint16) * 257,
        'rgba': np.dstack([picture, 255 - grey]),
        'grey': grey,
        'grey16': grey.astype(np.uint16) * 257,
        'grey_as_color': np.dstack([grey] * 3),
    }
    folder = tmp_path / 'in'
    folder.mkdir()
    for name, image in images.items():
        cv2.imwrite(str(folder / f'{name}.png'), image)
    assert predict(folder, tmp_path / 'out', model) == 0
    results = {name: outputs(tmp_path / 'out', name) for name in images}
    for name, like in (
        ('color16', 'color'),
        ('rgba', 'color'),
        ('grey16', 'grey'),
        ('grey_as_color', 'grey'),
    ):
        for array, expected in zip(results[name], results[like], strict=True):
            np.testing.assert_array_equal(array, expected)
    assert (results['grey'][1] != results['color'][1]).any()


def test_predict_doubles_depth_for_twice_the_focal_length(
    tmp_path: Path, model: Path, picture: np.ndarray
) -> None:
    image = tmp_path / 'frame.png'
    cv2.imwrite(str(image), picture)
    narrow = np.degrees(2 * np.arctan(np.tan(np.radians(80) / 2) / 2))
    assert predict(image, tmp_path / 'wide', model, '--fov-deg', '80') == 0
    assert predict(image, tmp_path / 'narrow', model, '--fov-deg', f'{narrow}') == 0
    near, far = (outputs(tmp_path / name, 'frame')[1] for name in ('wide', 'narrow'))
    np.testing.assert_allclose(far, 2 * near, rtol=1e-5)


def test_predict_names_what_it_can_not_read_and_does_the_rest(
    tmp_path: Path, model: Path, picture: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'in'
    folder.mkdir()
    cv2.imwrite(str(folder / 'a.png'), picture)
    cv2.imwrite(str(folder / 'z.jpg'), picture)
    (folder / 'cut.png').write_bytes((folder / 'a.png').read_bytes()[:200])
    (folder / 'empty.jpg').touch()
    (folder / 'notes.txt').write_text('not an image, and not asked for')
    cv2.imwrite(str(folder / 'float.tif'), picture.astype(np.float32))
    assert predict(folder, tmp_path / 'out', model) == 1
    # libpng itself may say something too, as OpenCV 4 leaves it to.
    errors = capfd.readouterr().err.splitlines()
    ours = [line for line in errors if line.startswith('lunar-perception predict: ')]
    for says, line in zip(('cut.png', 'empty.jpg', 'float.tif', '3 of 5'), ours, strict=True):
        assert says in line
    assert {path.name.split('_')[0] for path in (tmp_path / 'out').iterdir()} == {'a', 'z'}


@pytest.mark.parametrize(
    'case', ['missing', 'not an image', 'empty folder', 'same stem', 'itself']
)
def test_predict_refuses_in_one_line(
    case: str,
    tmp_path: Path,
    model: Path,
    picture: np.ndarray,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder, output = tmp_path / 'in', tmp_path / 'out'
    folder.mkdir()
    source, says = folder, ''
    if case == 'missing':
        source, says = folder / 'none.png', 'none.png does not exist'
    elif case == 'not an image':
        source, says = folder / 'text.png', 'text.png can not be read as an image'
        source.write_text('text')
    elif case == 'empty folder':
        says = 'has no images'
    elif case == 'same stem':
        says = "named 'a'"
        cv2.imwrite(str(folder / 'a.png'), picture)
        cv2.imwrite(str(folder / 'a.jpg'), picture)
    elif case == 'itself':
        output, says = folder, 'name another'
        cv2.imwrite(str(folder / 'a.png'), picture)
    assert predict(source, output, model) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and says in lines[0]
    assert not (tmp_path / 'out').exists()


def test_predict_refuses_a_model_that_is_not_there(
    tmp_path: Path, picture: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    assert predict(tmp_path / 'a.png', tmp_path / 'out', tmp_path / 'no model') == 1
    assert 'no model' in capfd.readouterr().err


def test_predict_on_the_reference_frames(tmp_path: Path, model: Path) -> None:
    frames = sorted((SHARED / 'lusnar_reference').glob('scene*_rgb.png'))
    if not frames:
        pytest.skip('shared/data/lusnar_reference is not here')
    assert predict(frames[0], tmp_path, model) == 0
    assert outputs(tmp_path, frames[0].stem)[0].shape == (143, 143)


def test_check_tells_a_sound_scene_from_a_damaged_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = np.full((32, 32), SKY, np.uint8)
    label[16:] = 0
    depth = np.where(label == SKY, np.inf, 4).astype(np.float32)
    image = np.dstack([label * 20] * 3)
    scene = tmp_path / 'Moon_1'
    with LusnarSceneWriter(scene) as writer:
        writer.write_frame(
            10**18,
            left=image,
            right=image,
            depth=depth,
            label=label,
            pose=((0, 0, 0), (1, 0, 0, 0)),
            lidar=(np.ones((1, 3)), np.zeros(1, np.uint8)),
        )
    (scene / 'imu.txt').write_text('# none\n')
    assert main(['check', str(tmp_path)]) == 0
    assert 'sound' in capsys.readouterr().out

    file = next((scene / 'image0' / 'depth').iterdir())
    file.write_bytes(file.read_bytes()[:-4])
    assert main(['check', str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert file.name in captured.out
    assert '1 problem' in captured.err
    assert main(['check', str(tmp_path / 'nothing')]) == 1


def test_synth_gives_the_same_bytes_whatever_the_workers_and_the_interruptions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / 'one', tmp_path / 'two'
    assert main([*SYNTH, '--output', str(one)]) == 0
    assert main([*SYNTH, '--output', str(two), '--workers', '2']) == 0
    expected = file_bytes(one)
    assert file_bytes(two) == expected
    assert [len(Scene(one / name)) for name in ('Moon_1', 'Moon_2')] == [2, 2]
    assert len({content for name, content in expected.items() if 'image0/color/' in name}) == 4

    assert main([*SYNTH, '--output', str(two)]) == 1
    assert '--resume' in capsys.readouterr().err
    # As an interruption leaves it: a frame and the index missing, a scene not begun.
    (two / 'Moon_1' / 'image0' / 'color_timestamp.txt').unlink()
    sorted((two / 'Moon_1' / 'image0' / 'color').iterdir())[1].unlink()
    (two / 'Moon_2').rename(tmp_path / 'aside')
    assert main([*SYNTH, '--output', str(two), '--resume']) == 0
    assert file_bytes(two) == expected
    # Frames of another Moon are not mixed in.
    assert main([*SYNTH, '--output', str(two), '--resume', '--seed', '99']) == 1
    assert 'seed' in capsys.readouterr().err
    assert file_bytes(two) == expected


def test_ctrl_c_ends_synth_and_its_workers(tmp_path: Path) -> None:
    # Ctrl-C in a terminal reaches every process of the group; so does the signal here.
    process = subprocess.Popen(
        [*COMMAND, 'synth', '--output', str(tmp_path), '--scenes', '2', '--frames', '500',
         '--size', '32', '--workers', '2'],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )  # fmt: skip
    deadline = monotonic() + 120
    while not any(tmp_path.rglob('*.png')) and monotonic() < deadline:
        assert process.poll() is None
        sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == 'lunar-perception synth: interrupted'
    assert 'Traceback' not in errors
    with pytest.raises(ProcessLookupError):
        for _ in range(100):  # the workers, once they are reaped
            os.killpg(process.pid, 0)
            sleep(0.1)
