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

"""From surfaces and sun to pixels: reflectance, light, and the camera's response."""

from dataclasses import dataclass

import cv2
import numpy as np

GAMMA, SHOULDER, WHITE = 2.2, 1.4, 250.0
"""The camera's response: display gamma, how soon it saturates, the value it never exceeds."""


@dataclass(frozen=True)
class Look:
    """
    How a scene is lit and how its camera responds; drawn once a scene.

    Fields:
        sun: unit vector towards the sun, world frame (x, y, z up).
        ambient: light that reaches a shadow, as a share of the sun's.
        lunar_lambert: weight of Lommel-Seeliger against Lambert reflectance in [0, 1].
        albedo: relative, of regolith, crater floors, rocks, mountains.
        mottling: how much darker hollows are, a standard deviation of relief in log albedo.
        exposure: what lit flat regolith comes to before the response curve.
        black: pixel value of no light; LuSNAR's sky is 22.
        contrast: steepness of the response; 1 is the sRGB curve's.
        tint: relative gain of red, green, blue.
        blur: standard deviation of the lens blur in pixels of a 1024-pixel image.
        grain: standard deviation of the noise in pixel values.
        glare: veiling light across the image, on exposure's scale; most scenes have none.

    """

    sun: np.ndarray
    ambient: float
    lunar_lambert: float
    albedo: tuple[float, float, float, float]
    mottling: float
    exposure: float
    black: float
    contrast: float
    tint: tuple[float, float, float]
    blur: float
    grain: float
    glare: float


def draw_look(rng: np.random.Generator, sun_anywhere: bool = False) -> Look:
    """
    Draw the light and the camera's response of one scene.

    The sun stands mostly behind the rover, or with `sun_anywhere` on any side alike.
    """
    elevation = np.radians(np.exp(rng.uniform(np.log(10), np.log(48))))
    # As in LuSNAR's frames, where the rover's shadow lies ahead of it.
    azimuth = np.pi + rng.normal(0, np.radians(55))
    if sun_anywhere:
        azimuth = rng.uniform(-np.pi, np.pi)
    black = 22.0 if rng.random() < 0.6 else float(rng.uniform(0, 30))
    contrast = float(rng.uniform(1.3, 1.75))
    grey = (rng.uniform(100, 165) - black) / (WHITE - black)
    return Look(
        sun=np.array(
            [
                np.cos(elevation) * np.cos(azimuth),
                np.cos(elevation) * np.sin(azimuth),
                np.sin(elevation),
            ]
        ),
        ambient=float(np.exp(rng.uniform(np.log(0.0005), np.log(0.01)))),
        lunar_lambert=float(rng.uniform(0.0, 0.5)),
        albedo=(
            1.0,
            float(rng.uniform(1.6, 2.6)),
            float(rng.uniform(2.4, 4.2)),
            float(rng.uniform(1.6, 3.2)),
        ),
        mottling=float(rng.uniform(0.14, 0.28)),
        exposure=float(-np.log(1 - grey ** (GAMMA / contrast)) / SHOULDER),
        black=black,
        contrast=contrast,
        tint=(1.0, float(rng.uniform(0.97, 1.01)), float(rng.uniform(0.97, 1.04))),
        blur=float(rng.uniform(0.5, 1.2)),
        grain=float(rng.uniform(0.3, 2.0)),
        glare=float(rng.uniform(0.0, 0.01)) if rng.random() < 0.2 else 0.0,
    )


def relief_for(sun: np.ndarray) -> float:
    """
    Return by how much relief is to be higher for its shading to stand out as in LuSNAR's frames.

    There it does so under any light: more is needed under a high `sun` (3,), and under one that
    stands behind the camera or before it, less where it grazes from the side.
    """
    across, along = abs(sun[1]), np.hypot(sun[0], sun[1])
    steepness = sun[2] / along
    height = np.sqrt(steepness / np.tan(np.radians(16))) * (1.35 - 0.6 * across / along)
    return float(np.clip(height, 0.75, 1.2))


def reflectance(incidence: np.ndarray, emission: np.ndarray, lunar_lambert: float) -> np.ndarray:
    """
    Return how much is reflected, (N,): Lunar-Lambert (McEwen 1991).

    L · 2 μ0 / (μ0 + μ) + (1 − L) · μ0 with μ0, μ the cosines (N,) of incidence and emission.
    """
    incidence = np.clip(incidence, 0, None)
    lommel_seeliger = 2 * incidence / (incidence + np.clip(emission, 0.02, None))
    return lunar_lambert * lommel_seeliger + (1 - lunar_lambert) * incidence


def expose(radiance: np.ndarray, look: Look, pixels: int, grain: np.ndarray) -> np.ndarray:
    """
    Turn radiance (H, W) float32 into an image (H, W, 3) uint8 RGB.

    Flat lit regolith has radiance 1; `grain` (H, W) float32 is unit noise. Blur, exposure, a
    soft shoulder that saturates slowly, display gamma, black level, tint, noise.
    """
    blur = look.blur * pixels / 1024
    if blur > 0.2:
        radiance = cv2.GaussianBlur(radiance, (0, 0), blur)
    light = look.exposure * radiance + look.glare
    value = (1 - np.exp(-SHOULDER * light)) ** (look.contrast / GAMMA)
    value = (WHITE - look.black) * value + look.grain * grain
    image = np.empty((*value.shape, 3), np.uint8)
    for channel, tint in enumerate(look.tint):
        image[..., channel] = np.clip(np.rint(value * tint + look.black), 0, 255)
    return image
