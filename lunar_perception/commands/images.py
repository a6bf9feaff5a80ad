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

"""Images on disk, as the commands take them: one, or those of a folder."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
import sys

from lunar_perception.commands import CommandError
from lunar_perception.data.image_file import read_image
import numpy as np
from tqdm import tqdm

IMAGE_SUFFIXES = {
    '.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp'
}  # fmt: skip


class ReadImages:
    """
    Iterates over (path, image) of those images that can be read; `command` names the others.

    Images are (H, W, 3) uint8 RGB. Of a single one that can not be read, CommandError says why;
    of several, each is named on stderr, and `check` raises CommandError in the end.
    """

    def __init__(self, command: str, paths: list[Path]) -> None:
        self._command = command
        self._paths = paths
        self._unreadable = 0

    def __iter__(self) -> Iterator[tuple[Path, np.ndarray]]:
        alone = len(self._paths) == 1
        for path in tqdm(self._paths, unit='image', disable=alone or None):
            try:
                image = read_image(path)
            except (OSError, ValueError) as error:
                if alone:
                    raise CommandError(error) from error
                self._unreadable += 1
                tqdm.write(f'lunar-perception {self._command}: {error}', file=sys.stderr)
                continue
            yield path, image

    def check(self) -> None:
        """Raise CommandError if some could not be read."""
        if self._unreadable:
            raise CommandError(
                f'{self._unreadable} of {len(self._paths)} images could not be read'
            )


def find_images(source: Path) -> list[Path]:
    """
    Return the image `source`, or the images of the folder `source` in order of name.

    Raises CommandError when there is none.
    """
    if not source.is_dir():
        if not source.exists():
            raise CommandError(f'{source} does not exist')
        return [source]
    files = (path for path in source.iterdir() if path.is_file())
    images = sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise CommandError(f'{source} has no images ({", ".join(sorted(IMAGE_SUFFIXES))})')
    return images


def check_output_folder(source: Path, images: list[Path], output: Path) -> None:
    """Raise CommandError when results named by their images' stems would overwrite something."""
    if source.is_dir() and output.resolve() == source.resolve():
        raise CommandError(f'--output is the folder of the images, {source}; name another')
    stem, count = Counter(path.stem for path in images).most_common(1)[0]
    if count > 1:
        raise CommandError(f"{count} images in {source} are named '{stem}'; rename all but one")
