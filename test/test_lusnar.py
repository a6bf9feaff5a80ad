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

"""LuSNAR scenes: what is written comes back, in every layout, and damage is named."""

from pathlib import Path
import pickle
import re
import shutil
import tempfile

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
from lunar_perception.data.lusnar import LusnarDataset, LusnarError, Scene
from lunar_perception.data.lusnar_check import check
from lunar_perception.data.lusnar_format import (
    CAMERA_PITCH_DEG,
    CAMERA_QUATERNION,
    ImuSamples,
    LidarScan,
    Pose,
    README_LAYOUT,
    rotation_matrix,
    SHIPPED_LAYOUT,
)
from lunar_perception.data.lusnar_writer import LusnarSceneWriter
from lunar_perception.data.pfm import read_pfm, write_pfm
from lunar_perception.taxonomy import LUNAR_TERRAIN, SKY
import numpy as np
import pytest

START = 1693274724419036672
GAP = 108_302_336


def make_frame(seed: int, height: int = 12, width: int = 16) -> dict:
    """Return the arrays of one random frame; the upper third is sky."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, (height, width), np.uint8)
    depth = rng.uniform(0.5, 90, (height, width)).astype(np.float32)
    label[: height // 3], depth[: height // 3] = SKY, np.inf
    points = rng.uniform(-30, 30, (rng.integers(0, 50), 3)).astype(np.float32)
    quaternion = rng.normal(size=4)
    return {
        'left': rng.integers(0, 256, (height, width, 3), np.uint8),
        'right': rng.integers(0, 256, (height, width, 3), np.uint8),
        'depth': depth,
        'label': label,
        'pose': Pose(rng.normal(size=3) * 50, quaternion / np.linalg.norm(quaternion)),
        'lidar': LidarScan(points, rng.integers(0, 3, len(points), np.uint8)),
    }


def write_scene(path: Path, frames: int = 3, **size: int) -> list[dict]:
    written = [make_frame(seed, **size) for seed in range(frames)]
    with LusnarSceneWriter(path) as writer:
        for index, frame in enumerate(written):
            writer.write_frame(START + index * GAP, **frame)
        stamps = START - GAP + np.arange(10 * frames, dtype=np.int64) * 10_000_000
        values = np.random.default_rng(9).normal(size=(len(stamps), 6))
        writer.add_imu(ImuSamples(stamps, values[:, :3], values[:, 3:]))
    return written


def to_readme_layout(scene: Path) -> None:
    ours, theirs = vars(SHIPPED_LAYOUT), vars(README_LAYOUT)
    shutil.move(scene / 'image1', scene / 'image2')
    shutil.move(scene / 'image0', scene / 'image1')
    for old, new in [('color', 'RGB'), ('depth', 'Depth'), ('label', 'Label')]:
        shutil.move(scene / 'image1' / old, scene / 'image1' / new)
    shutil.move(scene / 'image2/color', scene / 'image2/RGB')
    for key in ('poses', 'imu'):
        text = (scene / ours[key]).read_text()
        (scene / theirs[key]).write_text(text.replace(',', ' '))
        (scene / ours[key]).unlink()


def assert_frames_equal(scene: Scene, written: list[dict]) -> None:
    assert len(scene) == len(written)
    for index, (frame, expected) in enumerate(zip(scene, written, strict=True)):
        assert frame.stamp_ns == START + index * GAP
        np.testing.assert_array_equal(frame.image, expected['left'])
        np.testing.assert_array_equal(frame.right_image, expected['right'])
        np.testing.assert_array_equal(frame.depth, expected['depth'])
        np.testing.assert_array_equal(frame.label, expected['label'])
        np.testing.assert_array_equal(frame.pose.position, expected['pose'].position)
        np.testing.assert_array_equal(frame.pose.quaternion, expected['pose'].quaternion)
        np.testing.assert_allclose(frame.lidar.points, expected['lidar'].points, atol=6e-5)
        np.testing.assert_array_equal(frame.lidar.label, expected['lidar'].label)
        assert (frame.image.dtype, frame.depth.dtype) == (np.uint8, np.float32)


@settings(max_examples=8, deadline=None)
@given(
    frames=st.integers(1, 3),
    height=st.integers(3, 20),
    width=st.integers(1, 20),
    flip=st.booleans(),
    rgb=st.booleans(),
    readme=st.booleans(),
    shift=st.integers(-100, 100),
)
def test_what_is_written_comes_back(frames, height, width, flip, rgb, readme, shift):
    """Both row orders, RGBA and RGB, both layouts, pose stamps off by up to 100 ns."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'Moon_1'
        written = write_scene(path, frames, height=height, width=width)
        if flip:
            for file in path.glob('image0/depth/*.pfm'):
                write_pfm(file, read_pfm(file, top_to_bottom=True))
        if rgb:
            for file in path.glob('image*/color/*.png'):
                cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_COLOR))
        rows = (path / 'gt.txt').read_text().splitlines()
        moved = [f'{int(row[:19]) + shift}{row[19:]}' for row in rows[1:]]
        (path / 'gt.txt').write_text('\n'.join([rows[0], *moved]) + '\n')
        if readme:
            to_readme_layout(path)
        scene = pickle.loads(pickle.dumps(Scene(path)))
        assert_frames_equal(scene, written)
        assert scene.pfm_row_order == ('bottom_to_top' if flip else 'top_to_bottom')
        assert scene.layout == (README_LAYOUT if readme else SHIPPED_LAYOUT)


def test_files_are_as_lusnar_has_them(tmp_path):
    frame = write_scene(tmp_path / 'Moon_1', 1)[0]
    stem = str(START)
    color = cv2.imread(str(tmp_path / f'Moon_1/image0/color/{stem}.png'), cv2.IMREAD_UNCHANGED)
    assert color.shape[2] == 4
    assert (color[..., 3] == 255).all()
    label = cv2.imread(str(tmp_path / f'Moon_1/image0/label/{stem}.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(label[..., ::-1], np.array(LUNAR_TERRAIN.colors)[frame['label']])
    raw = (tmp_path / f'Moon_1/image0/depth/{stem}.pfm').read_bytes()
    assert raw.startswith(b'Pf\n16 12\n-1.0\n')
    rows = np.frombuffer(raw, '<f4', offset=len(raw) - 4 * 16 * 12).reshape(12, 16)
    assert (rows[:4] == 65504.0).all()  # the sky comes first: rows run from top to bottom
    np.testing.assert_array_equal(rows[4:], frame['depth'][4:])

    gt = (tmp_path / 'Moon_1/gt.txt').read_text().splitlines()
    assert [line.startswith('#') for line in gt] == [True, False]
    row = gt[1].split(',')
    assert (row[0], len(row)) == (stem, 17)
    np.testing.assert_array_equal(np.array(row[1:8], float), np.concatenate(frame['pose']))
    assert len((tmp_path / 'Moon_1/imu.txt').read_text().splitlines()[1].split(',')) == 7
    index = (tmp_path / 'Moon_1/image0/color_timestamp.txt').read_text().splitlines()
    assert index[1] == f'{stem},{stem}.png'
    scan = np.loadtxt(tmp_path / f'Moon_1/LiDAR/{stem}.txt', delimiter=',', ndmin=2)
    assert set(scan[:, 3]) <= {-1, 0, 174}
    lidar = (tmp_path / 'Moon_1/LiDAR/timestamp.txt').read_text().strip().split(',')
    position, quaternion = frame['pose']
    expected = position + rotation_matrix(quaternion) @ [1, 0, -1.5]
    assert lidar[0] == stem
    np.testing.assert_allclose(np.array(lidar[1:], float), [*expected, *quaternion])


def test_extrinsics_look_down():
    """The optical axes in the body, by hand: right is +y, forward is +x, down is +z."""
    rotation = rotation_matrix(np.array(CAMERA_QUATERNION))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rotation[:, 0], [0, 1, 0], atol=1e-12)
    down = np.radians(CAMERA_PITCH_DEG)
    np.testing.assert_allclose(rotation[:, 2], [np.cos(down), 0, np.sin(down)], atol=1e-12)
    assert 19.9 < CAMERA_PITCH_DEG < 20


def test_camera_is_scaled_to_the_images(tmp_path):
    write_scene(tmp_path, 1, height=256, width=512)
    camera = Scene(tmp_path)[0].camera
    assert (camera.width, camera.height) == (512, 256)
    assert camera.fx == pytest.approx(610.17784 / 2)
    assert camera.fy == pytest.approx(610.17784 / 4)
    assert (camera.cx, camera.cy) == (256, 128)


def test_imu_between_frames(tmp_path):
    write_scene(tmp_path)
    scene = Scene(tmp_path)
    stamps = np.concatenate([frame.imu.stamp_ns for frame in scene])
    assert stamps[0] == START - GAP  # the first frame's reach back to the beginning
    assert (np.diff(stamps) == 10_000_000).all()
    assert ((scene[1].imu.stamp_ns > START) & (scene[1].imu.stamp_ns <= START + GAP)).all()
    assert scene[1].imu.acceleration.shape == (len(scene[1].imu.stamp_ns), 3)
    np.testing.assert_array_equal(scene[1:][0].imu.stamp_ns, scene[1].imu.stamp_ns)


def test_row_order_without_sky_goes_by_the_ground(tmp_path):
    depth = np.tile(np.linspace(20, 2, 12, dtype=np.float32)[:, None], (1, 16))
    frame = make_frame(0) | {'depth': depth, 'label': np.zeros((12, 16), np.uint8)}
    with LusnarSceneWriter(tmp_path) as writer:
        writer.write_frame(START, **frame)
    assert Scene(tmp_path).pfm_row_order == 'top_to_bottom'
    (file,) = tmp_path.glob('image0/depth/*')
    write_pfm(file, depth)
    scene = Scene(tmp_path)
    assert scene.pfm_row_order == 'bottom_to_top'
    np.testing.assert_array_equal(scene[0].depth, depth)


def test_millimetres_of_the_readme_layout(tmp_path):
    written = write_scene(tmp_path)[0]
    to_readme_layout(tmp_path)
    for file in tmp_path.glob('image1/Depth/*.pfm'):
        depth = np.nan_to_num(read_pfm(file, top_to_bottom=True) * 1000).clip(0, 65535)
        cv2.imwrite(str(file.with_suffix('.png')), depth.round().astype(np.uint16))
        file.unlink()
    depth = Scene(tmp_path)[0].depth
    sky = written['label'] == SKY
    assert (depth[sky] == np.inf).all()
    np.testing.assert_allclose(depth[~sky], written['depth'][~sky].clip(0, 65.535), atol=6e-4)


def damage(path: Path, how: str) -> None:
    """Damage the second of a scene's three frames."""
    stem = str(START + GAP)
    depth, label = path / f'image0/depth/{stem}.pfm', path / f'image0/label/{stem}.png'
    color = path / f'image0/color/{stem}.png'
    if how == 'depth':
        depth.write_bytes(depth.read_bytes()[:-3])
    elif how == 'label':
        image = cv2.imread(str(label))
        image[5, 7] = (3, 2, 1)
        cv2.imwrite(str(label), image)
    elif how == 'image':
        color.write_bytes(color.read_bytes()[:-20])
    elif how == 'right_image':
        (path / f'image1/color/{stem}.png').unlink()
    elif how == 'lidar':
        (path / f'LiDAR/{stem}.txt').write_text('1,2,3,7\n')
    elif how == 'pose':
        rows = (path / 'gt.txt').read_text().splitlines()
        (path / 'gt.txt').write_text('\n'.join([*rows[:2], *rows[3:]]))
    elif how == 'imu':
        (path / 'imu.txt').write_text('# header\n1693274724419036672,1,2,3,4,5,six\n')


DAMAGES = [
    ('depth', 'pfm', r'765 bytes of pixels, where 16×12 float32 take 768'),
    ('label', 'png', r'unknown label colour \(1, 2, 3\) at column 7, row 5 \(1 such'),
    ('image', 'png', 'not a whole PNG'),
    ('right_image', 'png', 'missing'),
    ('lidar', 'txt', 'unknown LiDAR category 7'),
    ('pose', 'gt.txt', 'no pose within 1 ms of frame'),
    ('imu', 'imu.txt', "not a table of numbers.*'six'"),
]


@pytest.mark.parametrize(('how', 'file', 'reason'), DAMAGES)
def test_damage_names_file_scene_and_reason(tmp_path, how, file, reason):
    path = tmp_path / 'Moon_4'
    written = write_scene(path)
    damage(path, how)
    scene = Scene(path)
    with pytest.raises(LusnarError, match=reason) as caught:
        getattr(scene[1], how)
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.scene == 'Moon_4'
    assert error.file.endswith(file)
    assert 'Moon_4' in str(error) and error.file in str(error)
    if how != 'imu':  # the other frames are as good as before
        for index in (0, 2):
            np.testing.assert_array_equal(scene[index].depth, written[index]['depth'])
            getattr(scene[index], how)


@pytest.mark.parametrize(('how', 'file', 'reason'), DAMAGES)
def test_check_finds_the_damage(tmp_path, how, file, reason):
    for number in (1, 2):
        write_scene(tmp_path / f'Moon_{number}')
    seen = []
    assert check(tmp_path, lambda done, total: seen.append((done, total))) == []
    assert seen == [(done, 6) for done in range(1, 7)]

    damage(tmp_path / 'Moon_2', how)
    problems = check(tmp_path)
    assert {(problem.scene, Path(problem.file).suffix[1:]) for problem in problems} == {
        ('Moon_2', file.rpartition('.')[2])
    }
    assert re.search(reason, str(problems[0]))


def test_check_finds_what_is_missing_or_too_much(tmp_path):
    path, stem = tmp_path / 'Moon_1', str(START + GAP)
    write_scene(path, frames=5)
    (path / 'imu.txt').unlink()
    (path / 'image0/depth_timestamp.txt').unlink()
    (path / f'image0/color/{stem}.png').unlink()
    (path / 'image0/label/.x.png.1-1.tmp').touch()
    first = path / f'image0/depth/{START}.pfm'
    write_pfm(first, read_pfm(first, top_to_bottom=True))  # the other row order, once only
    (tmp_path / 'Moon_2/image0/color').mkdir(parents=True)
    problems = [str(problem).replace(str(tmp_path), '') for problem in check(tmp_path)]
    assert sorted(problems) == sorted(
        [
            'scene Moon_2: /Moon_2/image0/color: empty scene: no left image (*.png)',
            'scene Moon_1: /Moon_1/imu.txt: missing',
            'scene Moon_1: /Moon_1/image0/depth_timestamp.txt: missing: the scene is incomplete, '
            'or its writing was interrupted',
            'scene Moon_1: /Moon_1/image0/label/.x.png.1-1.tmp: left over from an interrupted '
            'writing',
            *(
                f'scene Moon_1: /Moon_1/{file}: no left image has this stamp'
                for file in (
                    f'image0/depth/{stem}.pfm',
                    f'image0/label/{stem}.png',
                    f'image1/color/{stem}.png',
                    f'LiDAR/{stem}.txt',
                )
            ),
            f'scene Moon_1: /Moon_1/image0/color_timestamp.txt: {stem} is listed, but not there',
            f'scene Moon_1: /Moon_1/LiDAR/timestamp.txt: {stem} is listed, but not there',
            f'scene Moon_1: /Moon_1/image0/depth/{START}.pfm: depth and label disagree on the sky '
            'in 67% of pixels',
        ]
    )
    assert len(check(tmp_path / 'nowhere')) == 1


def test_check_survives_a_broken_camera_and_images_of_other_sizes(tmp_path):
    write_scene(tmp_path, 2)
    image = np.zeros((4, 4, 4), np.uint8)
    cv2.imwrite(str(tmp_path / f'image1/color/{START}.png'), image)
    (problem,) = check(tmp_path)
    assert f'right_image of frame {START} is 4×4, the scene 16×12' in str(problem)
    (tmp_path / f'image0/color/{START}.png').write_bytes(b'')
    assert 'not a PNG image' in str(check(tmp_path)[0])
    (tmp_path / 'camera.json').write_text('{}')
    assert 'not a camera file' in str(check(tmp_path)[0])


def test_empty_and_absent_scenes(tmp_path):
    with pytest.raises(LusnarError, match='not a LuSNAR scene'):
        Scene(tmp_path)
    with pytest.raises(LusnarError, match='no LuSNAR scene'):
        LusnarDataset(tmp_path / 'nothing')
    (tmp_path / 'Moon_1/image0/color').mkdir(parents=True)
    with pytest.raises(LusnarError, match='empty scene'):
        LusnarDataset(tmp_path)
    (tmp_path / 'Moon_1/image0/color/frame.png').touch()
    with pytest.raises(LusnarError, match='19 digits'):
        LusnarDataset(tmp_path)


def test_dataset_and_splits(tmp_path):
    for number in range(1, 13):
        write_scene(tmp_path / f'Moon_{number}', 2, height=3, width=4)
    dataset = LusnarDataset(tmp_path)
    assert [scene.name for scene in dataset] == [f'Moon_{n}' for n in range(1, 13)]
    picked = LusnarDataset(tmp_path, ['Moon_12', 'Moon_2'])
    assert [scene.name for scene in picked] == ['Moon_12', 'Moon_2']
    with pytest.raises(LusnarError, match='no such scene; there are Moon_1, '):
        LusnarDataset(tmp_path, ['Moon_13'])
    assert len(LusnarDataset(tmp_path / 'Moon_3')) == 1

    test = dataset.split('test')
    assert [scene.name for scene in test] == ['Moon_3', 'Moon_5', 'Moon_7', 'Moon_12']
    train = [scene.name for scene in dataset.split('train')]
    assert train == [f'Moon_{n}' for n in (1, 2, 4, 6, 8, 9, 10, 11)]
    with pytest.raises(ValueError, match='no scene for the test part'):
        LusnarDataset(tmp_path, ['Moon_2']).split('test')

    def frames(part: LusnarDataset) -> set:
        return {(scene.name, stamp) for scene in part for stamp in scene.stamps_ns}

    with pytest.warns(UserWarning, match='near-duplicates'):
        test, train = dataset.split('test', by='random'), dataset.split('train', by='random')
    assert len(frames(test)) == round(0.2 * 24)
    assert frames(test) | frames(train) == frames(dataset)
    assert not frames(test) & frames(train)


def files_of(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob('*'))
        if file.is_file()
    }


def test_interrupted_writing_looks_unfinished_and_resumes_to_the_same_bytes(tmp_path):
    written = write_scene(tmp_path / 'whole')
    again, stamps = tmp_path / 'resumed', [START + i * GAP for i in range(3)]
    with pytest.raises(KeyboardInterrupt), LusnarSceneWriter(again) as writer:
        writer.write_frame(stamps[0], **written[0])
        raise KeyboardInterrupt
    assert not writer.finished
    assert not list(again.glob('*.txt')) + list(again.glob('image0/*.txt'))
    left_over = again / f'image0/depth/.{stamps[1]}.pfm.1-2.tmp'
    left_over.write_bytes(b'half a file')
    assert len(Scene(again)) == 1

    with LusnarSceneWriter(again) as writer:
        for stamp, frame in zip(stamps, written, strict=True):
            if writer.has_frame(stamp):
                writer.add_pose(stamp, frame['pose'])
            else:
                writer.write_frame(stamp, **frame)
        values = np.random.default_rng(9).normal(size=(30, 6))
        imu = START - GAP + np.arange(30, dtype=np.int64) * 10_000_000
        writer.add_imu(ImuSamples(imu, values[:, :3], values[:, 3:]))
    assert writer.finished
    assert files_of(again) == files_of(tmp_path / 'whole')


def test_writer_refuses_what_the_format_can_not_hold(tmp_path):
    frame = make_frame(0)
    writer = LusnarSceneWriter(tmp_path)
    bad = [
        ({'depth': frame['depth'][:-1]}, 'differ in size'),
        ({'depth': np.full((12, 16), np.nan, np.float32)}, 'NaN'),
        ({'label': np.full((12, 16), 5, np.uint8)}, 'label 5'),
        ({'right': frame['right'][:-1]}, 'right image'),
        ({'lidar': (np.zeros((1, 3)), np.array([3]))}, 'category for label id 3'),
    ]
    for change, reason in bad:
        with pytest.raises(ValueError, match=reason):
            writer.write_frame(START, **(frame | change))
    assert files_of(tmp_path) == {}
