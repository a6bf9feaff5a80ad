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

"""Any rosbag2 (sqlite3 or MCAP, zstd or not), as serialised messages in order of time."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import NamedTuple

from lunar_perception.data.mcap_recovery import copy_whole_records, is_cut_off
from rosbags.interfaces import ConnectionExtRosbag2, Qos
from rosbags.rosbag2 import Reader

STORAGE_SUFFIXES = ('.mcap', '.db3')


class BagError(ValueError):
    """A bag that can not be read, or not to its end: which one, and what is wrong."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(str(path), reason)
        self.path, self.reason = str(path), reason

    def __str__(self) -> str:
        return f'{self.path}: {self.reason}'


class BagTopic(NamedTuple):
    """A recorded topic: name, type and number of its messages, what its publishers offered."""

    name: str
    msgtype: str
    message_count: int
    qos: tuple[Qos, ...]


class BagMessage(NamedTuple):
    """A message: its topic, when it was recorded (Unix ns), and its CDR bytes."""

    topic: str
    stamp_ns: int
    data: bytes


def is_bag(path: str | Path) -> bool:
    """Return whether a file is a bag's storage, or a folder holds one or a metadata.yaml."""
    path = Path(path)
    if not path.is_dir():
        return path.suffix in STORAGE_SUFFIXES
    return (path / 'metadata.yaml').is_file() or bool(_storage_files(path))


class BagReader:
    """
    Reads a bag: a folder with metadata.yaml, or a single .mcap or .db3 file.

    A context manager. An MCAP that was cut off is read as far as it is whole: `damage` says so,
    and `messages` raises at the end. Raises BagError when there is nothing to read.

    Fields:
        path: the bag.
        topics: the recorded topics by name.
        message_count: how many messages can be read.
        damage: what is wrong with the bag, None when nothing is.

    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damage: str | None = None
        self._stack = ExitStack()
        try:
            self._reader = self._open()
        except BaseException:
            self._stack.close()
            raise
        self.topics = {
            name: BagTopic(name, info.msgtype or '', info.msgcount, _qos(info.connections))
            for name, info in self._reader.topics.items()
        }
        self.message_count = self._reader.message_count

    def __enter__(self) -> 'BagReader':
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """
        Yield the messages of some topics, or of all, in order of time.

        Raises BagError where the bag can be read no further, after what came before.
        """
        wanted = [
            connection
            for connection in self._reader.connections
            if topics is None or connection.topic in topics
        ]
        if wanted:
            messages = self._reader.messages(wanted)
            while True:
                try:
                    connection, stamp_ns, data = next(messages)
                except StopIteration:
                    break
                except Exception as error:  # rosbags raises what its parts raise
                    raise BagError(self.path, f'damaged: {_first_line(error)}') from error
                yield BagMessage(connection.topic, stamp_ns, bytes(data))
        if self.damage is not None:
            raise BagError(self.path, self.damage)

    def _open(self) -> Reader:
        if not self.path.exists():
            raise BagError(self.path, 'no such bag')
        files = _storage_files(self.path) if self.path.is_dir() else [self.path]
        if self.path.is_dir() and not (self.path / 'metadata.yaml').is_file():
            if not files:
                raise BagError(self.path, 'not a bag: no metadata.yaml, no .mcap, no .db3')
            raise BagError(
                self.path,
                f'metadata.yaml is missing; name {files[0]} itself, or run "ros2 bag reindex"',
            )
        try:
            cut_off = [file for file in files if file.suffix == '.mcap' and is_cut_off(file)]
            source = self._recovered(files, cut_off) if cut_off else self.path
            return self._stack.enter_context(Reader(source))
        except Exception as error:  # rosbags raises what its parts raise
            raise BagError(self.path, f'can not be read: {_first_line(error)}') from error

    def _recovered(self, files: list[Path], cut_off: list[Path]) -> Path:
        """Return a temporary copy of the bag in which what was cut off is closed properly."""
        folder = Path(self._stack.enter_context(TemporaryDirectory()))
        for file in files:
            if file in cut_off:
                copy_whole_records(file, folder / file.name)
            else:
                (folder / file.name).symlink_to(file.resolve())
        names = ', '.join(file.name for file in cut_off)
        self.damage = f'{names} is cut off; only what was whole could be read'
        if not self.path.is_dir():
            return folder / self.path.name
        (folder / 'metadata.yaml').symlink_to((self.path / 'metadata.yaml').resolve())
        return folder


def _storage_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in STORAGE_SUFFIXES)


def _qos(connections: Collection[object]) -> tuple[Qos, ...]:
    extensions = [getattr(connection, 'ext', None) for connection in connections]
    return tuple(
        qos
        for extension in extensions
        if isinstance(extension, ConnectionExtRosbag2)
        for qos in extension.offered_qos_profiles
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), '') or type(error).__name__
