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

"""Messages of several topics brought together by exact stamp."""

from collections.abc import Collection
from typing import Generic, TypeVar

T = TypeVar('T')


class StampPairing(Generic[T]):
    """
    Collects the parts of each stamp until all are there.

    At most `most_waiting` stamps wait; the oldest one then is given up and named as missing, so
    that memory does not grow.

    Fields:
        missing: the parts that a stamp given up lacked, by stamp in ns.

    """

    def __init__(self, parts: Collection[str], most_waiting: int = 30) -> None:
        self._parts = frozenset(parts)
        self._most_waiting = most_waiting
        self._waiting: dict[int, dict[str, T]] = {}
        self.missing: dict[int, tuple[str, ...]] = {}

    @property
    def waiting(self) -> int:
        """How many stamps wait for parts."""
        return len(self._waiting)

    def add(self, part: str, stamp_ns: int, value: T) -> dict[str, T] | None:
        """Take a part in; return all parts of its stamp when it was the last."""
        if stamp_ns in self.missing:
            return None
        found = self._waiting.setdefault(stamp_ns, {})
        found[part] = value
        if len(found) == len(self._parts):
            return self._waiting.pop(stamp_ns)
        if len(self._waiting) > self._most_waiting:
            self._give_up(min(self._waiting))
        return None

    def flush(self) -> None:
        """Give up all that wait."""
        for stamp_ns in sorted(self._waiting):
            self._give_up(stamp_ns)

    def _give_up(self, stamp_ns: int) -> None:
        found = self._waiting.pop(stamp_ns)
        self.missing[stamp_ns] = tuple(sorted(self._parts - found.keys()))
