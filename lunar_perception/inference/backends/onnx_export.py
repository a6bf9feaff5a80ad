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

"""A network as an ONNX file: static shapes, pixels in, the network's tensors out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
import warnings

from lunar_perception.inference.backends.onnx_forms import use_onnx_forms
from lunar_perception.inference.backends.pixel_network import PixelNetwork
import torch

OPSET = 17
"""The first with LayerNormalization; ONNX Runtime from 1.20 and OpenVINO from 2025 read it."""

INPUT = 'pixels'

METADATA_FIELD = 14
"""Number of `metadata_props` in ONNX's ModelProto."""

LARGEST_BYTES = 2**31 - 2**24
"""What protobuf can hold, less what the graph takes beside its weights."""


def export_onnx(
    network: PixelNetwork,
    names: Sequence[str],
    size: tuple[int, int],
    path: Path,
    about: Mapping[str, str] | None = None,
) -> None:
    """
    Write the network for images of `size` = (height, width) as ONNX, in float32.

    The input `pixels` is (1, height, width, 3) uint8 RGB; outputs are called `names`; `about` goes
    to the file's metadata. Raises
    ValueError when the network is too large for one file, RuntimeError when it can't be exported.
    """
    values = sum(x.numel() for x in network.parameters())
    if 4 * values > LARGEST_BYTES:
        raise ValueError(
            f"a network of {values / 1e6:.0f} million parameters does not fit ONNX's 2 GiB"
        )
    static = network.of_one_size(*size).cpu()
    static.precision = torch.float32
    use_onnx_forms(static)
    pixels = torch.zeros(1, *size, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        # Exporting by tracing is deprecated, but takes 1 s where its successor takes 11 s, needs
        # nothing beside torch, and is all that static shapes need.
        warnings.simplefilter('ignore')
        torch.onnx.export(
            static,
            (pixels,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(names),
        )
    with path.open('ab') as file:
        # Messages of protobuf may be written one after another: lists in them are then joined.
        for key, value in (about or {}).items():
            file.write(_field(METADATA_FIELD, _field(1, key.encode()) + _field(2, value.encode())))


def _field(number: int, value: bytes) -> bytes:
    """Return a field of protobuf's wire format that holds bytes."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Return a number as protobuf writes it: seven bits a byte, the lowest first."""
    high = value >> 7
    return bytes([value & 127 | (128 if high else 0)]) + (_varint(high) if high else b'')
