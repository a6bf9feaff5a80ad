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

"""`lunar-perception bag`: LuSNAR scenes to ROS 2 bags, and bags onto the air."""

from argparse import Namespace

from lunar_perception.commands import CommandError
from lunar_perception.data.bag_reader import BagError, BagReader
from lunar_perception.data.bag_writer import convert_scene
from lunar_perception.data.lusnar import LusnarError, Scene
from tqdm import tqdm


def run(arguments: Namespace) -> None:
    """Convert or play; CommandError when it can not be done, or not to the end."""
    try:
        if arguments.bag_command == 'convert':
            convert(arguments)
        else:
            play(arguments)
    except (BagError, LusnarError) as error:
        raise CommandError(error) from error


def convert(arguments: Namespace) -> None:
    """Write the bag; the folder appears when it is complete."""
    with tqdm(unit='frame', disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        frames = convert_scene(
            Scene(arguments.scene),
            arguments.bag,
            storage=arguments.storage,
            every=arguments.every,
            start_s=arguments.start,
            duration_s=arguments.duration,
            compressed=arguments.compressed,
            progress=show,
        )
    print(f'{arguments.bag}: {frames} frames')


def play(arguments: Namespace) -> None:
    """Publish the bag's messages from a ROS node of its own."""
    try:
        from lunar_perception.nodes.player import play_bag, PlayerError, PlayerOptions
    except ImportError as error:
        raise CommandError(
            f'playing needs ROS 2, which does not import here ({error}); in a checkout run '
            '"uv run lunar-perception bag play", or source your ROS 2 installation first'
        ) from error
    options = PlayerOptions(
        rate=arguments.rate,
        loop=arguments.loop,
        clock=arguments.clock,
        lossless=arguments.lossless,
        topics=None if arguments.topics is None else tuple(arguments.topics),
    )
    with BagReader(arguments.bag) as reader:
        try:
            play_bag(reader, options)
        except PlayerError as error:
            raise CommandError(error) from error
