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

"""The table of docs/bad_input.md: each bad input is named once, and the node lives on."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
import re

from bad_input import (
    bad_image,
    bad_info,
    CAMERA_INFOS,
    COMPRESSED,
    compressed,
    COMPRESSED_SAYS,
    IMAGES,
    PARAMETERS,
    PNG,
    Row,
    WEIGHTS,
)
from diagnostic_msgs.msg import DiagnosticStatus
from in_process import (
    ACTIVATE,
    CLEANUP,
    CONFIGURE,
    FakeNetwork,
    frames_until_right,
    image_of,
    info_of,
    InProcess,
    keep_to_itself,
    RELIABLE,
    values_of,
    WIDTH,
)
from lunar_perception.nodes import network
import pytest
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from tiny_network import save_tiny_network

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'bad_input.md'


@pytest.fixture(scope='module', autouse=True)
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        keep_to_itself(patch, 66)
        yield


@pytest.fixture(scope='module')
def ros() -> Iterator[InProcess]:
    """Start a node with a fake network, whose labels and depths are heard."""
    with InProcess() as ros:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(network, 'load_predictor', FakeNetwork().load)
            ros.start()
        ros.subscribe(Image, 'label', 'depth')
        yield ros


def check(row: Row) -> None:
    """Hold a row against the page, which leaves out what others say, and what is waited for."""
    says = row.says.split('; waiting for')[0]
    says = re.sub(r'(not one of \w+, \w+), .*', r'\1, …', says)
    says = re.sub('(no safetensors file|its configuration): .*', r'\1: …', says)
    row = replace(row, says=says)
    print(row)
    assert row.frames is None or row.frames <= 2
    assert str(row) in PAGE.read_text().splitlines()


def table_row(ros: InProcess, wrong: str, says: str, level: bytes) -> Row:
    """Return what diagnostics say now, once, and how many frames it takes to be right again."""
    values = ros.status(lambda status, _: says in status.message)
    assert ros.diagnostics[-1].level == level
    frames = frames_until_right(ros, 3, 6.0)
    assert sum(says in line for line in ros.log) == 1
    ros.status(lambda status, _: status.level == DiagnosticStatus.OK)
    return Row(wrong, values['message'], values['state'], frames)


# The first, before any CameraInfo has come.
@pytest.mark.parametrize('wrong', CAMERA_INFOS)
def test_bad_camera_info(ros: InProcess, wrong: str) -> None:
    """Labels go on without a camera; the depth of such a frame is not made up."""
    message = image_of(8)
    info = bad_info(wrong, message)
    if info is not None:
        ros.infos.publish(info)
        stamp = message.header.stamp
        ros.until(lambda: ros.node._camera_infos.at(stamp), 'the CameraInfo')
    ros.images.publish(message)
    assert values_of(ros.answer('label', message.header)) == {3}
    row = table_row(ros, wrong, CAMERA_INFOS[wrong][1], DiagnosticStatus.WARN)
    assert all(depth.header != message.header for depth in ros.got['depth'])
    assert row.state == 'active'
    check(row)


@pytest.mark.parametrize('wrong', IMAGES)
def test_bad_image(ros: InProcess, wrong: str) -> None:
    _, _, dropped = ros.counts()
    for number in range(1, 4):
        ros.send(bad_image(wrong), info_of())
        ros.until(lambda n=dropped + number: ros.counts()[2] == n, 'the drop')
    row = table_row(ros, wrong, IMAGES[wrong][1], DiagnosticStatus.ERROR)
    assert row.state == 'active'
    check(row)


def test_camera_info_that_changes(ros: InProcess) -> None:
    """What comes with an image counts for it, whatever came before."""
    depths = len(ros.got['depth'])
    assert [frames_until_right(ros, 3, fx) for fx in (7.0, 9.0)] == [1, 1]
    assert len(ros.got['depth']) == depths + 2
    # A field of view stands in for a calibration.
    ros.node.set_parameters([Parameter('default_fov_deg', value=90.0)])
    message = image_of(4)
    ros.send(message, info_of(k=[0.0] * 9))
    assert values_of(ros.answer('depth', message.header)) == {WIDTH / 2}


def test_bad_compressed_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, 'load_predictor', FakeNetwork().load)
    options = {'image_transport': 'compressed', 'lossless': True, 'default_fov_deg': 90.0}
    with InProcess('/compressed', **options) as ros:
        pictures = ros.peer.create_publisher(CompressedImage, 'image/compressed', RELIABLE)
        assert ros.change_state(CONFIGURE, ACTIVATE)
        ros.until(pictures.get_subscription_count, 'the subscription')
        (endpoint,) = ros.peer.get_subscriptions_info_by_topic('/compressed/image/compressed')
        assert endpoint.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        ros.subscribe(Image, 'label')
        for wrong, data in COMPRESSED.items():
            pictures.publish(compressed(data))
            values = ros.status(lambda status, _: COMPRESSED_SAYS in status.message)
            good = compressed(PNG)
            pictures.publish(good)
            assert values_of(ros.answer('label', good.header)) == {3}
            check(Row(wrong, values['message'], values['state'], 1))
        assert ros.counts() == (2 * len(COMPRESSED), len(COMPRESSED), len(COMPRESSED))


@pytest.fixture(scope='module')
def unconfigured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """Start a node that really loads what it is told to; parameters set at the start are bad."""
    wrong = {name: value for bad, _ in PARAMETERS.values() for name, value in bad.items()}
    model = save_tiny_network(tmp_path_factory.mktemp('weights') / 'good')
    with InProcess('/unconfigured', **{**wrong, 'device': 'cpu', 'model': str(model)}) as ros:
        yield ros


def set_parameters(ros: InProcess, **values: object) -> None:
    results = ros.node.set_parameters([Parameter(n, value=value) for n, value in values.items()])
    assert all(result.successful for result in results)


def refused_row(ros: InProcess, wrong: str, says: str) -> Row:
    """Return the row of a configuration that is refused twice."""
    for _ in range(2):
        assert not ros.change_state(CONFIGURE)
    values = ros.status(lambda status, _: says in status.message)
    assert ros.diagnostics[-1].level == DiagnosticStatus.ERROR
    ros.until(lambda: values['message'] in ros.log, 'the log line')
    assert ros.state == values['state'] == 'unconfigured'
    assert not ros.node._outputs
    return Row(wrong, values['message'], values['state'], None)


def test_bad_parameters(unconfigured: InProcess) -> None:
    """One after the other, in the order in which the node checks them, until all are good."""
    ros = unconfigured
    for wrong, good in (
        ('parameter out of range', {'max_age': 0.0}),
        ('unknown class', {'hazard_classes': ['rock']}),
    ):
        check(refused_row(ros, wrong, PARAMETERS[wrong][1]))
        set_parameters(ros, **good)
    for wrong in ('unknown device', 'a GPU that is not there'):
        bad, says = PARAMETERS[wrong]
        set_parameters(ros, **bad)
        check(refused_row(ros, wrong, says))
    set_parameters(ros, device='cpu')
    assert ros.change_state(CONFIGURE, CLEANUP)


@pytest.mark.parametrize('wrong', WEIGHTS)
def test_bad_weights(unconfigured: InProcess, wrong: str, tmp_path: Path) -> None:
    """Configure fails with the reason; with good weights it can be tried again."""
    ros = unconfigured
    good = ros.node.get_parameter('model').value
    set_parameters(ros, device='cpu', max_age=0.0, hazard_classes=['rock'])
    bad = save_tiny_network(tmp_path / 'weights')
    damage, says = WEIGHTS[wrong]
    damage(bad)
    set_parameters(ros, model=str(bad))
    row = refused_row(ros, wrong, says)
    set_parameters(ros, model=good)
    assert ros.change_state(CONFIGURE)
    ros.status(lambda _, values: values.get('device') == 'cpu')
    assert ros.change_state(CLEANUP)
    check(Row(wrong, row.says.replace(str(tmp_path), ''), row.state, row.frames))


def test_the_page_has_no_other_row() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith('| ')][1:]
    named = {row.split(' | ')[0].removeprefix('| ') for row in rows}
    assert named == {*CAMERA_INFOS, *IMAGES, *COMPRESSED, *PARAMETERS, *WEIGHTS}
