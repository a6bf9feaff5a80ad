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

"""Integrated Gradients beside classification: it waits, is interrupted, keeps what it must."""

from collections.abc import Iterator
from queue import Empty, Queue
from threading import Event
from typing import Any

from lunar_perception.models import TerrainOutput
from lunar_perception.nodes import attribution
from lunar_perception.nodes.attribution import AttributionTask, AttributionWorker
import numpy as np
import pytest
from std_msgs.msg import Header
import torch

TIMEOUT_S = 120.0


class Predictor:
    """
    Stands in for a terrain predictor: class c's logit is the sum of channel c.

    `passes` counts passes through the network; in each, `pause` is waited for, and `fault` raised
    if there is one.
    """

    device = torch.device('cpu')

    def __init__(self) -> None:
        self.passes = 0
        self.pause = Event()
        self.pause.set()
        self.reached = Event()
        self.fault: Exception | None = None

    def model(self, images: torch.Tensor) -> TerrainOutput:
        self.passes += 1
        self.reached.set()
        assert self.pause.wait(TIMEOUT_S)
        if self.fault:
            raise self.fault
        return TerrainOutput(images.sum(dim=(2, 3)), images)

    def network_input(self, image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]


class Bench:
    """A worker, what it published and what failed."""

    def __init__(self) -> None:
        self.predictor = Predictor()
        self.idle = Event()
        self.idle.set()
        self.subscribed = True
        self.published: Queue[tuple[str, np.ndarray, Any]] = Queue()
        self.failures: Queue[Exception] = Queue()
        self.worker = AttributionWorker(
            lambda header, image, heat, found: self.published.put((header.frame_id, heat, found)),
            self.failures.put,
            self.idle,
            lambda: self.subscribed,
        )
        self.worker.start()

    def put(self, name: str, *, asked: bool = False) -> None:
        image = np.full((2, 3, 3), 7, np.uint8)
        task = AttributionTask(self.predictor, Header(frame_id=name), image, 1, asked)
        self.worker.put(task)

    def next_name(self) -> str:
        return self.published.get(timeout=TIMEOUT_S)[0]

    def held(self, name: str, **options: Any) -> None:
        """Hand over a frame, and hold it in its first pass."""
        self.predictor.pause.clear()
        self.predictor.reached.clear()
        self.put(name, **options)
        assert self.predictor.reached.wait(TIMEOUT_S)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(attribution, 'PATIENCE_S', TIMEOUT_S)
    bench = Bench()
    yield bench
    bench.predictor.pause.set()
    bench.worker.stop()


def test_it_publishes_the_evidence_at_the_images_size(bench: Bench) -> None:
    bench.put('one')
    name, heat, found = bench.published.get(timeout=TIMEOUT_S)
    assert name == 'one'
    np.testing.assert_allclose(heat, np.full((2, 3), 7), rtol=1e-5)
    assert found.complete and found.difference == pytest.approx(42)
    assert found.steps == 32
    assert bench.predictor.passes == 2 + 32 / attribution.BATCH


def test_it_waits_while_classification_is_busy(bench: Bench) -> None:
    bench.idle.clear()
    bench.put('one')
    with pytest.raises(Empty):
        bench.published.get(timeout=0.3)
    assert bench.predictor.passes == 0
    bench.idle.set()
    assert bench.next_name() == 'one'


def test_it_gets_on_at_full_load_when_patience_is_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribution, 'PATIENCE_S', 0.01)
    bench.idle.clear()
    bench.put('one')
    assert bench.next_name() == 'one'


def test_only_the_newest_waits_but_what_was_asked_for_is_kept(bench: Bench) -> None:
    bench.held('one')
    for name in ('two', 'three'):
        bench.put(name)
    bench.predictor.pause.set()
    assert [bench.next_name(), bench.next_name()] == ['one', 'three']
    bench.held('four')
    bench.put('five')
    bench.put('six', asked=True)
    bench.put('seven')
    bench.predictor.pause.set()
    assert [bench.next_name(), bench.next_name()] == ['four', 'six']
    bench.put('eight')
    assert bench.next_name() == 'eight'
    assert bench.failures.empty()


def test_it_stops_when_nobody_subscribes_any_more(bench: Bench) -> None:
    bench.held('one')
    bench.subscribed = False
    bench.put('two', asked=True)
    bench.predictor.pause.set()
    assert bench.next_name() == 'two'  # which goes on without a subscriber
    assert bench.failures.empty() and bench.published.empty()


def test_stopping_ends_it_at_the_next_pass(bench: Bench) -> None:
    bench.held('one', asked=True)
    bench.put('two')
    passes = bench.predictor.passes
    bench.predictor.pause.set()
    bench.worker.stop()
    assert bench.predictor.passes <= passes + 1  # it may have begun one before it knew
    bench.worker.start()
    bench.put('three')
    assert bench.next_name() == 'three'
    assert bench.published.empty() and bench.failures.empty()


def test_a_wait_for_classification_is_ended_too(bench: Bench) -> None:
    bench.idle.clear()
    bench.put('one')
    bench.worker.stop()  # joins the thread
    assert bench.published.empty()


def test_a_failure_is_told_and_the_next_frame_is_explained(bench: Bench) -> None:
    bench.predictor.fault = RuntimeError('out of memory')
    bench.put('one')
    assert str(bench.failures.get(timeout=TIMEOUT_S)) == 'out of memory'
    bench.predictor.fault = None
    bench.put('two')
    assert bench.next_name() == 'two'
