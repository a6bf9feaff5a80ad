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

"""HiRISE crops: layouts, classes by name, splits, images of every kind."""

from collections.abc import Sequence
from pathlib import Path

import cv2
from lunar_perception.data.hirise import (
    Crop,
    crop_border,
    read_crops,
    read_image,
    source_folds,
    split_at_random,
    split_by_source,
)
from lunar_perception.taxonomy import HIRISE_LANDMARKS
import numpy as np
import pytest

SUBSET = Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'hirise-map-proj-v3-subset.zip'
NAMES = HIRISE_LANDMARKS.names
STEMS = ['ESP_011623_2100_RED-0069', 'ESP_011623_2100_RED-0069-r90', 'PSP_001414_1780_RED-0011-fh']


def write_crop(path: Path, level: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((32, 32), level, np.uint8))


def write_v3(
    folder: Path,
    *,
    spelling: str = '-v3',
    names: Sequence[str] = NAMES,
    sets: Sequence[str] | None = None,
) -> Path:
    """Write three crops (other, other, spider) with the class map's ids in the order of names."""
    ids = [names.index('other'), names.index('other'), names.index('spider')]
    lines = []
    for k, (stem, label) in enumerate(zip(STEMS, ids, strict=True)):
        write_crop(folder / 'map-proj-v3' / f'{stem}.jpg')
        lines.append(f'{stem}.jpg {label}' + (f' {sets[k]}' if sets else ''))
    suffix = '_train_val_test' if sets else ''
    (folder / f'labels-map-proj{spelling}{suffix}.txt').write_text('\n'.join(lines) + '\n')
    rows = [f'{i},{name}' for i, name in enumerate(names)]
    (folder / f'landmarks_map-proj{spelling}_classmap.csv').write_text('\n'.join(rows) + '\n')
    return folder


def labels(crops: list[Crop]) -> list[str]:
    return [NAMES[crop.label] for crop in crops]


@pytest.mark.parametrize('spelling', ['-v3', '-v3_2', '_v3_2'])
def test_v3_and_both_spellings_of_v3_2_are_read(tmp_path: Path, spelling: str) -> None:
    crops = read_crops(write_v3(tmp_path, spelling=spelling))
    assert labels(crops) == ['other', 'other', 'spider']
    assert [crop.source for crop in crops] == ['ESP_011623_2100'] * 2 + ['PSP_001414_1780']
    assert crops[0].landmark == crops[1].landmark == STEMS[0]
    assert [crop.split for crop in crops] == [None] * 3


def test_the_split_file_of_three_columns_comes_first(tmp_path: Path) -> None:
    write_v3(tmp_path, spelling='_v3_2')
    crops = read_crops(write_v3(tmp_path, spelling='_v3_2', sets=['train', 'val', 'test']))
    assert [crop.split for crop in crops] == ['train', 'val', 'test']


def test_classes_are_read_by_name_whatever_their_ids(tmp_path: Path) -> None:
    assert labels(read_crops(write_v3(tmp_path, names=sorted(NAMES)))) == [
        'other',
        'other',
        'spider',
    ]


def test_a_data_set_is_found_inside_the_folder_that_it_was_unpacked_into(tmp_path: Path) -> None:
    write_v3(tmp_path / 'hirise-map-proj-v3')
    assert len(read_crops(tmp_path)) == 3


def test_mars_bench_and_class_folders_say_the_same(tmp_path: Path) -> None:
    bench, folders = tmp_path / 'bench', tmp_path / 'folders'
    rows = ['file_id,feature_name,label,split']
    for stem, name, part in zip(
        STEMS, ('other', 'other', 'swiss cheese'), ('train', 'val', 'test'), strict=True
    ):
        feature = name.replace(' ', '_')
        write_crop(bench / 'data' / part / feature / f'{stem}.jpg')
        rows.append(f'{stem}.jpg,{feature},99,{part}')
        write_crop(folders / name.title() / f'{stem}.png')
    (bench / 'annotation.csv').write_text('\n'.join(rows) + '\n')
    found = read_crops(bench)
    assert labels(found) == labels(read_crops(folders)) == ['other', 'other', 'swiss cheese']
    assert [crop.split for crop in found] == ['train', 'val', 'test']


def test_a_label_of_a_missing_crop_is_named(tmp_path: Path) -> None:
    (write_v3(tmp_path) / 'map-proj-v3' / f'{STEMS[2]}.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=rf':3 names {STEMS[2]}\.jpg'):
        read_crops(tmp_path)


@pytest.mark.parametrize(
    ('file', 'text', 'message'),
    [
        ('labels-map-proj-v3.txt', 'ESP.jpg 9\n', 'class 9 is not in the class map'),
        ('labels-map-proj-v3.txt', 'ESP.jpg\n', "'ESP.jpg' is not 'filename id'"),
        ('labels-map-proj-v3.txt', f'{STEMS[0]}.jpg 0 exam\n', "unknown set 'exam'"),
        ('labels-map-proj-v3.txt', '\n', 'names no crops'),
        ('landmarks_map-proj-v3_classmap.csv', '0,canal\n', "unknown class 'canal'"),
        ('landmarks_map-proj-v3_classmap.csv', 'zero\n', "is not 'id,name'"),
    ],
)
def test_a_damaged_label_file_is_named_with_its_line(
    tmp_path: Path, file: str, text: str, message: str
) -> None:
    (write_v3(tmp_path) / file).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_crops(tmp_path)
    assert file in str(error.value)


def test_class_folders_that_are_empty_or_unknown_are_named(tmp_path: Path) -> None:
    write_crop(tmp_path / 'crater' / 'a.png')
    (tmp_path / 'spider').mkdir()
    with pytest.raises(ValueError, match='spider holds no crops'):
        read_crops(tmp_path)
    (tmp_path / 'spider').rename(tmp_path / 'canal')
    with pytest.raises(ValueError, match="unknown class 'canal'"):
        read_crops(tmp_path)


def test_folders_without_crops_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='is no data set'):
        read_crops(tmp_path)
    with pytest.raises(FileNotFoundError, match='is no folder'):
        read_crops(tmp_path / 'absent')


def test_crops_of_other_names_are_warned_about(tmp_path: Path) -> None:
    for name in ('crater/one.png', 'other/two.png'):
        write_crop(tmp_path / name)
    with pytest.warns(UserWarning, match='2 crops .* not named like HiRISE'):
        crops = read_crops(tmp_path)
    assert {crop.source for crop in crops} == {'one', 'two'}


def some_crops(seed: int = 0) -> list[Crop]:
    """Return 400 crops of 40 sources; the rare class stands in three of them."""
    rng = np.random.default_rng(seed)
    crops = []
    for k in range(400):
        source = f'ESP_{k % 40:06d}_2100'
        label = 7 if k % 40 < 3 and rng.random() < 0.5 else int(rng.integers(0, 2))
        crops.append(Crop(Path(f'{k}.jpg'), label, source, f'{source}-{k // 2}'))
    return crops


def test_a_source_never_stands_on_both_sides() -> None:
    crops = some_crops()
    train, test = split_by_source(crops, 0.25)
    assert sorted([*train, *test]) == list(range(400))
    assert not {crops[i].source for i in train} & {crops[i].source for i in test}
    assert 0.15 < len(test) / 400 < 0.35


def test_folds_share_every_class_out() -> None:
    crops = some_crops()
    folds = source_folds(crops, 3)
    label = np.array([crop.label for crop in crops])
    for k in (0, 1, 7):
        counts = np.bincount(folds[label == k], minlength=3)
        assert counts.min() > 0
        if k != 7:
            assert counts.max() < 1.5 * counts.min()
    assert (source_folds(crops, 3) == folds).all()
    with pytest.raises(ValueError, match='40 sources can not make 41 folds'):
        source_folds(crops, 41)


def test_a_random_split_warns_of_what_leaks() -> None:
    crops = some_crops()
    with pytest.warns(UserWarning, match='leaks: of 80 test crops'):
        train, test = split_at_random(crops, 0.2)
    assert len(test) == 80 and not set(train) & set(test)


def test_grey_alpha_and_16_bits_come_as_rgb(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    alpha = np.dstack([grey, grey // 2, grey // 3, np.full_like(grey, 7)])
    files = {'grey': grey, 'alpha': alpha, 'deep': grey.astype(np.uint16) * 257}
    for name, image in files.items():
        cv2.imwrite(str(tmp_path / f'{name}.png'), image)
    repeated = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(tmp_path / 'grey.png'), repeated)
    np.testing.assert_array_equal(read_image(tmp_path / 'deep.png'), repeated)
    np.testing.assert_array_equal(read_image(tmp_path / 'alpha.png'), alpha[..., 2::-1])


def test_images_that_show_nothing_are_refused(tmp_path: Path) -> None:
    dot, text, depth = tmp_path / 'dot.png', tmp_path / 'text.png', tmp_path / 'depth.hdr'
    cv2.imwrite(str(dot), np.zeros((1, 1), np.uint8))
    text.write_text('no picture')
    cv2.imwrite(str(depth), np.ones((16, 16, 3), np.float32))
    for path, message in ((dot, '1 × 1 pixels'), (text, 'can not be read'), (depth, 'float32')):
        with pytest.raises(ValueError, match=message) as error:
            read_image(path)
        assert path.name in str(error.value)


def test_the_black_wedge_is_cut_off_and_shadows_stay() -> None:
    image = np.full((100, 100, 3), 120, np.uint8)
    y, x = np.mgrid[:100, :100]
    image[x + y / 4 < 30] = 0  # a wedge at the left
    image[60:70, 60:70] = 0  # a shadow
    cut = crop_border(image)
    assert cut.shape[0] == 100 and 70 <= cut.shape[1] < 80
    assert (cut[50:] == 0).any()
    assert crop_border(image[:, 50:]).shape == (100, 50, 3)
    assert crop_border(np.zeros((40, 40, 3), np.uint8)).shape[0] >= 20


@pytest.mark.skipif(not SUBSET.exists(), reason='needs the HiRISE subset beside the checkout')
def test_the_real_subset_has_its_classes_and_sources(tmp_path: Path) -> None:
    from zipfile import ZipFile

    with ZipFile(SUBSET) as archive:
        archive.extractall(tmp_path)
    crops = read_crops(tmp_path)
    count = np.bincount([crop.label for crop in crops])
    assert dict(zip(NAMES, count.tolist(), strict=True)) == {
        'other': 1400,
        'crater': 356,
        'dark dune': 78,
        'slope streak': 154,
        'bright dune': 134,
        'impact ejecta': 14,
        'swiss cheese': 86,
        'spider': 38,
    }
    assert read_image(crops[0].path).shape == (227, 227, 3)
