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

"""`torch.compile`: kernels fused for one size, with CUDA graphs on a GPU."""

import os
import shutil

from lunar_perception.inference.backends.cache import cache_folder
from lunar_perception.inference.backends.registry import BackendError, Job, Session
import torch
from torch import Tensor


def open_compiled(job: Job) -> Session:
    """
    Return the job's network compiled; the first call compiles, which takes a minute or more.

    What torch compiles it keeps in this package's cache folder, unless TORCHINDUCTOR_CACHE_DIR
    names another. Raises BackendError where the CPU's C++ compiler is missing.
    """
    cuda = job.device.type == 'cuda'
    compiler = os.environ.get('CXX', 'g++')
    if not cuda and shutil.which(compiler) is None:
        raise BackendError(f'torch.compile needs the C++ compiler {compiler}, which is missing')
    os.environ.setdefault('TORCHINDUCTOR_CACHE_DIR', str(cache_folder() / 'torch_compile'))
    network = job.network.of_one_size(*job.size).requires_grad_(False)
    compiled = torch.compile(
        network, fullgraph=True, dynamic=False, mode='reduce-overhead' if cuda else 'default'
    )

    def run(pixels: Tensor) -> tuple[Tensor, ...]:
        outputs = compiled(pixels)
        # A CUDA graph writes to the same memory again in the next call.
        return tuple(x.clone() for x in outputs) if cuda else outputs

    return run
