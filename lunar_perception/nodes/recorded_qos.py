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

"""The quality of service that a bag recorded, for publishers that play it."""

from collections.abc import Sequence
from typing import Any

from rclpy.duration import Duration, Infinite
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSProfile,
    ReliabilityPolicy,
)
from rosbags.interfaces import Qos, QosTime

DEFAULT_DEPTH = 10


def recorded_qos(profiles: Sequence[Qos]) -> QoSProfile:
    """
    Return what a recorded topic's publishers offered; the default where they differed.

    Discovery does not tell history and depth, so that bags often do not know them: then the
    newest 10 are kept.
    """
    offers = {(p.reliability, p.durability, p.deadline, p.liveliness) for p in profiles}
    if len(offers) != 1:
        return QoSProfile(depth=DEFAULT_DEPTH)
    offer = profiles[0]
    keep_all = offer.history.name == 'KEEP_ALL'
    known = offer.history.name == 'KEEP_LAST' and offer.depth > 0
    return QoSProfile(
        history=HistoryPolicy.KEEP_ALL if keep_all else HistoryPolicy.KEEP_LAST,
        depth=offer.depth if known else DEFAULT_DEPTH,
        reliability=_known(ReliabilityPolicy, offer.reliability.name, ReliabilityPolicy.RELIABLE),
        durability=_known(DurabilityPolicy, offer.durability.name, DurabilityPolicy.VOLATILE),
        deadline=_duration(offer.deadline),
        lifespan=_duration(offer.lifespan),
        liveliness=_known(LivelinessPolicy, offer.liveliness.name, LivelinessPolicy.AUTOMATIC),
        liveliness_lease_duration=_duration(offer.liveliness_lease_duration),
    )


def _known(policy: Any, name: str, default: Any) -> Any:
    """Return the policy of a name, unless the recorder did not know it."""
    return default if name in ('UNKNOWN', 'SYSTEM_DEFAULT') else getattr(policy, name, default)


def _duration(time: QosTime) -> Duration:
    """Return a recorded duration; middlewares have several numbers that mean infinity."""
    endless = time.sec >= 2**31 - 1 or (time.sec == 0 and time.nsec == 0)
    return Infinite if endless else Duration(seconds=time.sec, nanoseconds=time.nsec)
