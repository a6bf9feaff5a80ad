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

"""Periodic fractal noise: heights on a grid of lines, slopes at scattered points."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

TEXELS = 1024


@dataclass(frozen=True)
class FractalNoise:
    """
    A periodic, band-limited, self-affine random surface of unit root mean square.

    Its power spectrum falls as wavelength^(2 · hurst + 2) between the shortest and longest
    wavelength, the law of lunar relief at rover scale (Rosenburg et al. 2011,
    doi:10.1029/2010JE003716). It repeats every `period` metres, which nobody sees as long as
    the longest wavelength is far shorter.

    Fields:
        seed: what the surface is drawn from.
        texel: metres between samples.
        shortest, longest: wavelengths in metres.
        hurst: 1 gives rolling hills, 0 gives grit.

    """

    seed: tuple[int, ...]
    texel: float
    shortest: float
    longest: float
    hurst: float = 0.85

    @property
    def period(self) -> float:
        """Metres after which the surface repeats."""
        return TEXELS * self.texel

    @cached_property
    def texture(self) -> np.ndarray:
        """Return samples of one period, (1024, 1024) float32."""
        fy = np.fft.fftfreq(TEXELS, self.texel)[:, None]
        fx = np.fft.rfftfreq(TEXELS, self.texel)[None, :]
        frequency = np.hypot(fx, fy)
        band = (frequency >= 1 / self.longest) & (frequency <= 1 / self.shortest)
        amplitude = np.zeros_like(frequency)
        amplitude[band] = frequency[band] ** -(self.hurst + 1)
        rng = np.random.default_rng(self.seed)
        spectrum = np.fft.rfft2(rng.standard_normal((TEXELS, TEXELS))) * amplitude
        surface = np.fft.irfft2(spectrum, s=(TEXELS, TEXELS))
        return (surface / surface.std()).astype(np.float32)

    @cached_property
    def _slopes_and_height(self) -> np.ndarray:
        """Slopes ∂h/∂x, ∂h/∂y and h of one period at unit height, (1024, 1024, 3) float32."""
        h = self.texture
        dx = (np.roll(h, -1, 1) - np.roll(h, 1, 1)) / (2 * self.texel)
        dy = (np.roll(h, -1, 0) - np.roll(h, 1, 0)) / (2 * self.texel)
        return np.stack([dx, dy, h], axis=-1)

    def on_lines(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return heights where lines x (W,) and y (H,) in metres cross, (H, W) float32."""
        left, across = _cells(x / self.texel)
        top, down = _cells(y / self.texel)
        rows = _lerp(self.texture[top % TEXELS], self.texture[(top + 1) % TEXELS], down[:, None])
        return _lerp(rows[:, left % TEXELS], rows[:, (left + 1) % TEXELS], across)

    def slopes_and_height_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return ∂h/∂x, ∂h/∂y and h, (N, 3) float32, at points x, y (N,) metres."""
        return self._sample(self._slopes_and_height, x, y)

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return heights (N,) float32 at points x, y (N,) metres."""
        return self._sample(self.texture, x, y)

    def _sample(self, texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return sample(texture, _within_period(x / self.texel), _within_period(y / self.texel))


def periodic_profile(
    rng: np.random.Generator, angles: np.ndarray, harmonics: int, hurst: float = 0.7
) -> np.ndarray:
    """Return smooth random values of about unit root mean square, of `angles` (any shape)."""
    values = np.zeros(np.shape(angles), np.float64)
    for k in range(1, harmonics + 1):
        a, b = rng.standard_normal(2) * k ** -(hurst + 0.5)
        values += a * np.cos(k * angles) + b * np.sin(k * angles)
    return values


def _cells(coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    floor = np.floor(coordinates)
    return floor.astype(np.int64), (coordinates - floor).astype(np.float32)


def _lerp(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return a + (b - a) * weight


def sample(texture: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return a texture (H, W, …) float32 between its texels at places (N,), (N, …)."""
    count = len(column)
    if count == 0:
        return np.zeros((0, *texture.shape[2:]), np.float32)
    # OpenCV takes maps of at most 32767 columns and rows, so the points stand in rows of 1024.
    maps = np.zeros((2, -(-count // 1024) * 1024), np.float32)
    maps[0, :count], maps[1, :count] = column, row
    columns, rows = maps.reshape(2, -1, 1024)
    sampled = cv2.remap(texture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return sampled.reshape(-1, *texture.shape[2:])[:count]


def _within_period(texels: np.ndarray) -> np.ndarray:
    # OpenCV wraps inaccurately far out.
    return texels - np.floor(texels * (1 / TEXELS)) * TEXELS
