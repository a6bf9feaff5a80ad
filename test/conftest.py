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

"""Skip test modules that need ROS 2 where it is not installed; let Ctrl-C be heard."""

from importlib.util import find_spec
import re
import signal

import pytest

IMPORT = re.compile(r'^(?:from|import) (launch_pytest|rclpy|std_srvs|\w+_msgs)\b', re.MULTILINE)


def pytest_configure() -> None:
    """Heed SIGINT, which a script's `&` has ignored, by all that the tests start too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_make_collect_report(collector: pytest.Collector) -> pytest.CollectReport | None:
    """Report such a module as skipped, with the reason, before it is imported."""
    if not isinstance(collector, pytest.Module):
        return None
    text = collector.path.read_text()
    for imported in IMPORT.finditer(text):
        if find_spec(imported[1]) is None:
            with_it = ' with launch_pytest' if imported[1] == 'launch_pytest' else ''
            line = text.count('\n', 0, imported.start()) + 1
            where = (str(collector.path), line, f'Skipped: needs ROS 2{with_it}')
            return pytest.CollectReport(collector.nodeid, 'skipped', where, [])
    return None
