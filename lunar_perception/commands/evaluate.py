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

"""`lunar-perception evaluate`: the network held against a data set or a bag, without ROS."""

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from lunar_perception.camera import PinholeCamera
from lunar_perception.commands import CommandError
from lunar_perception.data.bag_reader import BagError, BagReader, is_bag
from lunar_perception.data.bags import LusnarBag
from lunar_perception.data.lusnar import LusnarDataset, LusnarError
from lunar_perception.data.lusnar_format import Mounting
from lunar_perception.inference.predictor import UnifiedPredictor
from lunar_perception.reference_rows import PositionPrior
from lunar_perception.report import write_results
from lunar_perception.scoreboard import Scoreboard
import numpy as np
from tqdm import tqdm


class TrueFrame(Protocol):
    """An image and its truth, from a scene or from a bag."""

    @property
    def stamp_ns(self) -> int:
        """Unix nanoseconds."""

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""

    @property
    def camera(self) -> PinholeCamera:
        """The camera that took the image."""

    @property
    def depth(self) -> np.ndarray:
        """(H, W) float32 metres, +Inf for sky."""

    @property
    def label(self) -> np.ndarray:
        """(H, W) uint8 ids."""


class Source(NamedTuple):
    """
    Frames to evaluate.

    frames: each with what it is called and how its camera is mounted; total: their number, if
    known; missing: what kept frames from being scored, known once the frames have been gone
    through (None: does not apply).
    """

    frames: Iterator[tuple[str, TrueFrame, Mounting | None]]
    total: int | None
    missing: Mapping[int, Sequence[str]] | None


def run(arguments: Namespace) -> None:
    """
    Write metrics.json and report.html.

    CommandError when a frame can not be read; what came before is scored all the same, and the
    results are marked as partial.
    """
    try:
        # In fp32 the figures are the same whichever backend this processor is fastest with.
        predictor = UnifiedPredictor.from_pretrained(arguments.model, precision='fp32')
    except ValueError as error:
        raise CommandError(error) from error
    scoreboard = Scoreboard(PositionPrior.shipped())
    try:
        with open_source(arguments.source, arguments.scenes) as source:
            stopped = score(scoreboard, predictor, source)
            missing = source.missing
    except (BagError, LusnarError) as error:
        raise CommandError(error) from error
    if not scoreboard.network.frames:
        raise CommandError(stopped or f'{arguments.source} has no frame to score')
    metrics = write_results(
        arguments.output,
        scoreboard,
        title='Evaluation',
        data=f'{scoreboard.network.frames}, of {arguments.source}',
        model=arguments.model or 'the rover weights that ship with the package',
        missing=missing,
        partial=None if stopped is None else str(stopped) or 'interrupted',
    )
    if isinstance(stopped, KeyboardInterrupt):
        raise stopped
    if stopped is not None:
        raise CommandError(
            f'{stopped}; {metrics["frames"]} frames were scored, {arguments.output} says partial'
        )
    if missing:
        raise CommandError(
            f'{len(missing)} frames lack an image or truth; '
            f'{arguments.output / "metrics.json"} names them'
        )
    print(f'{metrics["frames"]} frames; look at {arguments.output / "report.html"}')


def score(
    scoreboard: Scoreboard, predictor: UnifiedPredictor, source: Source
) -> BaseException | None:
    """Predict and score frame by frame; return what ended it early."""
    mounted: Mounting | None = None
    try:
        for name, frame, mounting in tqdm(
            source.frames, total=source.total, unit='frame', disable=None
        ):
            if mounting is not None and mounting != mounted:
                scoreboard.mount_camera(mounting.height, mounting.pitch_deg)
                mounted = mounting
            prediction = predictor(frame.image, frame.camera)
            scoreboard.add(
                name,
                frame.image,
                frame.camera,
                label=prediction.label,
                confidence=prediction.confidence,
                depth=prediction.depth,
                uncertainty=prediction.uncertainty,
                truth_label=frame.label,
                truth_depth=frame.depth,
            )
    except (BagError, LusnarError, KeyboardInterrupt) as error:
        return error
    return None


@contextmanager
def open_source(path: Path, scenes: Sequence[str] | None) -> Iterator[Source]:
    """Open a data set, a scene or a bag; BagError or LusnarError when it is none."""
    if not is_bag(path):
        dataset = LusnarDataset(path, scenes)
        yield Source(dataset_frames(dataset), sum(map(len, dataset)), None)
        return
    if scenes is not None:
        raise CommandError('--scenes chooses from a data set; a bag is one scene')
    with BagReader(path) as reader:
        bag = LusnarBag(reader)
        missing: dict[int, tuple[str, ...]] = {}

        def frames() -> Iterator[tuple[str, TrueFrame, Mounting | None]]:
            mounting = bag.mounting()
            try:
                with closing(bag.frames()) as found:
                    for frame in found:
                        yield str(frame.stamp_ns), frame, mounting
            finally:
                missing.update(bag.missing)

        yield Source(frames(), None, missing)


def dataset_frames(dataset: LusnarDataset) -> Iterator[tuple[str, TrueFrame, Mounting | None]]:
    """Yield the frames of all scenes."""
    for scene in dataset:
        for frame in scene:
            yield f'{scene.name} {frame.stamp_ns}', frame, scene.mounting
