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

"""
A program in a process of its own, called from here.

Thread pools of different libraries in one process hold each other up: whoever measures them side
by side in it measures that too. Asking another process and hearing that it is done takes a tenth
of a millisecond.
"""

from collections.abc import Callable
import multiprocessing
from multiprocessing.connection import Connection
from typing import Any, Self

Program = Callable[[], Any]


class OwnProcess:
    """
    What `make` returns, (a program, what is to be told of it), made in a process that waits.

    `make` and what it tells must pickle. Calling it runs the program there once; `about` is what
    `make` told. Raises RuntimeError when the process ends before it answers.
    """

    def __init__(self, make: Callable[[], tuple[Program, Any]]) -> None:
        context = multiprocessing.get_context('spawn')
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.about: Any = self._answer()

    def __call__(self) -> None:
        self._connection.send('run')
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()

    def _answer(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            raise RuntimeError(f'the measured process ended with status {code}') from None


def _serve(make: Callable[[], tuple[Program, Any]], connection: Connection) -> None:
    program, about = make()
    connection.send(about)
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        program()
        connection.send(None)
