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

"""Where compiled and exported networks are kept: files named by what they were made of."""

from collections.abc import Callable, Iterable
import hashlib
import os
from pathlib import Path

from lunar_perception import models
from lunar_perception.atomic import atomic_path
import torch
from torch import nn

KEPT_BYTES = 4 * 2**30
"""Above this size, the files that were used longest ago are deleted."""

FORMAT = '1'
"""Changed when files made by an earlier version must not be used any more."""


def cache_folder() -> Path:
    """Return `lunar_perception` in the user's cache directory ($XDG_CACHE_HOME or ~/.cache)."""
    base = os.environ.get('XDG_CACHE_HOME', '')
    # The XDG specification has relative paths ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / '.cache'
    return root / 'lunar_perception'


def fingerprint(network: nn.Module, *details: object) -> str:
    """
    Return a name for what is made of a network: hex digits.

    It differs whenever weights, architecture, configuration, this package's code for networks,
    torch's version or `details` do.
    """
    digest = hashlib.sha256(FORMAT.encode())
    for path in sorted((*Path(models.__file__).parent.glob('*.py'), *_here().glob('*.py'))):
        digest.update(path.read_bytes())
    config = getattr(network, 'config', None)
    for detail in (torch.__version__, repr(config), repr(network), *details):
        digest.update(f'{detail}\0'.encode())
    for name, value in network.state_dict().items():
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}\0'.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def _here() -> Path:
    return Path(__file__).resolve().parent


def cached(name: str, make: Callable[[Path], object]) -> Path:
    """
    Return the cached file `name`; `make` writes it to a path first, if it is not there yet.

    It appears whole or not at all. Raises OSError when the folder can not be written.
    """
    folder = cache_folder()
    path = folder / name
    if path.is_file():
        os.utime(path)  # used of late
        return path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with atomic_path(path) as temporary:
        make(temporary)
    _tidy(folder.glob('*.*'), keep=path)
    return path


def _tidy(paths: Iterable[Path], keep: Path) -> None:
    """Delete files, longest unused first, until `KEPT_BYTES` hold the rest."""
    found = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:  # another process tidies too
            continue
        if path.is_file() and path != keep:
            found.append((status.st_mtime, status.st_size, path))
    total = keep.stat().st_size + sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= KEPT_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= size
