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

"""Integrated Gradients beside classification: a thread of its own that gives way to it."""

from collections.abc import Callable
from threading import Event, Lock
from typing import Any, NamedTuple, TYPE_CHECKING

from lunar_perception.nodes.network import wait_for_device
from lunar_perception.nodes.worker import FrameWorker
import numpy as np
from std_msgs.msg import Header

if TYPE_CHECKING:  # importing torch takes seconds, and topics are to be advertised before
    from lunar_perception.inference.explain import Attributions
    from lunar_perception.inference.terrain import TerrainPredictor

BATCH = 4
"""Images of one pass: small, because classification may have to wait for one."""

PATIENCE_S = 1.0
"""How long a pass waits for classification to be idle, at most; so it gets on under full load."""


class AttributionTask(NamedTuple):
    """One frame's class to explain; `image` (H, W, 3) uint8 RGB, `asked` for by the service."""

    predictor: 'TerrainPredictor'
    header: Header
    image: np.ndarray
    class_id: int
    asked: bool


class AttributionEndedError(Exception):
    """Nobody wants to know any more."""


class AttributionWorker:
    """
    Explains one frame at a time; only the newest waits, but one that was asked for is kept.

    `publish` gets the frame's header, its image, the evidence (H, W) and the attributions it came
    from. Before each pass through the network `idle` is waited for, and `wanted` asked whether
    anybody still subscribes.
    """

    def __init__(
        self,
        publish: 'Callable[[Header, np.ndarray, np.ndarray, Attributions], None]',
        failed: Callable[[Exception], None],
        idle: Event,
        wanted: Callable[[], Any],
    ) -> None:
        self._publish = publish
        self._idle = idle
        self._wanted = wanted
        self._ending = Event()
        self._lock = Lock()
        self._asked_waits = False
        self._worker: FrameWorker[AttributionTask] = FrameWorker(self._explain, failed)

    def start(self) -> None:
        """Start taking frames."""
        self._ending.clear()
        self._asked_waits = False
        self._worker.start()

    def stop(self) -> None:
        """Drop the frame at hand at its next pass, and what waits; end the thread."""
        self._ending.set()
        self._idle.set()
        self._worker.stop()

    def put(self, task: AttributionTask) -> None:
        """Hand over a frame; it takes the place of one that waits, unless that was asked for."""
        with self._lock:
            if self._asked_waits and not task.asked:
                return
            self._asked_waits = task.asked
            self._worker.put(task)

    def _explain(self, task: AttributionTask) -> bool:
        from lunar_perception.inference.explain import evidence_of, integrated_gradients, resized

        with self._lock:
            self._asked_waits = self._asked_waits and not task.asked

        def give_way() -> None:
            # Or else passes would queue up on the device, and classification behind them.
            wait_for_device(task.predictor)
            self._idle.wait(PATIENCE_S)
            if self._ending.is_set() or not (task.asked or self._wanted()):
                raise AttributionEndedError

        try:
            found = integrated_gradients(
                task.predictor.model,
                task.predictor.network_input(task.image),
                task.class_id,
                batch=BATCH,
                between=give_way,
            )
        except AttributionEndedError:
            return False
        heat = resized(evidence_of(found.values), task.image.shape[:2])
        self._publish(task.header, task.image, heat, found)
        return True
