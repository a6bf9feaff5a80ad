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

"""DDS among processes of one machine: apart from everybody else's, and with room for images."""

import os
from pathlib import Path
from random import SystemRandom

FAST_DDS_PROFILE = Path(__file__).with_name('fastdds.xml')


def use_local_dds(folder: Path) -> None:
    """
    Set the environment in which this process and its children use ROS from now on.

    A domain drawn at random, heard on this machine alone; logs in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(
        # Up to 101, domains keep clear of the ports that Linux hands out.
        ROS_DOMAIN_ID=str(SystemRandom().randint(1, 101)),
        ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
        ROS_LOG_DIR=str(folder.resolve()),
        FASTRTPS_DEFAULT_PROFILES_FILE=str(FAST_DDS_PROFILE),
    )
