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

"""Checking configurations, and reading them from JSON's types with clear refusals."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from math import isfinite
from typing import TypeVar

Config = TypeVar('Config')


def build(cls: type[Config], values: object) -> Config:
    """
    Return the dataclass `cls` from a mapping read from JSON.

    Raises ValueError for an unknown key, naming the one that may be meant, or a bad value.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f'{cls.__name__} needs keys and values, not {values!r}')
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f'known are {", ".join(known)}'
            raise ValueError(f"{cls.__name__} has no '{key}'; {hint}")
    return cls(**values)


def require_positive(config: object, *names: str) -> None:
    """Raise ValueError unless each named attribute is a finite number above zero."""
    for name in names:
        value = getattr(config, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and isfinite(value) and value > 0):
            raise ValueError(f'{name} = {value!r} must be a positive number')


def require_counts(config: object, *names: str, least: int = 1) -> None:
    """Raise ValueError unless each named attribute is an integer of at least `least`."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f'{name} = {value!r} must be an integer of at least {least}')


def freeze_counts(config: object, *names: str) -> None:
    """Turn each named sequence (JSON's lists) into a tuple of integers; ValueError if not one."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, list | tuple) or not all(
            isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
        ):
            raise ValueError(f'{name} = {value!r} must be a list of integers')
        object.__setattr__(config, name, tuple(value))
