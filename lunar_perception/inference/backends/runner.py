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

"""A network behind the backend that was chosen: one checked session a size of image."""

from collections.abc import Callable
from functools import cached_property
import logging
from typing import NamedTuple

from lunar_perception.inference.backends.agreement import (
    BackendRefusedError,
    check_agreement,
    test_picture,
)
from lunar_perception.inference.backends.cache import cache_folder, cached, fingerprint
from lunar_perception.inference.backends.pixel_network import PixelNetwork
from lunar_perception.inference.backends.registry import (
    AUTO_ORDER,
    BackendError,
    BACKENDS,
    CHOICES,
    Job,
    OWN_GATE,
    ROUNDS,
    Session,
)
import numpy as np
from safetensors.torch import load_file, save_file
import torch
from torch import nn, Tensor

MOST_SESSIONS = 4
"""Sizes of image that get a session of their own; torch runs further ones."""

_log = logging.getLogger(__name__)


class Reference(NamedTuple):
    """What torch says of the test picture of one size."""

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]


class NetworkRunner:
    """
    Runs a network on images with the backend of the user's choice.

    The network may be any module of ImageNet-normalised images (1, 3, H, W) that returns a
    tensor or a NamedTuple of tensors and None. For every new size of image the backend makes a
    session, which must agree with torch on a test picture. For one thread at a time.

    Fields:
        network: the network, in evaluation, on `device`.
        device, precision: where and in which type it computes.
        backend: what runs it: one of BACKENDS, or 'auto' as long as nothing was run.
        refusals: why backends that were tried are not used, by name.
        agreement: the figures of the last check against torch; empty for torch itself.

    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        backend: str = 'auto',
        may_round: bool = False,
    ) -> None:
        """
        Take a network onto a device.

        `backend` is one of BACKENDS, or 'auto': the first of AUTO_ORDER that can be used and
        agrees with torch, without ROUNDS unless it `may_round`. Raises ValueError for any other.
        """
        if backend not in CHOICES:
            raise ValueError(f"unknown backend '{backend}'; choose {', '.join(CHOICES)}")
        self.network = network.to(device).eval()
        self.device = device
        self.precision = precision
        self.backend = backend
        self.refusals: dict[str, str] = {}
        self.agreement = ''
        self._pixel_network = PixelNetwork(self.network, precision)
        self._candidates = [backend]
        if backend == 'auto':
            order = AUTO_ORDER[device.type]
            self._candidates = [name for name in order if may_round or name not in ROUNDS]
        self._sessions: dict[tuple[int, int], Session] = {}

    def __call__(self, image: np.ndarray) -> tuple[Tensor, ...]:
        """
        Return the network's tensors, float32, without what it leaves None.

        `image` is (H, W, 3) uint8 RGB, contiguous and writable, of a size that the network takes.
        On CUDA the result may still be under way when this returns. Raises BackendError or
        BackendRefusedError when the chosen backend can not be used for this size.
        """
        session = self._session(image.shape[0], image.shape[1])
        with torch.inference_mode():
            return session(self._on_device(image))

    def prepare(self, height: int, width: int) -> None:
        """Make the session for images of height × width; raises as a call."""
        self._session(height, width)

    def _on_device(self, image: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(image)[None]
        if self.device.type == 'cuda':
            # From pinned memory the copy runs beside what the CPU does next.
            return pixels.pin_memory().to(self.device, non_blocking=True)
        return pixels

    def _session(self, height: int, width: int) -> Session:
        size = (height, width)
        session = self._sessions.get(size)
        if session is None:
            if len(self._sessions) >= MOST_SESSIONS:
                return self._pixel_network
            session = self._sessions[size] = self._open(size)
        return session

    def _open(self, size: tuple[int, int]) -> Session:
        """Return a session of the first candidate that can be used; the others are let go."""
        while True:
            name = self._candidates[0]
            if name == 'torch':
                self.backend = name
                return self._pixel_network
            try:
                session = self._open_checked(name, size)
            except (BackendError, BackendRefusedError) as error:
                if len(self._candidates) == 1:
                    raise type(error)(f"backend '{name}' can not be used: {error}") from error
                self.refusals[name] = str(error)
                # Not to be installed is no fault, nor is a network that does not bear rounding.
                expected = isinstance(error, BackendError) or name in ROUNDS
                level = logging.INFO if expected else logging.WARNING
                _log.log(level, "backend '%s' is not used: %s", name, error)
                self._candidates.pop(0)
            else:
                self.backend = name
                return session

    def _open_checked(self, name: str, size: tuple[int, int]) -> Session:
        try:
            reference = self._reference(size)
            job = Job(self._pixel_network, reference.names, size, self._key(size))
            session = self._open_anew_if_damaged(lambda: BACKENDS[name](job), job)
            if name in OWN_GATE:
                self.agreement = session.figures  # type: ignore[attr-defined]
                return session
            with torch.inference_mode():
                outputs = session(self._on_device(test_picture(*size)))
        except (BackendError, BackendRefusedError):
            raise
        except Exception as error:  # of any library's own type
            reason = str(error).strip().partition('\n')[0]
            raise BackendRefusedError(f'{type(error).__name__}: {reason}') from error
        self.agreement = check_agreement(reference.names, reference.tensors, outputs)
        _log.info("backend '%s' at %d×%d: %s", name, *size[::-1], self.agreement)
        return session

    def _open_anew_if_damaged(self, open_session: Callable[[], Session], job: Job) -> Session:
        """Open a session; when that fails with what is cached, once more without it."""
        files = cache_folder().glob(f'{job.key}*')
        kept = [file for file in files if file.suffix in ('.onnx', '.openvino')]
        try:
            return open_session()
        except (BackendError, BackendRefusedError):
            raise
        except Exception:
            if not kept:
                raise
            for path in kept:
                path.unlink(missing_ok=True)
            return open_session()

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.network, self.precision, self.device.type)

    def _key(self, size: tuple[int, int]) -> str:
        return f'{self._fingerprint}-{size[1]}x{size[0]}'

    def _reference(self, size: tuple[int, int]) -> Reference:
        """Return what torch says of the test picture; kept on disk, for the next start."""

        def compute(path: object) -> None:
            pixels = self._on_device(test_picture(*size))
            with torch.inference_mode():
                tensors = self._pixel_network(pixels)
            names = self._pixel_network.names
            save_file(
                {
                    f'{i} {name}': x.cpu().contiguous()
                    for i, (name, x) in enumerate(zip(names, tensors, strict=True))
                },
                str(path),
            )

        kept = load_file(cached(f'{self._key(size)}.safetensors', compute))
        names, tensors = zip(*sorted(kept.items()), strict=True)
        return Reference(tuple(name.split(' ', 1)[1] for name in names), tensors)
