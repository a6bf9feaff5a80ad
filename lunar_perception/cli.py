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

"""The `lunar-perception` command: arguments, exit status and one-line errors."""

from argparse import ArgumentParser
from collections.abc import Sequence
from functools import partial
from importlib import import_module
import os
from pathlib import Path
import signal
import sys

from lunar_perception.commands import CommandError
from lunar_perception.commands.arguments import (
    field_of_view,
    interval,
    playback_rate,
    relief,
    seconds,
    whole_number,
)

INTERRUPTED = 130
TERMINATED = 143


def parser() -> ArgumentParser:
    """Return the parser of the whole command; it imports nothing that is slow."""
    count = partial(whole_number, at_least=1)
    root = ArgumentParser(
        prog='lunar-perception',
        description='Terrain labels and metric depth from a rover camera.',
    )
    commands = root.add_subparsers(dest='command', required=True, metavar='COMMAND')

    def add(name: str, summary: str) -> ArgumentParser:
        description = summary[0].upper() + summary[1:] + '.'
        return commands.add_parser(name, help=summary, description=description)

    def add_images(command: ArgumentParser) -> None:
        command.add_argument(
            'images', type=Path, metavar='IMAGE|DIR', help='an image, or a folder of images'
        )

    def add_model(command: ArgumentParser) -> None:
        command.add_argument(
            '--model',
            metavar='M',
            help='checkpoint folder or hub id; without it, the shipped weights',
        )

    demo = add('demo', 'a rover drives over a generated Moon and the real ROS 2 node perceives it')
    demo.add_argument(
        '--frames', type=count, default=24, metavar='N', help='frames of the drive (%(default)s)'
    )
    demo.add_argument(
        '--output',
        type=Path,
        default=Path('out'),
        metavar='DIR',
        help='where report.html, metrics.json, pictures and the scene go (%(default)s)',
    )

    synth = add('synth', "generate scenes of a procedural Moon in LuSNAR's layout")
    synth.add_argument(
        '--output', type=Path, required=True, metavar='DIR', help='where Moon_1, Moon_2, … go'
    )
    synth.add_argument(
        '--vary-camera',
        action='store_true',
        help='every second scene gets a camera of other height, tilt and field of view',
    )
    synth.add_argument(
        '--level',
        action='store_true',
        help='level ground without craters: rocks alone are hazards, all else is a false alarm',
    )
    synth.add_argument(
        '--relief',
        type=relief,
        default=1.0,
        metavar='F',
        help='factor of the height of small relief; above 1, slopes are steep (%(default)s)',
    )
    synth.add_argument(
        '--boulder',
        action='store_true',
        help='a boulder close ahead of where the drive ends, and the sun on any side',
    )
    drive = synth.add_mutually_exclusive_group()
    drive.add_argument(
        '--frame-interval',
        type=interval,
        default=0.108,
        metavar='S',
        help='seconds between frames, at 2 m/s (%(default)s)',
    )
    drive.add_argument(
        '--trajectory',
        type=Path,
        metavar='CSV',
        help='drive this way, at its stamps: timestamp,x,y,z,qw,qx,qy,qz; heights follow the '
        'generated ground',
    )
    synth.add_argument(
        '--scenes', type=count, default=1, metavar='N', help='number of scenes (%(default)s)'
    )
    synth.add_argument(
        '--frames', type=count, default=100, metavar='N', help='frames of each scene (%(default)s)'
    )
    synth.add_argument(
        '--size',
        type=partial(whole_number, at_least=32),
        default=1024,
        metavar='PX',
        help="side of the square images; the camera is LuSNAR's, scaled (%(default)s)",
    )
    synth.add_argument(
        '--seed',
        type=partial(whole_number, at_least=0),
        default=0,
        metavar='S',
        help='another seed, another Moon; the same seed, the same bytes (%(default)s)',
    )
    synth.add_argument(
        '--workers', type=count, default=1, metavar='N', help='processes (%(default)s)'
    )
    synth.add_argument(
        '--resume', action='store_true', help='keep what an interrupted run has finished'
    )

    check = add('check', 'tell whether a folder is a sound LuSNAR scene or data set')
    check.add_argument('directory', type=Path, metavar='DIR', help='a scene or a data set')

    predict = add('predict', 'label images and measure their depth')
    add_images(predict)
    predict.add_argument(
        '--output',
        type=Path,
        required=True,
        metavar='DIR',
        help='where <stem>_label.png, <stem>_depth.pfm and <stem>_overlay.png go',
    )
    add_model(predict)
    predict.add_argument(
        '--fov-deg',
        type=field_of_view,
        metavar='F',
        help="the camera's horizontal field of view in degrees; without it, LuSNAR's 80°",
    )

    evaluate = add('evaluate', 'hold the network against the truth of a data set or a bag')
    evaluate.add_argument(
        'source', type=Path, metavar='DATASET|BAG', help='LuSNAR scenes, one scene, or a bag'
    )
    evaluate.add_argument(
        '--output',
        type=Path,
        required=True,
        metavar='DIR',
        help='where metrics.json and report.html go',
    )
    evaluate.add_argument(
        '--scenes', nargs='+', metavar='NAME', help="the data set's scenes to take (all)"
    )
    add_model(evaluate)

    classify = add('classify', 'name the Mars landmarks that images show')
    add_images(classify)
    classify.add_argument(
        '--output',
        type=Path,
        required=True,
        metavar='CSV',
        help='the table: filename, class, probability, and a column for each class',
    )
    add_model(classify)

    explain = add('explain', 'show where an image has what the network takes it for')
    explain.add_argument('image', type=Path, metavar='IMAGE', help='an image')
    explain.add_argument(
        '--output',
        type=Path,
        required=True,
        metavar='DIR',
        help='where <stem>_gradcam.png, <stem>_integrated_gradients.png and '
        '<stem>_explanation.json go',
    )
    add_model(explain)

    export = add('export', 'write the network as a file for other programs')
    export.add_argument(
        '--format', choices=('onnx',), required=True, help='of the file; pixels in, tensors out'
    )
    export.add_argument(
        '--output', type=Path, required=True, metavar='FILE', help='the file to write'
    )
    add_model(export)

    bench = add('bench', 'time the shipped network on this machine, stage by stage')
    bench.add_argument(
        '--output', type=Path, metavar='JSON', help='where the figures and their origin go'
    )
    add_bag_commands(add('bag', 'convert a LuSNAR scene to a ROS 2 bag, or play a bag'))
    return root


def add_bag_commands(bag: ArgumentParser) -> None:
    """Add `convert` and `play` and their options to the parser of `bag`."""
    commands = bag.add_subparsers(dest='bag_command', required=True, metavar='convert|play')
    summary = 'write a LuSNAR scene as a rosbag2'
    convert = commands.add_parser('convert', help=summary, description=summary)
    convert.add_argument('scene', type=Path, metavar='SCENE', help="a scene's folder")
    convert.add_argument('bag', type=Path, metavar='BAG', help='the folder to write')
    convert.add_argument(
        '--storage', choices=('mcap', 'sqlite3'), default='mcap', help='format (%(default)s)'
    )
    convert.add_argument(
        '--every',
        type=partial(whole_number, at_least=1),
        default=1,
        metavar='N',
        help='take each N-th frame (%(default)s)',
    )
    convert.add_argument(
        '--start', type=seconds, default=0.0, metavar='S', help='seconds to leave out at the start'
    )
    convert.add_argument(
        '--duration', type=seconds, metavar='S', help='seconds to take; without it, all'
    )
    convert.add_argument(
        '--compressed', action='store_true', help='images as PNG, under …/compressed'
    )
    summary = 'publish what a rosbag2 recorded'
    play = commands.add_parser('play', help=summary, description=summary)
    play.add_argument('bag', type=Path, metavar='BAG', help='a bag, or its .mcap or .db3 file')
    pace = play.add_mutually_exclusive_group()
    pace.add_argument(
        '--rate',
        type=playback_rate,
        default=1.0,
        metavar='R',
        help='factor of speed (%(default)s)',
    )
    pace.add_argument(
        '--lossless',
        action='store_true',
        help='reliably, each frame once the evaluator has scored the one before',
    )
    play.add_argument('--loop', action='store_true', help='begin anew at the end, until Ctrl-C')
    play.add_argument('--clock', action='store_true', help='publish /clock')
    play.add_argument('--topics', nargs='+', metavar='TOPIC', help='only these topics')


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command and return its exit status.

    0: done; 1: failed, with one line on stderr that says what to do; 130: interrupted. A usage
    error leaves through argparse with 2, SIGTERM through SystemExit with 143, so that whatever
    a command started is stopped by its own clean-up.
    """
    arguments = parser().parse_args(argv)
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')  # commands name bad images themselves
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        command = import_module(f'lunar_perception.commands.{arguments.command}')
        command.run(arguments)
    except (CommandError, OSError) as error:
        print(f'lunar-perception {arguments.command}: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'lunar-perception {arguments.command}: interrupted', file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == '__main__':
    sys.exit(main())
