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

"""Types of the command line's arguments; a bad value is refused with its reason."""

from argparse import ArgumentTypeError
from math import inf


def whole_number(text: str, *, at_least: int) -> int:
    """Parse a whole number not under `at_least`."""
    try:
        number = int(text)
    except ValueError:
        raise ArgumentTypeError(f"'{text}' is not a whole number") from None
    if number < at_least:
        raise ArgumentTypeError(f'{number} is too small: at least {at_least}')
    return number


def seconds(text: str) -> float:
    """Parse a finite time in seconds, not under 0."""
    value = _number(text, 'a number of seconds')
    if not 0 <= value < inf:
        raise ArgumentTypeError(f'{text} must be a time of 0 or more seconds')
    return value


def interval(text: str) -> float:
    """Parse a finite time in seconds, more than 0."""
    value = _number(text, 'a number of seconds')
    if not 0 < value < inf:
        raise ArgumentTypeError(f'{text} s must be more than 0 s')
    return value


def playback_rate(text: str) -> float:
    """Parse a factor of speed."""
    rate = _number(text, 'a number')
    if not 0 < rate < inf:
        raise ArgumentTypeError(f'the rate {text} must be more than 0')
    return rate


def relief(text: str) -> float:
    """Parse a factor of the small relief's height."""
    factor = _number(text, 'a number')
    if not 0 < factor < inf:
        raise ArgumentTypeError(f'the relief {text} must be more than 0')
    return factor


def field_of_view(text: str) -> float:
    """Parse a horizontal field of view in degrees."""
    degrees = _number(text, 'a number of degrees')
    if not 0 < degrees < 180:
        raise ArgumentTypeError(f'{text}° must lie between 0° and 180°')
    return degrees


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"'{text}' is not {name}") from None
