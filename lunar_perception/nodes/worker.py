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

"""One thread that processes frames, newest first or every one. Knows nothing of ROS."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, Thread
from time import monotonic
from typing import Generic, TypeVar

import numpy as np

Frame = TypeVar('Frame')

LATENCIES_KEPT = 200
RATE_WINDOW_S = 5.0


@dataclass(frozen=True)
class WorkerStatistics:
    """
    What became of the frames so far; once idle, received = processed + dropped.

    Fields:
        received, processed, dropped: numbers of frames. A frame whose processing failed, or that
            waited when the worker was stopped, counts as dropped.
        waiting: frames received and not yet taken.
        input_rate, output_rate: frames received and processed in a second, of late.
        latency_p50, latency_p95: seconds from receiving a frame to having processed it; NaN when
            there was none. Over the last `LATENCIES_KEPT` frames.

    """

    received: int = 0
    processed: int = 0
    dropped: int = 0
    waiting: int = 0
    input_rate: float = 0.0
    output_rate: float = 0.0
    latency_p50: float = float('nan')
    latency_p95: float = float('nan')


class FrameWorker(Generic[Frame]):
    """
    Calls `process` with one frame at a time, in a thread of its own.

    `process` returns whether it processed the frame or dropped it. When it raises, the frame is
    dropped, `failed` is called with the error, and the worker goes on. `start` and `stop` may
    alternate; the counts go on.
    """

    def __init__(
        self, process: Callable[[Frame], bool], failed: Callable[[Exception], None]
    ) -> None:
        self._process = process
        self._failed = failed
        self._keep_all = False
        self._changed = Condition()
        self._waiting: deque[tuple[Frame, float]] = deque()
        self._thread: Thread | None = None
        self._received = self._processed = self._dropped = 0
        self._arrivals: deque[float] = deque(maxlen=1000)
        self._completions: deque[float] = deque(maxlen=1000)
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)

    def start(self, *, keep_all: bool = False) -> None:
        """
        Start taking frames.

        Only the newest frame waits, and one that it replaces is dropped; with `keep_all`, every
        frame waits its turn.
        """
        if self._thread is None:
            self._keep_all = keep_all
            self._thread = Thread(target=self._run, name='frame worker')
            self._thread.start()

    def stop(self) -> None:
        """Drop what waits, finish the frame at hand, and end the thread."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._drop_waiting()
            self._changed.notify_all()
        if thread is not None:
            thread.join()

    def put(self, frame: Frame) -> None:
        """Hand over a frame; it is dropped when the worker does not run."""
        with self._changed:
            now = monotonic()
            self._received += 1
            self._arrivals.append(now)
            if not self._keep_all or self._thread is None:
                self._drop_waiting()
            if self._thread is None:
                self._dropped += 1
            else:
                self._waiting.append((frame, now))
                self._changed.notify_all()

    def statistics(self) -> WorkerStatistics:
        """Return the counts, rates and latencies."""
        with self._changed:
            latencies = np.array(self._latencies)
            p50, p95 = np.percentile(latencies, (50, 95)) if len(latencies) else (np.nan, np.nan)
            return WorkerStatistics(
                received=self._received,
                processed=self._processed,
                dropped=self._dropped,
                waiting=len(self._waiting),
                input_rate=_rate(self._arrivals),
                output_rate=_rate(self._completions),
                latency_p50=float(p50),
                latency_p95=float(p95),
            )

    def _drop_waiting(self) -> None:
        self._dropped += len(self._waiting)
        self._waiting.clear()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._thread is None)
                if self._thread is None:
                    return
                frame, arrival = self._waiting.popleft()
            done = False
            try:
                done = self._process(frame)
            except Exception as error:
                self._failed(error)
            finally:
                del frame  # it may be large, and the next may be long in coming
                with self._changed:
                    if done:
                        self._processed += 1
                        now = monotonic()
                        self._completions.append(now)
                        self._latencies.append(now - arrival)
                    else:
                        self._dropped += 1


def _rate(times: deque[float]) -> float:
    since = monotonic() - RATE_WINDOW_S
    return sum(time > since for time in times) / RATE_WINDOW_S
