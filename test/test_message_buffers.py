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

"""Messages from kept bytes: the same as from fresh ones, with hardly an allocation."""

import tracemalloc
from types import SimpleNamespace
from typing import Any

from lunar_perception.camera import LUSNAR_CAMERA
from lunar_perception.nodes.codec import MessageBuffers
from lunar_perception.nodes.outputs import FrameOutputs, OUTPUTS
from lunar_perception.nodes.unified_parameters import UnifiedParameters
import numpy as np
import pytest
from std_msgs.msg import Header

HEIGHT, WIDTH = 240, 320
CAMERA = LUSNAR_CAMERA.resized(WIDTH, HEIGHT)
MAIN = ('label', 'confidence', 'depth', 'depth/uncertainty', 'points')


def outputs(seed: int, buffers: MessageBuffers | None, scale: int = 1) -> FrameOutputs:
    """Return the outputs about a frame of noise."""
    shape = (HEIGHT // scale, WIDTH // scale)
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1, 30, shape).astype(np.float32)
    depth[:10] = np.inf
    prediction: Any = SimpleNamespace(
        label=rng.integers(0, 5, shape, np.uint8),
        confidence=rng.random(shape, np.float32),
        depth=depth,
        uncertainty=(0.1 * depth).astype(np.float32),
    )
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    camera = CAMERA.resized(shape[1], shape[0])
    return FrameOutputs(Header(), image, prediction, camera, UnifiedParameters(), buffers=buffers)


def test_kept_bytes_give_the_same_messages() -> None:
    buffers = MessageBuffers()
    for seed, scale in ((1, 1), (2, 1), (3, 2), (4, 1)):
        kept, fresh = outputs(seed, buffers, scale), outputs(seed, None, scale)
        for topic, output in OUTPUTS.items():
            assert output.make(kept) == output.make(fresh), (topic, seed)


@pytest.mark.parametrize('topic', MAIN)
def test_bytes_are_used_again_without_a_copy(topic: str) -> None:
    buffers = MessageBuffers()
    first = OUTPUTS[topic].make(outputs(1, buffers))
    second = OUTPUTS[topic].make(outputs(2, buffers))
    assert second.data is first.data
    assert second.data is buffers.take(topic, len(second.data))


def test_a_frame_allocates_less_than_its_messages_hold() -> None:
    buffers = MessageBuffers()
    for topic in MAIN:
        OUTPUTS[topic].make(outputs(1, buffers))
    frame = outputs(2, buffers)
    tracemalloc.start()
    try:
        messages = [OUTPUTS[topic].make(frame) for topic in MAIN]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    held = sum(len(message.data) for message in messages)
    # Confidence as bytes, and the cloud's geometry.
    assert most < held / 3
