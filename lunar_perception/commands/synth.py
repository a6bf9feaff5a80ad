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

"""`lunar-perception synth`: scenes of a procedural Moon, a process each."""

from argparse import Namespace
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from functools import partial
from hashlib import sha256
import json
import multiprocessing
from multiprocessing.queues import SimpleQueue
from pathlib import Path
import signal

from lunar_perception.atomic import write_json
from lunar_perception.commands import CommandError
from lunar_perception.synthetic import CameraMount, generate_scene, MoonConfig, read_trajectory
from lunar_perception.synthetic.richness import richness_in_set
import numpy as np
from tqdm import tqdm

PROGRESS_PERIOD_S = 0.2
SETTINGS = 'synth.json'

_written: 'SimpleQueue[None] | None' = None  # in a worker: gets an item for every frame written


def run(arguments: Namespace) -> None:
    """
    Generate the scenes.

    CommandError when one is there already and is not to be resumed, and when the trajectory
    can't be driven.
    """
    course = None
    if arguments.trajectory is not None:
        try:
            course = read_trajectory(arguments.trajectory).first(arguments.frames)
        except ValueError as error:
            raise CommandError(str(error)) from error
    scenes = {
        arguments.output / f'Moon_{number}': MoonConfig(
            seed=scene_seed(arguments.seed, number),
            size=arguments.size,
            # Every second scene, so that LuSNAR's own camera stays the most frequent one.
            mount=None if arguments.vary_camera and number % 2 == 0 else CameraMount(),
            frame_interval=arguments.frame_interval,
            course=course,
            richness=richness_in_set(arguments.seed, number),
            level=arguments.level,
            relief=arguments.relief,
            boulder=arguments.boulder,
        )
        for number in range(1, arguments.scenes + 1)
    }
    for directory in scenes:
        if directory.exists() and not arguments.resume:
            raise CommandError(
                f'{directory} exists; add --resume to keep what is there, or name another folder'
            )
    _note_settings(arguments)

    # Spawned, not forked: Embree's and OpenCV's threads do not survive a fork.
    context = multiprocessing.get_context('spawn')
    written: SimpleQueue[None] = context.SimpleQueue()
    pool = ProcessPoolExecutor(
        min(arguments.workers, len(scenes)), context, _start_worker, (written,)
    )
    try:
        # Ctrl-C reaches the whole terminal: the workers, which start here, inherit not to hear
        # it, and the parent ends them.
        hears = signal.signal(signal.SIGINT, signal.SIG_IGN)
        pending = {
            pool.submit(_generate, directory, config, arguments.frames, arguments.resume)
            for directory, config in scenes.items()
        }
        signal.signal(signal.SIGINT, hears)
        with tqdm(total=arguments.scenes * arguments.frames, unit='frame', disable=None) as bar:
            while pending:
                done, pending = wait(pending, PROGRESS_PERIOD_S, FIRST_EXCEPTION)
                while not written.empty():
                    written.get()
                    bar.update()
                for scene in done:
                    scene.result()
    except BaseException:
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _note_settings(arguments: Namespace) -> None:
    """
    Write what decides the scenes' bytes beside them.

    CommandError when what is to be resumed was made otherwise: two landscapes would mix.
    """
    trajectory = arguments.trajectory
    settings = {
        'seed': arguments.seed,
        'size': arguments.size,
        'frames': arguments.frames,
        'vary_camera': arguments.vary_camera,
        'level': arguments.level,
        'relief': arguments.relief,
        'boulder': arguments.boulder,
        'frame_interval': None if trajectory else arguments.frame_interval,
        'trajectory_sha256': sha256(trajectory.read_bytes()).hexdigest() if trajectory else None,
    }
    file = arguments.output / SETTINGS
    if arguments.resume and file.exists():
        try:
            # What older versions did not know had one value.
            older = {'level': False, 'relief': 1.0, 'boulder': False}
            before = older | json.loads(file.read_text())
            other = [name for name, value in settings.items() if before[name] != value]
        except (ValueError, KeyError, TypeError):
            raise CommandError(f'{file} is damaged; name another folder') from None
        if other:
            name = other[0]
            raise CommandError(
                f'{arguments.output} was generated with {name} = {before[name]}, not '
                f'{settings[name]}; repeat its settings to resume, or name another folder'
            )
    write_json(file, settings)


def scene_seed(seed: int, number: int) -> int:
    """Return the seed of one scene of a set; it depends on nothing else of the set."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def _start_worker(written: 'SimpleQueue[None]') -> None:
    global _written
    _written = written


def _generate(directory: Path, config: MoonConfig, frames: int, resume: bool) -> None:
    assert _written is not None  # _start_worker came before
    progress = partial(_written.put, None)
    generate_scene(directory, config, frames, resume=resume, progress=progress)
