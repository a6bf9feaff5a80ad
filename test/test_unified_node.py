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

"""The running node over DDS, seen by a client that shares no code with it."""

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
from lifecycle_msgs.srv import ChangeState, GetState
from lunar_perception.camera import PinholeCamera
from lunar_perception.commands.local_dds import FAST_DDS_PROFILE
from lunar_perception.inference.backends import BACKENDS
from lunar_perception.inference.predictor import UnifiedPredictor
from lunar_perception.models import UnifiedConfig, UnifiedModel
from lunar_perception.models.encoders import SamEncoderConfig
from lunar_perception.traversability import assess, down_from_pitch, Limits, smoothed
import numpy as np
import pytest
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import NodeNameNonExistentError
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import (
    CameraInfo,
    Image,
    PointCloud2,
    PointField,
    RegionOfInterest,
)
from std_msgs.msg import Header
import torch
import yaml

TIMEOUT_S = 90.0
CONFIG = Path(__file__).resolve().parents[1] / 'config' / 'unified.yaml'

TOPICS = {
    'label': Image,
    'confidence': Image,
    'depth': Image,
    'depth/camera_info': CameraInfo,
    'depth/uncertainty': Image,
    'points': PointCloud2,
    'points/hazards': PointCloud2,
    'points/clearing': PointCloud2,
    'traversability': Image,
    'costmap/label': Image,
    'costmap/confidence': Image,
    'label/overlay': Image,
    'depth/colored': Image,
}
SKY, MOUNTAIN, CRATER, UNLABELLED = 4, 3, 1, 255

RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
WIDTH, HEIGHT = 83, 50  # odd, not square, not a multiple of the stride


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny network of random weights that sees sky, mountains and depths of many metres."""
    torch.manual_seed(3)
    blocks = (0, 1, 2, 3)
    encoder = SamEncoderConfig(
        hidden_size=16, depth=4, heads=2, global_blocks=blocks, taps=blocks, image_size=64
    )
    detail = (6, 6, 8, 8)
    config = UnifiedConfig(encoder, decoder_channels=8, detail_channels=detail, input_size=64)
    model = UnifiedModel(config).eval()
    with torch.no_grad():
        model.segmentation_head[-1].weight.mul_(30)
        model.depth_head.predict.weight.mul_(300)
    folder = tmp_path_factory.mktemp('weights')
    model.save_pretrained(folder)
    prediction = UnifiedPredictor.from_pretrained(folder)(noise_image())
    assert {SKY, MOUNTAIN} <= set(np.unique(prediction.label))
    assert np.ptp(prediction.depth[np.isfinite(prediction.depth)]) > 2
    return folder


@pytest.fixture(scope='module', autouse=True)
def domain() -> Iterator[int]:
    """Keep to a domain of our own on this machine, with the nodes that are started."""
    number = 1 + os.getpid() % 100
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv('ROS_DOMAIN_ID', str(number))
        environment.setenv('OMP_NUM_THREADS', '1')  # tiny tensors; two cores for everything
        environment.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        environment.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', str(FAST_DDS_PROFILE))
        yield number


class NodeProcess:
    """The node as its own process; what it prints is in `log`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log = folder / 'node.log'
        command = [sys.executable, '-m', 'lunar_perception.nodes.unified_node', '--ros-args']
        with self.log.open('wb') as output:
            self._process = subprocess.Popen(
                [*command, *arguments], stdout=output, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> 'NodeProcess':
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def said(self) -> str:
        return self.log.read_text()

    def check_alive(self) -> None:
        assert self._process.poll() is None, self.said()

    def end(self, with_signal: int = signal.SIGINT) -> None:
        """Send a signal; the node must end with status 0 and nothing like a traceback."""
        self._process.send_signal(with_signal)
        status = self._process.wait(TIMEOUT_S)
        assert status == 0, self.said()
        assert 'Traceback' not in self.said()
        assert 'Error' not in self.said().replace('[ERROR]', ''), self.said()


class Client:
    """Another ROS node: sends images, keeps every message that it gets, calls services."""

    def __init__(self, node_name: str = '/perception/unified') -> None:
        self.node_name = node_name
        self.namespace = node_name.rpartition('/')[0]
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node(
            'test_client', namespace=self.namespace, context=self.context
        )
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.images = self.node.create_publisher(Image, 'image', RELIABLE)
        self.infos = self.node.create_publisher(CameraInfo, 'camera_info', RELIABLE)
        self.got: dict[str, list[Any]] = defaultdict(list)
        self.subscriptions: list[Any] = []
        self.diagnostics: list[DiagnosticStatus] = []
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def __enter__(self) -> 'Client':
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnostics += [s for s in message.status if s.name == self.node_name]

    def subscribe(self, *topics: str) -> None:
        for topic in topics:
            self.subscriptions.append(
                self.node.create_subscription(
                    TOPICS[topic], topic, self.got[topic].append, RELIABLE
                )
            )

    def unsubscribe(self) -> None:
        while self.subscriptions:
            self.node.destroy_subscription(self.subscriptions.pop())

    def until(self, reached: Callable[[], Any], what: str = '') -> Any:
        """Spin until `reached` answers with something, which is returned."""
        deadline = monotonic() + TIMEOUT_S
        while not (answer := reached()):
            assert monotonic() < deadline, f'{what} did not come; {self.diagnostics[-1:]}'
            self.executor.spin_once(timeout_sec=0.1)
        return answer

    def status(self, fits: Callable[[dict[str, str], DiagnosticStatus], bool]) -> dict[str, str]:
        """Return the values of the next diagnostics that fit."""
        self.diagnostics.clear()

        def fitting() -> dict[str, str]:
            for status in self.diagnostics:
                values = {entry.key: entry.value for entry in status.values}
                if fits(values, status):
                    return {**values, 'message': status.message}
            return {}

        return self.until(fitting, 'fitting diagnostics')

    def until_active(self) -> None:
        self.status(lambda values, _: values['state'] == 'active')
        self.until(
            lambda: self.images.get_subscription_count() and self.infos.get_subscription_count(),
            'the subscription to images',
        )

    def send(self, image: np.ndarray, header: Header, info: CameraInfo | None) -> None:
        if info is not None:
            info.header = header
            self.infos.publish(info)
        self.images.publish(rgb_message(image, header))

    def outputs(self, header: Header, topics: set[str]) -> dict[str, Any]:
        """Return the messages with a frame's header, on all the topics."""

        def complete() -> dict[str, Any]:
            found = {
                topic: message
                for topic in topics
                for message in self.got[topic]
                if message.header == header
            }
            return found if found.keys() == topics else {}

        return self.until(complete, f'{sorted(topics)} with {header}')

    def perceive(
        self, image: np.ndarray, info: CameraInfo | None, topics: set[str], **header: Any
    ) -> dict[str, Any]:
        """Send one frame and return what the node says about it."""
        sent = new_header(**header)
        self.send(image, sent, info)
        return self.outputs(sent, topics)

    def meet(self, topics: set[str], info: CameraInfo | None = None) -> None:
        """Subscribe, and wait until the node knows of it."""
        self.subscribe(*topics)

        def known() -> bool:
            self.send(noise_image(), new_header(), info)
            self.executor.spin_once(timeout_sec=0.3)
            return all(self.got[topic] for topic in topics)

        self.until(known, f'messages on {sorted(topics)}')

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        client = self.node.create_client(service_type, f'{self.node_name}/{name}')
        self.until(client.service_is_ready, f'service {name}')
        future = client.call_async(request)
        self.until(future.done, f'an answer of {name}')
        self.node.destroy_client(client)
        return future.result()

    def change_state(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.call(ChangeState, 'change_state', request).success

    def state(self) -> str:
        return self.call(GetState, 'get_state', GetState.Request()).current_state.label

    def set_parameter(self, name: str, value: Any) -> str | None:
        """Set a parameter; return the reason for a refusal."""
        parameter = rclpy.Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        result = self.call(SetParameters, 'set_parameters', request).results[0]
        return None if result.successful else result.reason or '(none)'


STAMPS = iter(range(1, 10**9))


def new_header(sec: int = 0, nanosec: int | None = None, frame_id: str = 'eye') -> Header:
    """Return a header whose stamp is no other's."""
    fraction = next(STAMPS) if nanosec is None else nanosec
    return Header(stamp=Time(sec=sec, nanosec=fraction), frame_id=frame_id)


def noise_image(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def adds_up(values: dict[str, str]) -> bool:
    return int(values['received']) == int(values['processed']) + int(values['dropped'])


def rgb_message(image: np.ndarray, header: Header) -> Image:
    message = Image(header=header, height=image.shape[0], width=image.shape[1], encoding='rgb8')
    message.step = 3 * message.width
    message.data = array('B', image.tobytes())
    return message


def camera_info(
    fx: float = 70.0, fy: float = 90.0, cx: float = 30.5, cy: float = 27.25, **changes: Any
) -> CameraInfo:
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model='plumb_bob', d=[0.0] * 5)
    info.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    info.p = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def array_of(message: Image) -> np.ndarray:
    """Return an output image's pixels, by what its encoding says in REP 118 and sensor_msgs."""
    assert message.is_bigendian == 0
    dtype, channels = {'mono8': ('u1', 1), 'rgb8': ('u1', 3), '32FC1': ('<f4', 1)}[
        message.encoding
    ]
    assert len(message.data) == message.step * message.height
    assert message.step == message.width * channels * np.dtype(dtype).itemsize
    values = np.frombuffer(message.data, dtype).reshape(message.height, message.width, channels)
    return values[..., 0] if channels == 1 else values


def points_of(message: PointCloud2) -> np.ndarray:
    """Return a cloud's points by its fields, (height, width)."""
    types = {PointField.FLOAT32: '<f4', PointField.UINT32: '<u4'}
    layout = [(field.name, field.offset, field.datatype) for field in message.fields]
    assert layout == [
        ('x', 0, 7),
        ('y', 4, 7),
        ('z', 8, 7),
        ('rgb', 16, 7),
        ('label', 20, 6),
        ('confidence', 24, 7),
    ]
    assert all(field.count == 1 for field in message.fields)
    assert (message.point_step, message.is_bigendian) == (32, False)
    assert message.row_step == 32 * message.width
    assert len(message.data) == message.row_step * message.height
    dtype = np.dtype(
        {
            'names': [name for name, _, _ in layout],
            'formats': [types[datatype] for _, _, datatype in layout],
            'offsets': [offset for _, offset, _ in layout],
            'itemsize': 32,
        }
    )
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width)


def xyz_of(points: np.ndarray) -> np.ndarray:
    return np.stack([points[axis] for axis in 'xyz'], axis=-1).astype(np.float64)


@pytest.fixture(scope='module')
def live(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """Start a node as a robot has it: every parameter its default but the network."""
    with NodeProcess(tmp_path_factory.mktemp('live'), '-p', f'model:={weights}') as process:
        yield process
        process.check_alive()
        process.end()


@pytest.fixture(scope='module')
def live_client(live: NodeProcess) -> Iterator[Client]:
    with Client() as client:
        client.until_active()
        yield client


@pytest.fixture
def client(live: NodeProcess, live_client: Client) -> Iterator[Client]:
    """Give a client of the live node that is subscribed to nothing but diagnostics."""
    yield live_client
    live_client.unsubscribe()
    live_client.got.clear()
    live.check_alive()


@pytest.fixture(scope='module')
def lossless(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Give a client of a lossless node in another namespace, subscribed to all topics."""
    # In noise hardly a hazard has a neighbour that is one too, and a lone rock stands up nowhere.
    arguments = ('-r', '__ns:=/exact', '-p', f'model:={weights}', '-p', 'lossless:=true')
    arguments += ('-p', 'min_hazard_points:=1', '-p', 'min_hazard_confidence:=0.0')
    arguments += ('-p', 'hazard_classes:=[crater, mountain]')
    with (
        NodeProcess(tmp_path_factory.mktemp('lossless'), *arguments) as process,
        Client('/exact/unified') as client,
    ):
        client.until_active()
        client.meet(set(TOPICS), camera_info())
        yield client
        process.check_alive()
        process.end(signal.SIGTERM)


def test_the_graph(client: Client, live: NodeProcess) -> None:
    """Exact names, types and QoS, under the node's own name."""
    node = client.node
    common = {'/parameter_events', '/rosout', '/perception/unified/transition_event'}
    published: dict[str, list[str]] = {}

    def discovered() -> bool:
        try:
            pairs = node.get_publisher_names_and_types_by_node('unified', '/perception')
        except NodeNameNonExistentError:  # its name comes by a message of its own
            return False
        published.clear()
        published.update(pairs)
        return common | {f'/perception/{topic}' for topic in TOPICS} <= published.keys()

    client.until(discovered, 'the node in the graph')
    for topic in common:
        del published[topic]
    types = {Image: 'Image', CameraInfo: 'CameraInfo', PointCloud2: 'PointCloud2'}
    expected = {f'/perception/{t}': [f'sensor_msgs/msg/{types[TOPICS[t]]}'] for t in TOPICS}
    expected['/diagnostics'] = ['diagnostic_msgs/msg/DiagnosticArray']
    if importlib.util.find_spec('vision_msgs'):
        for topic in ('label_info', 'costmap/label_info'):
            expected[f'/perception/{topic}'] = ['vision_msgs/msg/LabelInfo']
    else:
        assert live.said().count('vision_msgs is not installed') == 1
    assert published == expected

    for topic in TOPICS:
        (endpoint,) = node.get_publishers_info_by_topic(f'/perception/{topic}')
        assert endpoint.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        assert endpoint.qos_profile.durability == DurabilityPolicy.VOLATILE
    for topic, message_type in (('image', 'Image'), ('camera_info', 'CameraInfo')):
        (endpoint,) = node.get_subscriptions_info_by_topic(f'/perception/{topic}')
        assert endpoint.topic_type == f'sensor_msgs/msg/{message_type}'
        assert endpoint.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT


def test_label_info_is_latched(client: Client) -> None:
    """A late subscriber gets the classes and the threshold; each change of it is told."""
    messages = pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs')
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    for topic in ('label_info', 'costmap/label_info'):
        got = client.got[topic]
        client.subscriptions.append(
            client.node.create_subscription(messages.LabelInfo, topic, got.append, latched)
        )
        client.until(lambda got=got: got, topic)
        classes = [(entry.class_id, entry.class_name) for entry in got[-1].class_map]
        assert classes == list(enumerate(['regolith', 'crater', 'rock', 'mountain', 'sky']))
        assert got[-1].threshold == 0.0
    assert client.set_parameter('min_confidence', 0.5) is None
    client.until(lambda: client.got['label_info'][-1].threshold == 0.5, 'the new threshold')
    assert client.set_parameter('min_confidence', 0.0) is None


ROI = RegionOfInterest(x_offset=16, y_offset=8, width=2 * WIDTH, height=2 * HEIGHT)
CAMERAS = {
    'plain': (camera_info(), PinholeCamera(WIDTH, HEIGHT, 70.0, 90.0, 30.5, 27.25)),
    'roi and binning': (
        camera_info(width=300, height=200, roi=ROI, binning_x=2, binning_y=2),
        PinholeCamera(WIDTH, HEIGHT, 35.0, 45.0, (30.5 - 16) / 2, (27.25 - 8) / 2),
    ),
    'long, off-centre': (
        camera_info(fx=310.5, fy=200.25, cx=-7.5, cy=60.0),
        PinholeCamera(WIDTH, HEIGHT, 310.5, 200.25, -7.5, 60.0),
    ),
}


@pytest.mark.parametrize('name', CAMERAS)
def test_every_output_is_what_the_interface_says(
    lossless: Client, weights: Path, name: str
) -> None:
    info, camera = CAMERAS[name]
    image = noise_image()
    outputs = lossless.perceive(image, info, set(TOPICS))
    prediction = UnifiedPredictor.from_pretrained(weights)(image, camera)

    encodings = {t: m.encoding for t, m in outputs.items() if isinstance(m, Image)}
    assert encodings == {
        'label': 'mono8',
        'confidence': 'mono8',
        'depth': '32FC1',
        'depth/uncertainty': '32FC1',
        'traversability': 'mono8',
        'costmap/label': 'mono8',
        'costmap/confidence': 'mono8',
        'label/overlay': 'rgb8',
        'depth/colored': 'rgb8',
    }
    arrays = {topic: array_of(outputs[topic]) for topic in encodings}
    full = {t for t in arrays if t != 'traversability' and not t.startswith('costmap')}
    assert {arrays[topic].shape[:2] for topic in full} == {(HEIGHT, WIDTH)}

    label, confidence, depth = (arrays[topic] for topic in ('label', 'confidence', 'depth'))
    np.testing.assert_array_equal(label, prediction.label)
    np.testing.assert_array_equal(confidence, np.rint(255 * prediction.confidence))
    np.testing.assert_allclose(depth, prediction.depth, rtol=1e-5)
    np.testing.assert_allclose(
        arrays['depth/uncertainty'], prediction.uncertainty, rtol=1e-4, equal_nan=True
    )
    np.testing.assert_array_equal(label == SKY, np.isposinf(depth))
    assert (depth[label != SKY] > 0).all() and np.isfinite(depth[label != SKY]).all()
    np.testing.assert_array_equal(arrays['costmap/label'], label[::4, ::4])
    np.testing.assert_array_equal(arrays['costmap/confidence'], confidence[::4, ::4])

    published = outputs['depth/camera_info']
    assert (published.width, published.height) == (WIDTH, HEIGHT)
    assert published.k.tolist() == [
        *(camera.fx, 0.0, camera.cx),
        *(0.0, camera.fy, camera.cy),
        *(0.0, 0.0, 1.0),
    ]
    assert (published.p[0], published.p[6], published.roi.width) == (camera.fx, camera.cy, 0)
    assert not any(published.d)

    # Points against a back-projection of the published depth, in float64.
    points = points_of(outputs['points'])
    assert not outputs['points'].is_dense
    assert points.shape == (-(-HEIGHT // 4), -(-WIDTH // 4))
    v, u = np.mgrid[0:HEIGHT:4, 0:WIDTH:4]
    z = depth[::4, ::4].astype(np.float64)
    z[np.isinf(z)] = np.nan
    truth = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], -1)
    np.testing.assert_allclose(xyz_of(points), truth, rtol=0, atol=1e-5, equal_nan=True)
    np.testing.assert_array_equal(points['label'], label[::4, ::4])
    np.testing.assert_allclose(points['confidence'], prediction.confidence[::4, ::4], atol=1e-5)
    red, green, blue = np.moveaxis(image[::4, ::4].astype(np.uint32), 2, 0)
    packed = np.ascontiguousarray(points['rgb']).view(np.uint32)
    np.testing.assert_array_equal(packed, red * 65536 + green * 256 + blue)

    # So small an image is judged by all of its pixels, whatever the cloud's stride.
    down = down_from_pitch(20.0)
    places = smoothed(camera.back_project(depth), prediction.uncertainty)
    ground = assess(places, down, Limits()).cost
    np.testing.assert_array_equal(arrays['traversability'], ground[::4, ::4])

    # Hazards: a selection of the points. Clearing: one end for every ray, none beyond 20 m.
    distance = np.linalg.norm(truth, axis=-1)
    for topic in ('points/hazards', 'points/clearing'):
        assert (outputs[topic].height, outputs[topic].is_dense) == (1, True)
    hazards = points_of(outputs['points/hazards'])[0]
    near = np.isin(points['label'], (CRATER, MOUNTAIN)) & (distance <= 20.0)
    assert near.any() == (name != 'long, off-centre')  # through which all looks farther off
    np.testing.assert_array_equal(hazards, points[near])
    ends = xyz_of(points_of(outputs['points/clearing'])[0])
    rays = truth / distance[..., None]
    sky = np.isnan(z)
    rays[sky] = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, u**0], -1)[sky]
    rays[sky] /= np.linalg.norm(rays[sky], axis=-1, keepdims=True)
    expected = rays * np.fmin(distance, 20.0)[..., None]
    expected = expected.reshape(-1, 3)
    order, expected_order = np.lexsort(ends.round(3).T), np.lexsort(expected.round(3).T)
    assert len(ends) == z.size
    nearest = np.linalg.norm(ends[order] - expected[expected_order], axis=-1)
    assert np.median(nearest) < 1e-4
    assert np.linalg.norm(ends, axis=-1).max() <= 20.0 + 1e-4


def test_headers_come_back_bit_for_bit(lossless: Client) -> None:
    headers = [
        new_header(sec=-(2**31), nanosec=0),
        new_header(sec=2**31 - 1, nanosec=999_999_999),
        new_header(sec=0, nanosec=0, frame_id=''),
        new_header(sec=-1, nanosec=2**32 - 1, frame_id='mast/left camera/глаз'),
    ]
    for header in headers:
        lossless.send(noise_image(), header, camera_info())
    for header in headers:
        assert lossless.outputs(header, set(TOPICS)).keys() == set(TOPICS)


def test_twice_the_focal_length_doubles_the_depth(lossless: Client) -> None:
    depths = [
        array_of(lossless.perceive(noise_image(), camera_info(fx=fx), {'depth'})['depth'])
        for fx in (70.0, 140.0)
    ]
    finite = np.isfinite(depths[0])
    assert finite.any() and not finite.all()
    np.testing.assert_array_equal(finite, np.isfinite(depths[1]))
    np.testing.assert_allclose(depths[1][finite], 2 * depths[0][finite], rtol=1e-6)


def test_lossless_processes_every_frame(lossless: Client) -> None:
    before = lossless.status(lambda values, _: values['waiting_frames'] == '0')
    headers = [new_header() for _ in range(40)]
    for header in headers:
        lossless.send(noise_image(), header, camera_info())
    for header in headers:
        lossless.outputs(header, {'label', 'points'})
    after = lossless.status(
        lambda values, _: (
            int(values['received']) == int(before['received']) + 40 and adds_up(values)
        )
    )
    assert after['dropped'] == '0'
    assert float(after['latency_p50_ms']) <= float(after['latency_p95_ms'])
    assert after['device'].split()[0].split(':')[0] in {'cpu', 'cuda'}
    assert after['backend'] in BACKENDS
    assert int(after['memory_mib']) > 50


def test_live_counts_add_up_and_outputs_are_of_the_newest_frames(client: Client) -> None:
    client.meet({'label'})
    headers = [new_header() for _ in range(60)]
    for header in headers:
        client.send(noise_image(), header, None)
    client.outputs(headers[-1], {'label'})
    values = client.status(
        lambda values, _: (
            int(values['received']) == int(values['processed']) + int(values['dropped'])
        )
    )
    assert int(values['received']) >= 2
    stamps = [message.header.stamp.nanosec for message in client.got['label']]
    assert stamps == sorted(stamps)


def test_parameters_are_as_the_file_says(client: Client) -> None:
    documented = yaml.safe_load(CONFIG.read_text())['/**/unified']['ros__parameters']
    names = client.call(ListParameters, 'list_parameters', ListParameters.Request()).result.names
    not_ours = {'use_sim_time', 'start_type_description_service'}
    ours = [n for n in names if n not in not_ours and not n.startswith('qos_overrides')]
    assert sorted(ours) == sorted(documented)
    values = client.call(GetParameters, 'get_parameters', GetParameters.Request(names=ours)).values
    for name, value in zip(ours, values, strict=True):
        if name != 'model':
            assert parameter_value_to_python(value) == documented[name], name
    descriptors = client.call(
        DescribeParameters, 'describe_parameters', DescribeParameters.Request(names=ours)
    ).descriptors
    for descriptor in descriptors:
        assert descriptor.description
        if descriptor.type == ParameterType.PARAMETER_DOUBLE:
            assert descriptor.floating_point_range
        if descriptor.type == ParameterType.PARAMETER_INTEGER:
            assert descriptor.integer_range


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('cloud_stride', 0, 'range'),
        ('min_confidence', 1.5, 'range'),
        ('max_range', float('nan'), 'range'),
        ('hazard_classes', ['rock', 'boulder'], "unknown class 'boulder'"),
        ('hazard_classes', 'rock', 'type'),
        ('hazard_sources', 'shape', 'one of class, geometry, both'),
        ('min_hazard_points', 0, 'range'),
        ('max_slope_deg', 0.0, 'range'),
        ('gravity_frame', 'odom', 'only while the node is unconfigured'),
        ('model', '/elsewhere', 'only while the node is unconfigured'),
        ('device', 'cuda:7', 'only while the node is unconfigured'),
        ('lossless', True, 'only while the node is unconfigured'),
        ('autostart', False, 'read-only'),
    ],
)
def test_a_bad_parameter_is_refused_with_a_reason(
    client: Client, name: str, value: Any, reason: str
) -> None:
    assert reason in (client.set_parameter(name, value) or '')


def test_parameters_take_effect_at_once(client: Client) -> None:
    topics = {'label', 'points', 'points/hazards', 'depth', 'costmap/label'}
    client.meet(topics, camera_info())
    changes = {
        'cloud_stride': (3, 4),
        'min_confidence': (1.0, 0.0),
        'max_relative_uncertainty': (1e-9, 0.0),
        'hazard_classes': (['rock', 'sky'], ['rock', 'crater']),
    }
    for name, (value, _) in changes.items():
        assert client.set_parameter(name, value) is None
    outputs = client.perceive(noise_image(), camera_info(), topics)
    for name, (_, default) in changes.items():
        assert client.set_parameter(name, default) is None
    label, depth = array_of(outputs['label']), array_of(outputs['depth'])
    assert (label == UNLABELLED).all()
    assert np.isposinf(depth).any() and np.isnan(depth[~np.isinf(depth)]).all()
    assert array_of(outputs['costmap/label']).shape == (17, 28)
    points = points_of(outputs['points'])
    assert points.shape == (17, 28)
    assert np.isnan(xyz_of(points)).all()
    hazards = outputs['points/hazards']
    assert (hazards.width, hazards.height, len(hazards.data)) == (0, 1, 0)


def test_nothing_is_made_that_nobody_subscribes_to(client: Client) -> None:
    """Without subscribers a frame counts as processed, and not even its encoding is read."""
    client.meet({'label'})
    client.unsubscribe()
    client.until(
        lambda: not client.node.get_subscriptions_info_by_topic('/perception/label'), 'silence'
    )
    unreadable = rgb_message(noise_image(), new_header())
    unreadable.encoding = 'nonsense'

    def not_read() -> bool:
        before = client.status(lambda *_: True)
        client.images.publish(unreadable)
        after = client.status(lambda values, _: values['received'] != before['received'])
        return int(after['processed']) == int(before['processed']) + 1

    client.until(not_read, 'a frame that is not read')


def test_impossible_transitions_are_refused(client: Client) -> None:
    assert not client.change_state(Transition.TRANSITION_ACTIVATE)
    assert not client.change_state(Transition.TRANSITION_CONFIGURE)
    assert not client.change_state(99)
    assert client.state() == 'active'


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [(['--params-file', '/no/such.yaml'], '/no/such.yaml'), (['--nonsense'], '--nonsense')],
)
def test_arguments_that_ros_can_not_read(arguments: list[str], reason: str) -> None:
    command = [sys.executable, '-m', 'lunar_perception.nodes.unified_node', '--ros-args']
    ended = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert ended.returncode == 1
    assert reason in ended.stderr.splitlines()[-1]
    assert 'Traceback' not in ended.stderr


@pytest.mark.parametrize('with_signal', [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_while_it_loads(
    weights: Path, tmp_path: Path, with_signal: signal.Signals
) -> None:
    arguments = ('-r', '__ns:=/brief', '-p', f'model:={weights}')
    with NodeProcess(tmp_path, *arguments) as process, Client('/brief/unified') as client:
        client.until(
            lambda: client.node.get_publishers_info_by_topic('/brief/label'), 'the topics'
        )
        process.end(with_signal)


def test_nodes_hold_the_garbage_collector_off_torch_once() -> None:
    program = """
import gc
from lunar_perception.nodes.network import import_torch
import_torch()
kept = gc.get_freeze_count()
assert kept > 100_000 and gc.isenabled(), kept
import_torch()
assert gc.get_freeze_count() == kept
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
