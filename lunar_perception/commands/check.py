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

"""`lunar-perception check`: whether a folder is a sound LuSNAR scene or data set."""

from argparse import Namespace

from lunar_perception.commands import CommandError
from lunar_perception.data.lusnar_check import check
from tqdm import tqdm


def run(arguments: Namespace) -> None:
    """Print what is wrong, a line each; CommandError when anything is."""
    directory = arguments.directory
    if not directory.is_dir():
        raise CommandError(f'{directory} is no folder')
    with tqdm(unit='frame', disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        problems = check(directory, show)
    for problem in problems:
        print(problem)
    if problems:
        raise CommandError(f'{directory} has {len(problems)} problems')
    print(f'{directory} is sound')
