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

"""The network behind a node: loaded, measured and let go. The one place that imports torch."""

from collections.abc import Callable
from concurrent.futures import Future
import gc
import sys
from threading import Thread
from typing import Protocol, TYPE_CHECKING, TypeVar

from lunar_perception.camera import LUSNAR_CAMERA
from lunar_perception.nodes.terrain_parameters import TerrainParameters
from lunar_perception.nodes.unified_parameters import UnifiedParameters

if TYPE_CHECKING:  # importing torch takes seconds, and topics are to be advertised before
    from lunar_perception.inference.predictor import UnifiedPredictor
    from lunar_perception.inference.terrain import TerrainPredictor
    import torch

Loaded = TypeVar('Loaded')


class Predictor(Protocol):
    """A network on a device."""

    device: 'torch.device'
    precision: 'torch.dtype'


def import_torch() -> None:
    """
    Import torch, and hold Python's garbage collector off it: meanwhile, and ever after.

    Its hundreds of thousands of objects live as long as the process. Not to search them shortens
    the import, and keeps later collections from holding up an image.
    """
    if 'torch' in sys.modules:
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import torch  # noqa: F401
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def load_predictor(parameters: UnifiedParameters) -> 'UnifiedPredictor':
    """Load the network that the parameters name; OSError or ValueError says why not."""
    import_torch()
    from lunar_perception.inference.predictor import UnifiedPredictor

    predictor = UnifiedPredictor.from_pretrained(
        parameters.model or None,
        device=parameters.device,
        precision=parameters.precision,
        backend=parameters.backend,
    )
    # A backend makes ready for one size at a time: the one that most cameras' images get.
    predictor.warm_up(LUSNAR_CAMERA.height, LUSNAR_CAMERA.width)
    return predictor


def load_terrain_predictor(parameters: TerrainParameters) -> 'TerrainPredictor':
    """Load the terrain network that the parameters name; OSError or ValueError says why not."""
    import_torch()
    # Imported here too, lest the first explanation wait for it.
    from lunar_perception.inference import explain  # noqa: F401
    from lunar_perception.inference.terrain import TerrainPredictor

    predictor = TerrainPredictor.from_pretrained(
        parameters.model or None,
        device=parameters.device,
        precision=parameters.precision,
        backend=parameters.backend,
    )
    predictor.warm_up(predictor.config.input_size, predictor.config.input_size)
    return predictor


def start_loading(load: Callable[[], Loaded]) -> Future[Loaded]:
    """Load a network in a thread that does not keep the process from ending."""
    loading: Future[Loaded] = Future()

    def run() -> None:
        try:
            loading.set_result(load())
        except Exception as error:
            loading.set_exception(error)

    Thread(target=run, name='network loader', daemon=True).start()
    return loading


def network_values(predictor: Predictor) -> dict[str, str]:
    """Return device, precision, backend and device memory, as diagnostics show them."""
    import torch

    values = {
        'device': str(predictor.device),
        'precision': str(predictor.precision).removeprefix('torch.'),
        'backend': getattr(predictor, 'backend', 'torch'),
    }
    for name, reason in getattr(predictor, 'refusals', {}).items():
        values[f'backend_refused_{name}'] = reason
    if predictor.device.type == 'cuda':
        values['device'] += f' ({torch.cuda.get_device_name(predictor.device)})'
        allocated = torch.cuda.memory_allocated(predictor.device)
        values['device_memory_mib'] = f'{allocated / 2**20:.0f}'
    return values


def wait_for_device(predictor: Predictor) -> None:
    """Wait until a predictor's device has done all that it was given."""
    if predictor.device.type == 'cuda':
        import torch

        torch.cuda.synchronize(predictor.device)


def free_device_memory() -> None:
    """Give the device memory back that torch keeps for later, once a predictor is gone."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
