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
"""Damaged, incomplete and empty LuSNAR scenes: each has its own clear error."""

from pathlib import Path
import pickle
import re

import cv2
from lunar_perception.data.lusnar import LusnarDataset, LusnarError, Scene
from lunar_perception.data.lusnar_check import check
from lunar_perception.data.pfm import read_pfm, write_pfm
import numpy as np
import pytest
from random_scene import GAP, START, write_scene


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
