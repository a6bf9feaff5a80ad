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

"""The worker: which frame is taken next, and that every frame is counted."""

from threading import Barrier, Event
from threading import enumerate as all_threads
from time import monotonic, sleep

from lunar_perception.nodes.worker import FrameWorker, WorkerStatistics
import pytest

TIMEOUT_S = 30.0


class GatedProcess:
    """Holds each frame until it is let go."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.gate = Barrier(2)
        self.taken_one = Event()

    def __call__(self, frame: int) -> bool:
        self.taken.append(frame)
        self.taken_one.set()
        self.gate.wait(TIMEOUT_S)
        return True

    def wait_for_frame(self) -> None:
        assert self.taken_one.wait(TIMEOUT_S)
        self.taken_one.clear()

    def let_go(self) -> None:
        self.gate.wait(TIMEOUT_S)


def fail(error: Exception) -> None:
    raise AssertionError from error


def when_idle(worker: FrameWorker[int]) -> WorkerStatistics:
    """Return the statistics once every frame is counted."""
    deadline = monotonic() + TIMEOUT_S
    while monotonic() < deadline:
        statistics = worker.statistics()
        if statistics.received == statistics.processed + statistics.dropped:
            return statistics
        sleep(0.002)
    raise AssertionError(f'{statistics} does not add up')


def test_the_newest_frame_is_taken_next() -> None:
    process = GatedProcess()
    worker: FrameWorker[int] = FrameWorker(process, fail)
    worker.start()
    worker.put(0)
    process.wait_for_frame()
    for frame in range(1, 50):
        worker.put(frame)
    assert worker.statistics().waiting == 1
    process.let_go()
    process.wait_for_frame()
    process.let_go()
    statistics = when_idle(worker)
    worker.stop()
    assert process.taken == [0, 49]
    assert (statistics.received, statistics.processed, statistics.dropped) == (50, 2, 48)


def test_keep_all_takes_every_frame_in_turn() -> None:
    taken: list[int] = []
    worker: FrameWorker[int] = FrameWorker(lambda frame: taken.append(frame) is None, fail)
    worker.start(keep_all=True)
    for frame in range(500):
        worker.put(frame)
    statistics = when_idle(worker)
    worker.stop()
    assert taken == list(range(500))
    assert (statistics.processed, statistics.dropped) == (500, 0)
    assert 0 < statistics.latency_p50 <= statistics.latency_p95 < TIMEOUT_S
    assert statistics.input_rate > 0 < statistics.output_rate


def test_what_is_refused_and_what_fails_is_dropped_and_the_worker_goes_on() -> None:
    errors: list[Exception] = []

    def process(frame: int) -> bool:
        if frame == 1:
            raise ValueError('one')
        return frame != 2

    worker = FrameWorker(process, errors.append)
    worker.start(keep_all=True)
    for frame in range(4):
        worker.put(frame)
    statistics = when_idle(worker)
    worker.stop()
    assert (statistics.processed, statistics.dropped) == (2, 2)
    assert [str(error) for error in errors] == ['one']


@pytest.mark.parametrize('keep_all', [False, True])
def test_stop_drops_what_waits_and_finishes_what_is_begun(keep_all: bool) -> None:
    process = GatedProcess()
    worker: FrameWorker[int] = FrameWorker(process, fail)
    before = len(all_threads())
    worker.start(keep_all=keep_all)
    worker.put(0)
    process.wait_for_frame()
    worker.put(1)
    assert worker.statistics().waiting == 1

    stopping: FrameWorker[int] = FrameWorker(lambda _: worker.stop() is None, fail)
    stopping.start()
    stopping.put(0)
    while worker.statistics().waiting:
        sleep(0.002)
    process.let_go()
    when_idle(stopping)
    stopping.stop()

    worker.put(2)
    statistics = worker.statistics()
    assert process.taken == [0]
    assert (statistics.received, statistics.processed, statistics.dropped) == (3, 1, 2)
    assert len(all_threads()) == before


def test_it_starts_again_and_counts_on() -> None:
    worker: FrameWorker[int] = FrameWorker(lambda _: True, fail)
    for _ in range(20):
        worker.start()
        worker.start()
        worker.put(1)
        when_idle(worker)
        worker.stop()
        worker.stop()
    assert worker.statistics().processed == 20


def test_nothing_has_come() -> None:
    worker: FrameWorker[int] = FrameWorker(lambda _: True, fail)
    statistics = worker.statistics()
    assert (statistics.received, statistics.input_rate) == (0, 0.0)
    assert statistics.latency_p50 != statistics.latency_p50
