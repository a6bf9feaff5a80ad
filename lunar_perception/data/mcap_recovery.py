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
MCAP files that were cut off, as by a crash or a full disk (https://mcap.dev/spec).

An MCAP is a magic, then records of an opcode (uint8), a length (uint64) and content, then the
magic again. Without the end there is no index, but every record before is whole.
"""

from pathlib import Path
import struct
from typing import BinaryIO

MAGIC = b'\x89MCAP0\r\n'

_HEADER = struct.Struct('<BQ')
_FOOTER, _DATA_END = 0x02, 0x0F
_COPY_BYTES = 1 << 20


def is_cut_off(file: Path) -> bool:
    """Return whether a file begins as an MCAP and does not end as one."""
    with file.open('rb') as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            return False
        size = stream.seek(0, 2)
        stream.seek(max(size - len(MAGIC), 0))
        return size < 2 * len(MAGIC) or stream.read() != MAGIC


def copy_whole_records(source: Path, target: Path) -> None:
    """Copy an MCAP up to its last whole record of data, and close it with an empty summary."""
    with source.open('rb') as stream, target.open('xb') as copy:
        left = _end_of_data(stream)
        stream.seek(0)
        while left:
            block = stream.read(min(left, _COPY_BYTES))
            copy.write(block)
            left -= len(block)
        copy.write(_HEADER.pack(_DATA_END, 4) + bytes(4))
        copy.write(_HEADER.pack(_FOOTER, 20) + bytes(20) + MAGIC)


def _end_of_data(stream: BinaryIO) -> int:
    """Return where the last whole record before the summary ends, in bytes."""
    size = stream.seek(0, 2)
    end = len(MAGIC)
    while end + _HEADER.size <= size:
        stream.seek(end)
        opcode, length = _HEADER.unpack(stream.read(_HEADER.size))
        if opcode in (_DATA_END, _FOOTER) or end + _HEADER.size + length > size:
            break
        end += _HEADER.size + length
    return end
