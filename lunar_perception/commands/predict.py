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

from lunar_perception.atomic import write_png
from lunar_perception.camera import PinholeCamera
from lunar_perception.commands import CommandError
from lunar_perception.commands.images import check_output_folder, find_images, ReadImages
from lunar_perception.data.pfm import write_pfm
from lunar_perception.inference.predictor import UnifiedPredictor
from lunar_perception.visualize import overlay_labels


def run(arguments: Namespace) -> None:
    """Predict for an image or each image of a folder; CommandError if any could not be done."""
    paths = find_images(arguments.images)
    check_output_folder(arguments.images, paths, arguments.output)
    try:
        predictor = UnifiedPredictor.from_pretrained(arguments.model)
    except ValueError as error:
        raise CommandError(error) from error
    fov = arguments.fov_deg

    images = ReadImages('predict', paths)
    for path, image in images:
        height, width = image.shape[:2]
        camera = None if fov is None else PinholeCamera.from_fov_deg(width, height, fov)
        prediction = predictor(image, camera)
        stem = arguments.output / path.stem
        write_png(f'{stem}_label.png', prediction.label)
        write_pfm(f'{stem}_depth.pfm', prediction.depth)
        write_png(f'{stem}_overlay.png', overlay_labels(image, prediction.label))
    images.check()
