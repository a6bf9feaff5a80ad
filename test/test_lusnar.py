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

"""LuSNAR scenes: what is written comes back, in every layout, whole or resumed."""

from pathlib import Path
import pickle
import shutil
import tempfile

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
from lunar_perception.data.lusnar import LusnarDataset, LusnarError, Scene
from lunar_perception.data.lusnar_format import (
    CAMERA_PITCH_DEG,
    CAMERA_QUATERNION,
    ImuSamples,
    README_LAYOUT,
    rotation_matrix,
    SHIPPED_LAYOUT,
)
from lunar_perception.data.lusnar_writer import LusnarSceneWriter
from lunar_perception.data.pfm import read_pfm, write_pfm
from lunar_perception.taxonomy import LUNAR_TERRAIN, SKY
import numpy as np
import pytest
from random_scene import GAP, make_frame, START, write_scene


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


def test_a_link_is_a_scene_of_its_own_name(tmp_path):
    """So that a folder of links can join sets whose scenes are all called Moon_1, Moon_2, …."""
    mixed = tmp_path / 'mixed'
    mixed.mkdir()
    for i, data in enumerate(('one', 'another'), start=1):
        write_scene(tmp_path / data / 'Moon_1', i)
        (mixed / f'Moon_{10 * i}').symlink_to(tmp_path / data / 'Moon_1')
    dataset = LusnarDataset(mixed)
    assert [(scene.name, len(scene)) for scene in dataset] == [('Moon_10', 1), ('Moon_20', 2)]


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
