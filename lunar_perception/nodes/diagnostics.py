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

"""What is wrong, said once in the log and every second in diagnostics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
import resource
from threading import Lock
from time import monotonic

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from lunar_perception.nodes.worker import WorkerStatistics
from rclpy.impl.rcutils_logger import RcutilsLogger

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

LOG_AGAIN_S = 30.0
"""A problem that persists is logged again after so many seconds."""

LOG_CHANGE_S = 1.0
"""A problem whose text changes is logged again at most this often, in seconds."""


@dataclass
class _Problem:
    level: bytes
    text: str
    over: bool = False


class Problems:
    """
    The problems that a node has now, one for each subject; safe to use from any thread.

    A new one is logged at once, one that persists or comes again now and then. One that is over
    stays until it has been in diagnostics once, however short it was.
    """

    def __init__(self, logger: RcutilsLogger) -> None:
        self._logger = logger
        self._lock = Lock()
        self._problems: dict[str, _Problem] = {}
        self._logged: dict[str, tuple[str, float]] = {}

    def report(self, subject: str, level: bytes, text: str, *, log_always: bool = False) -> None:
        """State the problem with a subject; `level` is WARN or ERROR."""
        now = monotonic()
        with self._lock:
            self._problems[subject] = _Problem(level, text)
            last_text, last_time = self._logged.get(subject, ('', float('-inf')))
            pause = LOG_AGAIN_S if text == last_text else LOG_CHANGE_S
            due = log_always or now - last_time >= pause
            if due:
                self._logged[subject] = (text, now)
        if due:
            # Two lines, because rclpy wants one severity for each line that logs.
            if level == ERROR:
                self._logger.error(text)
            else:
                self._logger.warning(text)

    def resolve(self, subject: str) -> None:
        """State that there is no problem with a subject."""
        with self._lock:
            if subject in self._problems:
                self._problems[subject].over = True

    def resolve_all(self) -> None:
        """State that there is no problem at all."""
        with self._lock:
            for problem in self._problems.values():
                problem.over = True

    def for_diagnostics(self) -> dict[str, tuple[bytes, str]]:
        """Return level and text by subject, and forget what is over."""
        with self._lock:
            current = {
                subject: (problem.level, problem.text)
                for subject, problem in self._problems.items()
            }
            self._problems = {s: p for s, p in self._problems.items() if not p.over}
        return current


def diagnostic_status(
    name: str,
    state: str,
    waiting_for: Sequence[str],
    problems: Mapping[str, tuple[bytes, str]],
    values: Mapping[str, object],
) -> DiagnosticStatus:
    """Return a status as bad as the worst problem, WARN at least while it waits for something."""
    level = max([level for level, _ in problems.values()] + [WARN if waiting_for else OK])
    texts = [text for _, text in problems.values()]
    if waiting_for:
        texts.append('waiting for ' + ', '.join(waiting_for))
    shown = {
        'state': state,
        'waiting_for': ', '.join(waiting_for),
        **values,
        'memory_mib': f'{resident_memory() / 2**20:.0f}',
    }
    return DiagnosticStatus(
        level=level,
        name=name,
        message='; '.join(texts) or state,
        values=[KeyValue(key=key, value=str(value)) for key, value in shown.items()],
    )


def statistics_values(statistics: WorkerStatistics) -> dict[str, object]:
    """Return a worker's statistics as diagnostics show them."""
    return {
        'received': statistics.received,
        'processed': statistics.processed,
        'dropped': statistics.dropped,
        'waiting_frames': statistics.waiting,
        'input_rate_hz': f'{statistics.input_rate:.1f}',
        'output_rate_hz': f'{statistics.output_rate:.1f}',
        'latency_p50_ms': f'{statistics.latency_p50 * 1e3:.1f}',
        'latency_p95_ms': f'{statistics.latency_p95 * 1e3:.1f}',
    }


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return next(iter(str(error).splitlines()), '') or type(error).__name__


def resident_memory() -> int:
    """Return the process's resident memory in bytes."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize()
