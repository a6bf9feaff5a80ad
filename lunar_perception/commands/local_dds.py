# Copyright 2026 lunar_perception contributors
# SPDX-License-Identifier: Apache-2.0
"""DDS among processes of one machine: apart from everybody else's, and with room for images."""

import os
from pathlib import Path
from random import SystemRandom

from lunar_perception.atomic import write_text

# Fast DDS's shared memory holds 512 KiB by default, less than one depth image. On a busy machine
# what does not fit is lost, and sent again only with the next heartbeat, up to 3 s later.
FAST_DDS_PROFILE = """\
<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns="http://www.eprosima.com">
  <profiles>
    <transport_descriptors>
      <transport_descriptor>
        <transport_id>shared_memory</transport_id>
        <type>SHM</type>
        <segment_size>16777216</segment_size>
      </transport_descriptor>
      <transport_descriptor>
        <transport_id>udp</transport_id>
        <type>UDPv4</type>
      </transport_descriptor>
    </transport_descriptors>
    <participant profile_name="local" is_default_profile="true">
      <rtps>
        <userTransports>
          <transport_id>shared_memory</transport_id>
          <transport_id>udp</transport_id>
        </userTransports>
        <useBuiltinTransports>false</useBuiltinTransports>
      </rtps>
    </participant>
  </profiles>
</dds>
"""


def use_local_dds(folder: Path) -> None:
    """
    Set the environment in which this process and its children use ROS from now on.

    A domain drawn at random, heard on this machine alone; logs and the DDS profile in `folder`.
    """
    profile = folder.resolve() / 'fastdds.xml'
    write_text(profile, FAST_DDS_PROFILE)
    os.environ.update(
        # Up to 101, domains keep clear of the ports that Linux hands out.
        ROS_DOMAIN_ID=str(SystemRandom().randint(1, 101)),
        ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
        ROS_LOG_DIR=str(profile.parent),
        FASTRTPS_DEFAULT_PROFILES_FILE=str(profile),
    )
