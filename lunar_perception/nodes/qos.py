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

from collections.abc import Callable
from typing import Any

from lunar_perception.nodes.diagnostics import ERROR, Problems
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    qos_check_compatible,
    qos_policy_name_from_kind,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.topic_endpoint_info import TopicEndpointInfo

LOSSLESS_DEPTH = 100


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
    Reports each topic on which a peer's QoS does not fit the node's, naming the peer.

    The middleware tells of such a peer when it appears; `check` keeps the report current.
    """

    def __init__(self, node: Node, problems: Problems) -> None:
        self._node = node
        self._problems = problems
        self._mismatches: dict[str, Callable[[str], list[str]]] = {}

    def publisher_events(self, topic: str) -> PublisherEventCallbacks:
        """Return the event callbacks for the node's publisher on `topic`."""
        return PublisherEventCallbacks(incompatible_qos=self._on_event(topic, self._subscribers))

    def subscription_events(self, topic: str) -> SubscriptionEventCallbacks:
        """Return the event callbacks for the node's subscription to `topic`."""
        return SubscriptionEventCallbacks(incompatible_qos=self._on_event(topic, self._publishers))

    @property
    def topics(self) -> list[str]:
        """Topics with a mismatch."""
        return sorted(self._mismatches)

    def check(self) -> None:
        """Look again at the topics with a mismatch; report or resolve each."""
        for topic, peers_of in list(self._mismatches.items()):
            peers = peers_of(topic)
            if peers:
                self._report(topic, peers)
            else:
                del self._mismatches[topic]
                self._problems.resolve(f'QoS of {topic}')

    def _on_event(self, topic: str, peers_of: Callable[[str], list[str]]) -> Callable[[Any], None]:
        resolved = self._node.resolve_topic_name(topic)

        def on_event(event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
            self._mismatches[resolved] = peers_of
            # The graph may not know the peer yet; `check` names it later.
            self._report(resolved, peers_of(resolved) or [f'the {policy} of a peer does not fit'])

        return on_event

    def _report(self, topic: str, peers: list[str]) -> None:
        self._problems.report(f'QoS of {topic}', ERROR, f'{topic}: {"; ".join(peers)}')

    def _publishers(self, topic: str) -> list[str]:
        """Describe publishers from which our subscription gets nothing."""
        publishers = self._node.get_publishers_info_by_topic(topic)
        ours = [s for s in self._node.get_subscriptions_info_by_topic(topic) if self._is_ours(s)]
        return [
            f'no messages come from publisher {_name(publisher)}, whose QoS does not fit: {why}'
            for subscription in ours
            for publisher in publishers
            if (why := _mismatch(publisher, subscription))
        ]

    def _subscribers(self, topic: str) -> list[str]:
        """Describe subscribers that get nothing from our publisher."""
        subscriptions = self._node.get_subscriptions_info_by_topic(topic)
        ours = [p for p in self._node.get_publishers_info_by_topic(topic) if self._is_ours(p)]
        return [
            f'no messages reach subscriber {_name(subscription)}, whose QoS does not fit: {why}'
            for publisher in ours
            for subscription in subscriptions
            if (why := _mismatch(publisher, subscription))
        ]

    def _is_ours(self, endpoint: TopicEndpointInfo) -> bool:
        return _name(endpoint) == self._node.get_fully_qualified_name()


def _name(endpoint: TopicEndpointInfo) -> str:
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'


def _mismatch(publisher: TopicEndpointInfo, subscription: TopicEndpointInfo) -> str | None:
    compatibility, reason = qos_check_compatible(publisher.qos_profile, subscription.qos_profile)
    if compatibility != QoSCompatibility.ERROR:
        return None
    return str(reason).removeprefix('ERROR: ').rstrip('; ').lower()
