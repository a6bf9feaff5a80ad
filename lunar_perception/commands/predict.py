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

"""`lunar-perception predict`: labels, depth and an overlay for images on disk."""

from argparse import Namespace
from collections import Counter
from pathlib import Path
import sys

import cv2
from lunar_perception.atomic import write_png
from lunar_perception.camera import PinholeCamera
from lunar_perception.commands import CommandError
from lunar_perception.data.pfm import write_pfm
from lunar_perception.inference.predictor import UnifiedPredictor
from lunar_perception.visualize import overlay_labels
import numpy as np
from tqdm import tqdm

IMAGE_SUFFIXES = {
    '.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp'
}  # fmt: skip


def run(arguments: Namespace) -> None:
    """Predict for an image or each image of a folder; CommandError if any could not be done."""
    images = find_images(arguments.images, arguments.output)
    try:
        predictor = UnifiedPredictor.from_pretrained(arguments.model)
    except ValueError as error:
        raise CommandError(error) from error
    fov = arguments.fov_deg

    unreadable = []
    for path in tqdm(images, unit='image', disable=len(images) == 1 or None):
        try:
            image = read_image(path)
        except (OSError, ValueError) as error:
            if len(images) == 1:
                raise CommandError(error) from error
            unreadable.append(path)
            tqdm.write(f'lunar-perception predict: {error}', file=sys.stderr)
            continue
        height, width = image.shape[:2]
        camera = None if fov is None else PinholeCamera.from_fov_deg(width, height, fov)
        prediction = predictor(image, camera)
        stem = arguments.output / path.stem
        write_png(f'{stem}_label.png', prediction.label)
        write_pfm(f'{stem}_depth.pfm', prediction.depth)
        write_png(f'{stem}_overlay.png', overlay_labels(image, prediction.label))
    if unreadable:
        raise CommandError(f'{len(unreadable)} of {len(images)} images could not be read')


def find_images(source: Path, output: Path) -> list[Path]:
    """
    Return the image `source`, or the images of the folder `source` in order of name.

    Raises CommandError when there is none, or when results would overwrite one another.
    """
    if not source.is_dir():
        if not source.exists():
            raise CommandError(f'{source} does not exist')
        return [source]
    if output.resolve() == source.resolve():
        raise CommandError(f'--output is the folder of the images, {source}; name another')
    files = (path for path in source.iterdir() if path.is_file())
    images = sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise CommandError(f'{source} has no images ({", ".join(sorted(IMAGE_SUFFIXES))})')
    stem, count = Counter(path.stem for path in images).most_common(1)[0]
    if count > 1:
        raise CommandError(f"{count} images in {source} are named '{stem}'; rename all but one")
    return images


def read_image(path: Path) -> np.ndarray:
    """
    Return the image (H, W, 3) uint8 RGB; grey is repeated, alpha left out, 16 bits scaled to 8.

    Raises OSError, or ValueError naming the file when it is not an image of 8 or 16 bits.
    """
    data = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # an empty file, or one that announces an absurd size
        image = None
    if image is None:
        raise ValueError(f'{path} can not be read as an image')
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        raise ValueError(f'{path} has {image.dtype} pixels; save it with 8 or 16 bits')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
