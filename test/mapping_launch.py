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

"""The mapping launch file as a process of its own, and a node that talks with what is there."""

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import shutil
import signal
import subprocess
from time import monotonic
from typing import Any

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

TIMEOUT_S = 240.0
ENDS = ('process has died', 'Aborting bringup')
"""What launch and Nav2's lifecycle manager say when there is nothing left to wait for."""

COSTMAPS = ('local_costmap', 'global_costmap')


def own_domain(folder: Path, offset: int) -> dict[str, str]:
    """Return this process's environment, in a domain of its own and with logs in `folder`."""
    return {
        **os.environ,
        'ROS_DOMAIN_ID': str(1 + (os.getpid() + offset) % 100),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'ROS_LOG_DIR': str(folder / 'log'),
    }


@contextmanager
def peer_node(environment: dict[str, str]) -> Iterator[Node]:
    """Give a node in the domain of `environment`, with `spin_once` for its callbacks."""
    context = rclpy.Context()
    with pytest.MonkeyPatch.context() as patch:
        for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE'):
            patch.setenv(name, environment[name])
        rclpy.init(context=context)
        node = rclpy.create_node('peer', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    node.spin_once = lambda: executor.spin_once(timeout_sec=0.1)
    try:
        yield node
    finally:
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()


class Launched:
    """`ros2 launch lunar_perception nav2_mapping.launch.py`, ended by SIGINT as by Ctrl-C."""

    def __init__(self, environment: dict[str, str], output: Path, **arguments: str) -> None:
        self.output = output
        words = [shutil.which('ros2'), 'launch', 'lunar_perception', 'nav2_mapping.launch.py']
        words += [f'{name}:={value}' for name, value in arguments.items()]
        with output.open('w') as file:
            self.process = subprocess.Popen(
                words, env=environment, stdout=file, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> 'Launched':
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def until(self, reached: Any, what: str, spin: Any) -> Any:
        """Spin until `reached` answers with something, which is returned."""
        deadline = monotonic() + TIMEOUT_S
        while not (answer := reached()):
            assert monotonic() < deadline, f'{what} did not come:\n{self.output.read_text()}'
            said = self.output.read_text()
            assert self.process.poll() is None and not any(end in said for end in ENDS), said
            spin()
        return answer
