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

"""Quality of service: the profiles in use, and peers whose own does not fit them."""

from collections.abc import Iterable

from lunar_perception.nodes.diagnostics import ERROR, Problems
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    qos_check_compatible,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

LOSSLESS_DEPTH = 100

NO_PUBLISHER_EVENTS = PublisherEventCallbacks(use_default_callbacks=False)
NO_SUBSCRIPTION_EVENTS = SubscriptionEventCallbacks(use_default_callbacks=False)
"""Events are not waited for: by default there are two to each topic."""


def input_qos(lossless: bool) -> QoSProfile:
    """Return best effort with the newest message only, or reliable with a deep queue."""
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE if lossless else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
        history=HistoryPolicy.KEEP_LAST,
        depth=LOSSLESS_DEPTH if lossless else 1,
    )


def output_qos(lossless: bool) -> QoSProfile:
    """Return reliable with the newest message only, or with a deep queue."""
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.VOLATILE,
        history=HistoryPolicy.KEEP_LAST,
        depth=LOSSLESS_DEPTH if lossless else 1,
    )


def latched_qos() -> QoSProfile:
    """Return reliable and transient-local: late subscribers get the last message too."""
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
    )


def qos_overrides(lossless: bool) -> QoSOverridingOptions | None:
    """Return what users may override; nothing in lossless mode, which is a choice of QoS."""
    if lossless:
        return None
    return QoSOverridingOptions(
        (
            QoSPolicyKind.HISTORY,
            QoSPolicyKind.DEPTH,
            QoSPolicyKind.RELIABILITY,
            QoSPolicyKind.DURABILITY,
        )
    )


class QosWatch:
    """
    Reports each topic on which a peer's QoS or type does not fit the node's, naming the peer.

    It looks when `check` is called: at the peers of a topic of which the graph knows more than the
    middleware connected. The middleware's own events would tell at once, but rclpy's executor
    gathers each of them anew at every wake-up, a few times a frame: see `NO_PUBLISHER_EVENTS`.
    """

    def __init__(self, node: Node, problems: Problems) -> None:
        self._node = node
        self._problems = problems
        self._mismatches: dict[str, list[str]] = {}

    @property
    def topics(self) -> list[str]:
        """Topics with a mismatch, as of the last check."""
        return sorted(self._mismatches)

    def check(
        self, publishers: Iterable[Publisher], subscriptions: Iterable[Subscription]
    ) -> None:
        """Look at the peers of the node's publishers and subscriptions; report or resolve each."""
        found = {}
        for publisher in publishers:
            topic = publisher.topic_name
            if self._node.count_subscribers(topic) > publisher.get_subscription_count():
                found[topic] = self._subscribers(topic)
        for subscription in subscriptions:
            topic = subscription.topic_name
            if self._node.count_publishers(topic) > subscription.get_publisher_count():
                found[topic] = self._publishers(topic)
        before, self._mismatches = self._mismatches, {t: p for t, p in found.items() if p}
        for topic in before.keys() - self._mismatches:
            self._problems.resolve(f'QoS of {topic}')
        for topic, peers in self._mismatches.items():
            self._problems.report(f'QoS of {topic}', ERROR, f'{topic}: {"; ".join(peers)}')

    def _publishers(self, topic: str) -> list[str]:
        """Describe publishers from which our subscription gets nothing."""
        publishers = self._node.get_publishers_info_by_topic(topic)
        ours = [s for s in self._node.get_subscriptions_info_by_topic(topic) if self._is_ours(s)]
        return [
            f'no messages come from publisher {_name(publisher)}, {why}'
            for subscription in ours
            for publisher in publishers
            if (why := _mismatch(publisher, subscription, peer=publisher))
        ]

    def _subscribers(self, topic: str) -> list[str]:
        """Describe subscribers that get nothing from our publisher."""
        subscriptions = self._node.get_subscriptions_info_by_topic(topic)
        ours = [p for p in self._node.get_publishers_info_by_topic(topic) if self._is_ours(p)]
        return [
            f'no messages reach subscriber {_name(subscription)}, {why}'
            for publisher in ours
            for subscription in subscriptions
            if (why := _mismatch(publisher, subscription, peer=subscription))
        ]

    def _is_ours(self, endpoint: TopicEndpointInfo) -> bool:
        return _name(endpoint) == self._node.get_fully_qualified_name()


def _name(endpoint: TopicEndpointInfo) -> str:
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'


def _mismatch(
    publisher: TopicEndpointInfo, subscription: TopicEndpointInfo, peer: TopicEndpointInfo
) -> str | None:
    """Return what of `peer`, one of the two, does not fit the other; None when all does."""
    if publisher.topic_type != subscription.topic_type:
        return f'whose type is {peer.topic_type}'
    compatibility, reason = qos_check_compatible(publisher.qos_profile, subscription.qos_profile)
    if compatibility != QoSCompatibility.ERROR:
        return None
    return f'whose QoS does not fit: {str(reason).removeprefix("ERROR: ").rstrip("; ").lower()}'
