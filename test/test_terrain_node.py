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

"""The running terrain node over DDS, seen by a client that shares no code with it."""

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator
import importlib.util
import os
from pathlib import Path
import signal
import subprocess
import sys
from time import monotonic
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from lunar_perception.commands.local_dds import FAST_DDS_PROFILE
from lunar_perception.inference.explain import explain
from lunar_perception.inference.terrain import TerrainPredictor
from lunar_perception.visualize import overlay_evidence
import numpy as np
import pytest
from rcl_interfaces.srv import GetParameters, ListParameters, SetParameters
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from tiny_terrain import save_tiny_terrain
import yaml

TIMEOUT_S = 240.0
CONFIG = Path(__file__).resolve().parents[1] / 'config' / 'mars_terrain.yaml'
NAME = '/perception/terrain'
IMAGES = (
    'terrain/label', 'terrain/confidence', 'terrain/gradcam', 'terrain/integrated_gradients'
)  # fmt: skip
RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
WIDTH, HEIGHT = 83, 50


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_terrain(tmp_path_factory.mktemp('weights'))


@pytest.fixture(scope='module', autouse=True)
def domain() -> Iterator[None]:
    """Keep to a domain of our own on this machine, with the nodes that are started."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv('ROS_DOMAIN_ID', str(1 + (os.getpid() + 38) % 100))
        environment.setenv('OMP_NUM_THREADS', '1')  # tiny tensors; two cores for everything
        environment.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        environment.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', str(FAST_DDS_PROFILE))
        yield


class Client:
    """Another ROS node: sends images, keeps every message that it gets, calls services."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('client', namespace='/perception', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.images = self.node.create_publisher(Image, 'image', RELIABLE)
        self.got: dict[str, list[Any]] = defaultdict(list)
        self.diagnostics: list[DiagnosticStatus] = []
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._subscriptions: list[Any] = []
        self._stamps = iter(range(1, 10**9))

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnostics += [status for status in message.status if status.name == NAME]

    def subscribe(self, *topics: str) -> None:
        for topic in topics:
            self._subscriptions.append(
                self.node.create_subscription(Image, topic, self.got[topic].append, RELIABLE)
            )

    def unsubscribe(self) -> None:
        while self._subscriptions:
            self.node.destroy_subscription(self._subscriptions.pop())

    def until(self, reached: Callable[[], Any], what: str) -> Any:
        """Spin until `reached` answers with something, which is returned."""
        deadline = monotonic() + TIMEOUT_S
        while not (answer := reached()):
            assert monotonic() < deadline, f'{what} did not come; {self.diagnostics[-1:]}'
            self.executor.spin_once(timeout_sec=0.1)
        return answer

    def status(self, fits: Callable[[dict[str, str]], Any]) -> dict[str, str]:
        """Return message and values of the next diagnostics that fit."""
        self.diagnostics.clear()

        def fitting() -> dict[str, str]:
            for status in self.diagnostics:
                values = {entry.key: entry.value for entry in status.values}
                values['message'] = status.message
                if fits(values):
                    return values
            return {}

        return self.until(fitting, 'fitting diagnostics')

    def send(self, image: np.ndarray, encoding: str = 'rgb8') -> Header:
        """Send an image with a stamp that is no other's; return its header."""
        header = Header(stamp=Time(sec=7, nanosec=next(self._stamps)), frame_id='eye')
        message = Image(header=header, height=image.shape[0], width=image.shape[1])
        message.encoding, message.step = encoding, image.strides[0]
        message.data = array('B', image.tobytes())
        self.images.publish(message)
        return header

    def processed(self) -> int:
        """Return the number of frames that the node is through with, once none is under way."""
        values = self.status(
            lambda values: (
                int(values['received']) == int(values['processed']) + int(values['dropped'])
            )
        )
        return int(values['received'])

    def answers(self, image: np.ndarray, *topics: str) -> tuple[Header, dict[str, np.ndarray]]:
        """Send an image until there is a message with its header on all the topics."""
        deadline = monotonic() + TIMEOUT_S
        while True:
            header = self.send(image, 'rgb8' if image.ndim == 3 else 'mono8')
            until = monotonic() + 20
            while monotonic() < until:
                self.executor.spin_once(timeout_sec=0.1)
                found = {
                    topic: message
                    for topic in topics
                    for message in self.got[topic]
                    if message.header == header
                }
                if len(found) == len(topics):
                    return header, {topic: array_of(m) for topic, m in found.items()}
            assert monotonic() < deadline, f'no {topics}; {self.diagnostics[-1:]}'

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        client = self.node.create_client(service_type, f'{NAME}/{name}')
        self.until(client.service_is_ready, f'service {name}')
        future = client.call_async(request)
        self.until(future.done, f'an answer of {name}')
        self.node.destroy_client(client)
        return future.result()

    def change_state(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.call(ChangeState, 'change_state', request).success

    def set_parameter(self, name: str, value: Any) -> str:
        """Set a parameter; return the reason for a refusal, or nothing."""
        parameter = rclpy.Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        result = self.call(SetParameters, 'set_parameters', request).results[0]
        return '' if result.successful else result.reason


def array_of(message: Image) -> np.ndarray:
    channels = {'mono8': 1, 'rgb8': 3}[message.encoding]
    assert message.step == message.width * channels
    values = np.frombuffer(message.data, np.uint8)
    values = values.reshape(message.height, message.width, channels)
    return values[..., 0] if channels == 1 else values


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def live(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start a node in which Grad-CAM has no limit worth the name; give its log."""
    log = tmp_path_factory.mktemp('live') / 'node.log'
    command = [sys.executable, '-m', 'lunar_perception.nodes.terrain_node', '--ros-args']
    arguments = ['-p', f'model:={weights}', '-p', 'explain_rate:=100.0', '-p', 'device:=cpu']
    with log.open('wb') as output:
        process = subprocess.Popen([*command, *arguments], stdout=output, stderr=output)
    try:
        yield log
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0, log.read_text()
        assert 'Traceback' not in log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope='module')
def connected(live: Path) -> Iterator[Client]:
    client = Client()
    try:
        client.status(lambda values: values['state'] == 'active')
        client.until(client.images.get_subscription_count, 'the subscription to images')
        yield client
    finally:
        client.close()


@pytest.fixture
def client(connected: Client) -> Iterator[Client]:
    """Give a client of the live node that is subscribed to nothing but diagnostics."""
    yield connected
    connected.unsubscribe()
    connected.got.clear()


@pytest.fixture(scope='module')
def predictor(weights: Path) -> TerrainPredictor:
    return TerrainPredictor.from_pretrained(weights, device='cpu')


def test_the_graph(client: Client, live: Path) -> None:
    node = client.node
    expected = {f'/perception/{topic}': ['sensor_msgs/msg/Image'] for topic in IMAGES}
    expected['/diagnostics'] = ['diagnostic_msgs/msg/DiagnosticArray']
    if importlib.util.find_spec('vision_msgs'):
        expected['/perception/terrain/classification'] = ['vision_msgs/msg/Classification']
        expected['/perception/terrain/label_info'] = ['vision_msgs/msg/LabelInfo']
    else:
        assert live.read_text().count('vision_msgs is not installed') == 1
    common = {'/parameter_events', '/rosout', f'{NAME}/transition_event'}

    def published() -> dict[str, list[str]]:
        pairs = dict(node.get_publisher_names_and_types_by_node('terrain', '/perception'))
        return {topic: types for topic, types in pairs.items() if topic not in common}

    client.until(lambda: published().keys() >= expected.keys(), 'the node in the graph')
    assert published() == expected
    (endpoint,) = node.get_subscriptions_info_by_topic('/perception/image')
    assert endpoint.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    services = dict(node.get_service_names_and_types_by_node('terrain', '/perception'))
    assert services[f'{NAME}/explain'] == ['std_srvs/srv/Trigger']


def test_outputs_say_what_the_network_says(client: Client, predictor: TerrainPredictor) -> None:
    """With the image's header, bit for bit, at its size."""
    client.subscribe(*IMAGES)
    image = picture()
    _, found = client.answers(image, *IMAGES)
    prediction, explanation = predictor(image), explain(predictor, image)
    np.testing.assert_array_equal(found['terrain/label'], prediction.label)
    np.testing.assert_array_equal(
        found['terrain/confidence'], np.rint(255 * prediction.confidence)
    )
    for topic, heat in (
        ('terrain/gradcam', explanation.grad_cam),
        ('terrain/integrated_gradients', explanation.integrated_gradients),
    ):
        expected = overlay_evidence(image, heat)
        assert found[topic].shape == expected.shape
        # Passes of another size round differently.
        assert np.abs(found[topic].astype(int) - expected).max() <= 3
    values = client.status(lambda values: 'integrated_gradients' in values)
    assert values['class'] == prediction.class_name
    assert float(values['probability']) == pytest.approx(prediction.probability, abs=1e-3)
    assert values['integrated_gradients'].endswith('steps, complete')
    assert client.set_parameter('min_confidence', 0.3) == ''
    _, found = client.answers(image, 'terrain/label')
    expected = np.where(prediction.confidence < 0.3, 255, prediction.label)
    np.testing.assert_array_equal(found['terrain/label'], expected)
    assert client.set_parameter('min_confidence', 0.0) == ''


def test_classification_where_vision_msgs_is_installed(
    client: Client, predictor: TerrainPredictor
) -> None:
    messages = pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs')
    got: list[Any] = []
    subscription = client.node.create_subscription(
        messages.Classification, 'terrain/classification', got.append, RELIABLE
    )
    client.subscribe('terrain/label')
    header, _ = client.answers(picture(), 'terrain/label')
    message = client.until(lambda: [m for m in got if m.header == header], 'the class')[0]
    client.node.destroy_subscription(subscription)
    probabilities = predictor(picture()).probabilities
    found = {result.class_id: result.score for result in message.results}
    expected = dict(zip(predictor.taxonomy.names, probabilities.tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-5)
    assert message.results[0].score == max(found.values())


def test_diagnostics_tell_the_class_though_nobody_subscribes(
    client: Client, predictor: TerrainPredictor
) -> None:
    for seed in (1, 2):
        prediction = predictor(picture(seed))

        def told(values: dict[str, str], expected: str = f'{prediction.probability:.3f}') -> bool:
            client.send(picture(seed))  # noqa: B023
            return values.get('probability') == expected

        assert client.status(told)['class'] == prediction.class_name


def test_grad_cam_comes_at_most_at_its_rate(client: Client) -> None:
    client.subscribe('terrain/label', 'terrain/gradcam')
    client.answers(picture(), 'terrain/label', 'terrain/gradcam')
    assert client.set_parameter('explain_rate', 1e-6) == ''  # once in eleven days
    client.got['terrain/gradcam'].clear()
    for _ in range(4):
        client.answers(picture(), 'terrain/label')
    assert not client.got['terrain/gradcam']
    assert client.set_parameter('explain_rate', 0.0) == ''
    client.answers(picture(), 'terrain/label')
    assert not client.got['terrain/gradcam']
    assert 'explain_rate' in client.set_parameter('explain_rate', -1.0)
    assert client.set_parameter('explain_rate', 100.0) == ''
    client.answers(picture(), 'terrain/label', 'terrain/gradcam')


def test_integrated_gradients_are_made_only_when_wanted(client: Client) -> None:
    """Deactivate and activate first, so that diagnostics have none to tell of."""
    assert client.change_state(Transition.TRANSITION_DEACTIVATE)
    answer = client.call(Trigger, 'explain', Trigger.Request())
    assert not answer.success and 'not active' in answer.message
    assert client.change_state(Transition.TRANSITION_ACTIVATE)
    client.until(client.images.get_subscription_count, 'the subscription to images')
    client.subscribe('terrain/label')
    client.answers(picture(), 'terrain/label')
    assert 'integrated_gradients' not in client.status(lambda _: True)
    answer = client.call(Trigger, 'explain', Trigger.Request())
    assert answer.success and '/perception/terrain/integrated_gradients' in answer.message
    client.answers(picture(), 'terrain/label')
    client.status(lambda values: 'integrated_gradients' in values)  # without a subscriber


def test_a_bad_image_is_named_and_the_next_is_answered(client: Client) -> None:
    client.subscribe('terrain/label')
    client.answers(picture(), 'terrain/label')

    def named(values: dict[str, str]) -> bool:
        client.send(picture(), encoding='rgb24')
        return "encoding 'rgb24' is not one of" in values['message']

    client.status(named)
    client.answers(picture()[:1, :1].copy(), 'terrain/label')
    client.answers(np.ascontiguousarray(picture()[..., 0]), 'terrain/label')


def test_every_transition_while_explaining(client: Client) -> None:
    client.subscribe(*IMAGES)
    for _ in range(2):
        client.answers(picture(), 'terrain/label')  # its explanation is under way
        assert client.change_state(Transition.TRANSITION_DEACTIVATE)
        assert client.change_state(Transition.TRANSITION_CLEANUP)
        assert not client.change_state(Transition.TRANSITION_ACTIVATE)
        assert client.change_state(Transition.TRANSITION_CONFIGURE)
        assert client.change_state(Transition.TRANSITION_ACTIVATE)
        client.until(client.images.get_subscription_count, 'the subscription to images')
        client.answers(picture(), *IMAGES)
    client.processed()


def test_the_parameter_file_has_every_parameter_with_its_default(client: Client) -> None:
    file = yaml.safe_load(CONFIG.read_text())['/**/terrain']['ros__parameters']
    names = client.call(ListParameters, 'list_parameters', ListParameters.Request()).result.names
    ours = {
        name
        for name in names
        if name != 'use_sim_time' and not name.startswith(('qos_overrides.', 'start_type_desc'))
    }
    assert file.keys() == ours
    answer = client.call(
        GetParameters, 'get_parameters', GetParameters.Request(names=sorted(file))
    )
    values = dict(zip(sorted(file), map(parameter_value_to_python, answer.values), strict=True))
    given = {'model': values['model'], 'device': 'cpu', 'explain_rate': 100.0}
    assert values == {**file, **given}
