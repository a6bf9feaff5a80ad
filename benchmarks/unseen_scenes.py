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

"""
Score a network on generated scenes of a seed that it never learnt from, cameras varied.

    python -m benchmarks.unseen_scenes FOLDER [--seed S] [--scenes N] [--frames N] [--model M]
        [--output JSON]

The scenes are generated into FOLDER, or taken from there. Odd ones have LuSNAR's camera, even
ones a drawn one.
"""

from argparse import ArgumentParser
from pathlib import Path
import sys

from benchmarks.record import write_record
from lunar_perception import UnifiedPredictor
from lunar_perception.cli import main as lunar_perception
from lunar_perception.commands.evaluate import dataset_frames, score, Source
from lunar_perception.data.lusnar import LusnarDataset
from lunar_perception.reference_rows import PositionPrior
from lunar_perception.scoreboard import Scoreboard


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--seed', type=int, default=2026)
    parser.add_argument('--scenes', type=int, default=16, help='two or more (%(default)s)')
    parser.add_argument('--frames', type=int, default=4, help='of each scene (%(default)s)')
    parser.add_argument('--size', type=int, default=512, help='side in pixels (%(default)s)')
    parser.add_argument('--model', help="checkpoint folder; without it, the package's weights")
    parser.add_argument('--output', type=Path, help='where the figures go, as JSON')
    arguments = parser.parse_args()

    options = ('seed', 'scenes', 'frames', 'size')
    settings = [word for o in options for word in (f'--{o}', str(getattr(arguments, o)))]
    camera = ['--vary-camera', '--frame-interval', '0.9', '--resume']
    status = lunar_perception(['synth', '--output', str(arguments.folder), *settings, *camera])
    if status:
        sys.exit(status)

    predictor = UnifiedPredictor.from_pretrained(arguments.model, precision='fp32')
    names = [f'Moon_{number}' for number in range(1, arguments.scenes + 1)]
    whole, results = Scoreboard(), {}
    for kind, chosen in (('lusnar_camera', names[::2]), ('drawn_cameras', names[1::2])):
        board = Scoreboard(PositionPrior.shipped())
        dataset = LusnarDataset(arguments.folder, chosen)
        total = sum(map(len, dataset))
        stopped = score(board, predictor, Source(dataset_frames(dataset), total, None))
        if stopped is not None:
            sys.exit(str(stopped))
        for row in ('network', 'position_prior', 'flat_plane'):
            getattr(whole, row).merge(getattr(board, row))
        results[kind] = board.to_dict()
    results = {'all': whole.to_dict(), **results}
    for kind, figures in results.items():
        print(kind, {key: figures[key] for key in ('miou', 'iou', 'abs_rel', 'delta1', 'ece')})
    if arguments.output:
        write_record(arguments.output, results)


if __name__ == '__main__':
    main()
