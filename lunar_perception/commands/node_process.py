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

"""The unified node as a child process: started, watched, and stopped as a launch system does."""

from collections.abc import Mapping
from pathlib import Path
import signal
import subprocess
import sys

from lunar_perception.commands import CommandError

STOP_TIMEOUT_S = 20.0
LOG_LINES_SHOWN = 15
UNIFIED_NODE = 'lunar_perception.nodes.unified_node'


class NodeProcess:
    """
    Runs a node's `module` with `parameters`; its output goes to `log`.

    A context manager: whatever ends the block, no node stays behind. The node has a session of
    its own, so that Ctrl-C in a terminal reaches it only through `stop`.
    """

    def __init__(
        self, parameters: Mapping[str, object], log: Path, module: str = UNIFIED_NODE
    ) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, '-m', module, '--ros-args']
        for name, value in parameters.items():
            command += ['-p', f'{name}:={value}']
        with log.open('wb') as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> 'NodeProcess':
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def check_alive(self) -> None:
        """Raise CommandError with the node's last words when it has ended."""
        status = self._process.poll()
        if status is not None:
            raise CommandError(
                f'the node ended by itself ({_meaning(status)}).\n{self.last_words()}'
            )

    def stop(self) -> None:
        """Send SIGINT and wait; CommandError unless the node ends in time with status 0."""
        self.check_alive()
        self._process.send_signal(signal.SIGINT)
        try:
            status = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise CommandError(
                f'the node did not end within {STOP_TIMEOUT_S:g} s of SIGINT.\n{self.last_words()}'
            ) from None
        if status != 0:
            raise CommandError(
                f'on SIGINT the node ended with {_meaning(status)}.\n{self.last_words()}'
            )

    def last_words(self) -> str:
        """Return the log's last lines under its name."""
        lines = self._log.read_text(errors='replace').splitlines()[-LOG_LINES_SHOWN:]
        return '\n'.join([f'The last lines of {self._log}:', *(f'    {line}' for line in lines)])


def _meaning(status: int) -> str:
    return f'exit status {status}' if status >= 0 else signal.Signals(-status).name
