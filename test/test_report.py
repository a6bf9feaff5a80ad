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

"""The scoreboard, the gallery and the report: whole, self-contained, and true to the numbers."""

from base64 import b64decode
from html.parser import HTMLParser
import json

import cv2
from lunar_perception.camera import PinholeCamera
from lunar_perception.gallery import FrameGallery
from lunar_perception.metrics import Evaluation
from lunar_perception.reference_rows import flat_plane_depth, PositionPrior
from lunar_perception.report import write_results
from lunar_perception.scoreboard import Scoreboard
from lunar_perception.taxonomy import SKY
import numpy as np
import pytest

CAMERA = PinholeCamera(48, 40, 40, 40, 24, 20)
VOID = {'meta', 'img', 'br', 'link', 'input', 'hr'}


class Page(HTMLParser):
    """Collects a page's text and attributes, and checks that its tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.text, self.links = [], '', []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ('src', 'href')]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != 'style':
            self.text += data


def make_frame(seed: int, wrong: float) -> dict:
    """Return the arrays of a frame of which the share `wrong` is wrongly labelled."""
    rng = np.random.default_rng(seed)
    truth_depth = flat_plane_depth(CAMERA, 1.5, 20)
    truth_label = np.where(np.isinf(truth_depth), SKY, 0).astype(np.uint8)
    rock = (rng.random(truth_label.shape) < 0.1) & (truth_label != SKY)
    truth_label[rock] = 2
    truth_depth[rock] *= 0.5
    sigma = rng.uniform(0.01, 0.3, truth_label.shape)
    depth = truth_depth * np.exp(rng.normal(size=truth_label.shape) * sigma)
    label = np.where(rng.random(truth_label.shape) < wrong, 1, truth_label).astype(np.uint8)
    return {
        'label': label,
        'confidence': rng.random(truth_label.shape),
        'depth': depth.astype(np.float32),
        'uncertainty': (sigma * depth).astype(np.float32),
        'truth_label': truth_label,
        'truth_depth': truth_depth,
    }


def make_image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8)


@pytest.fixture(scope='module')
def scoreboard():
    frames = [make_frame(seed, wrong=0.1 * seed) for seed in range(5)]
    prior = PositionPrior.fit(frame['truth_label'] for frame in frames)
    board = Scoreboard(prior, camera_height_m=1.5, camera_pitch_deg=20)
    for seed, frame in enumerate(frames):
        board.add(f'frame <{seed}>', make_image(seed), CAMERA, **frame)
    return board


def test_scoreboard_sums_up_the_network_and_the_two_rows(scoreboard):
    whole, prior, plane = Evaluation(), Evaluation(), Evaluation()
    frames = [make_frame(seed, wrong=0.1 * seed) for seed in range(5)]
    guess = PositionPrior.fit(frame['truth_label'] for frame in frames).predict(40, 48)
    for frame in frames:
        whole.update(**frame)
        prior.update(guess, None, None, None, frame['truth_label'], None)
        depth = flat_plane_depth(CAMERA, 1.5, 20)
        plane.update(None, None, depth, None, frame['truth_label'], frame['truth_depth'])
    result = scoreboard.to_dict()
    assert result['miou'] == whole.to_dict()['miou']
    assert result['abs_rel'] == pytest.approx(whole.to_dict()['abs_rel'])
    assert result['rock'] == pytest.approx(whole.depth_metrics(classes=['rock']))
    rows = result['reference_rows']
    assert rows['position_prior']['miou'] == prior.to_dict()['miou']
    assert rows['flat_plane']['abs_rel'] == pytest.approx(plane.depth_metrics()['abs_rel'])
    assert rows['flat_plane']['rock']['abs_rel'] == pytest.approx(1)  # rocks at half the depth


def test_gallery_keeps_the_first_and_the_worst(scoreboard):
    gallery = scoreboard.gallery
    assert gallery.first.name == 'frame <0>'
    assert [frame.name for frame in gallery.worst] == ['frame <4>', 'frame <3>', 'frame <2>']
    assert gallery.worst[0].miou < gallery.worst[1].miou
    assert gallery.first.pictures['Image'].shape == (40, 48, 3)

    large = FrameGallery()
    sky = np.full((400, 1000), SKY, np.uint8)
    infinite = np.full(sky.shape, np.inf, np.float32)
    frame = Evaluation()
    frame.update(sky, None, infinite, None, sky, infinite)
    large.add('sky', frame, np.zeros((400, 1000, 3), np.uint8), sky, infinite, sky, infinite)
    assert large.first.pictures['Depth error'].shape == (128, 320, 3)
    assert large.first.abs_rel is None


def test_report_is_self_contained_and_tells_the_numbers(scoreboard, tmp_path):
    result = write_results(
        tmp_path / 'out',
        scoreboard,
        title='A <b>title</b>',
        data='five made-up frames',
        model='no model at all',
        latency_ms=[10.0, 20.0, 30.0],
        counts={'received': 5, 'processed': 5, 'dropped': 0},
    )
    assert json.loads((tmp_path / 'out/metrics.json').read_text()) == result
    assert result['latency_ms'] == {'p50': 20, 'p95': 29}
    assert (result['received'], result['processed'], result['dropped']) == (5, 5, 0)
    assert sorted(file.name for file in (tmp_path / 'out').iterdir()) == [
        'metrics.json', 'report.html'
    ]  # fmt: skip

    html = (tmp_path / 'out/report.html').read_text()
    assert '://' not in html
    page = Page(html)
    assert 'A <b>title</b>' in page.text  # as text, not as mark-up
    assert 'frame <4>' in page.text
    for value in (result['miou'], result['abs_rel'], result['rock']['abs_rel'], result['ece']):
        assert f'{value:.3f}' in page.text
    rows = result['reference_rows']
    for value in (rows['position_prior']['miou'], rows['flat_plane']['abs_rel']):
        assert f'{value:.3f}' in page.text
    words = ['five made-up frames', 'no model at all', 'metric', 'normalised', 'Position prior']
    words += ['Flat plane', 'SegFormer', '0.969', 'Depth Anything v2', '0.688']
    for word in words:
        assert word in page.text
    assert len(page.links) == 6 + 4 * 7  # figures, and seven pictures of four frames
    for link in page.links:
        kind, data = link.split(',')
        assert kind == 'data:image/png;base64'
        picture = cv2.imdecode(np.frombuffer(b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture.std() > 0


def test_same_numbers_same_page(scoreboard, tmp_path):
    for folder in ('a', 'b'):
        write_results(tmp_path / folder, scoreboard, title='t', data='d', model='m')
    first, second = ((tmp_path / f / 'report.html').read_bytes() for f in ('a', 'b'))
    assert first == second


def test_report_of_little_or_nothing(tmp_path):
    """No frame, and then one of sky alone without confidence, uncertainty, rows or latency."""
    board = Scoreboard()
    result = write_results(tmp_path, board, title='t', data='d', model='m')
    assert (result['frames'], result['miou'], result['abs_rel']) == (0, None, None)
    Page((tmp_path / 'report.html').read_text())

    sky = np.full((40, 48), SKY, np.uint8)
    infinite = np.full(sky.shape, np.inf, np.float32)
    board.add(
        'sky', make_image(0), CAMERA, label=sky, confidence=None, depth=infinite,
        uncertainty=None, truth_label=sky, truth_depth=infinite,
    )  # fmt: skip
    result = write_results(tmp_path, board, title='t', data='d', model='m')
    assert (result['miou'], result['abs_rel'], result['ece']) == (1, None, None)
    page = Page((tmp_path / 'report.html').read_text())
    assert 'Position prior' not in page.text
    assert 'latency' not in page.text.lower()
