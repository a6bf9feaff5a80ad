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

"""`lunar-perception classify`: a table of what images of Mars show."""

from argparse import Namespace
import csv
import io

from lunar_perception.atomic import write_text
from lunar_perception.commands import CommandError
from lunar_perception.commands.images import find_images, ReadImages
from lunar_perception.inference.terrain import TerrainPredictor


def run(arguments: Namespace) -> None:
    """
    Write a row for each image; CommandError if any could not be done.

    The table has what could be read. Columns: filename, class, probability, then the probability
    of each class under its name.
    """
    if arguments.output.is_dir():
        raise CommandError(f'--output {arguments.output} is a folder; name a file')
    images = ReadImages('classify', find_images(arguments.images))
    try:
        predictor = TerrainPredictor.from_pretrained(arguments.model)
    except ValueError as error:
        raise CommandError(error) from error
    text = io.StringIO()
    table = csv.writer(text, lineterminator='\n')
    table.writerow(['filename', 'class', 'probability', *predictor.taxonomy.names])
    for path, image in images:
        prediction = predictor(image)
        numbers = (prediction.probability, *prediction.probabilities)
        table.writerow([path.name, prediction.class_name, *(f'{value:.6f}' for value in numbers)])
    write_text(arguments.output, text.getvalue())
    images.check()
