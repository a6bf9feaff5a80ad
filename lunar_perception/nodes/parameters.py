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

"""The unified node's parameters: what they are, what they may be, and their current values."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from lunar_perception.taxonomy import LUNAR_TERRAIN


def _parameter(
    default: Any,
    description: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
    fixed: bool = False,
) -> Any:
    """
    Return a dataclass field that is a ROS parameter.

    `fixed` ones can be set only while the node is unconfigured.
    """
    return field(
        default=default,
        metadata={
            'description': description,
            'range': None if least is None else (least, most),
            'choices': choices,
            'fixed': fixed,
        },
    )


@dataclass(frozen=True)
class UnifiedParameters:
    """
    The unified node's parameters, by the names that ROS knows.

    Raises ValueError for a value that the node can not work with.
    """

    autostart: bool = _parameter(
        True, 'Go to active at the start; false under a lifecycle manager. Read at the start only.'
    )
    model: str = _parameter(
        '',
        'Checkpoint folder, or the id of a Hub model that is on this machine already; '
        "empty: the package's own weights.",
        fixed=True,
    )
    device: str = _parameter(
        'auto', 'Where the network runs: auto (CUDA where there is one), cpu, cuda or cuda:<n>.',
        fixed=True,
    )  # fmt: skip
    precision: str = _parameter(
        'auto',
        "The network's arithmetic: auto (bf16 on CUDA, fp32 on the CPU), fp32, bf16 or fp16.",
        choices=('auto', 'fp32', 'bf16', 'fp16'),
        fixed=True,
    )
    backend: str = _parameter(
        'auto', 'What runs the network: auto or torch.', choices=('auto', 'torch'), fixed=True
    )
    lossless: bool = _parameter(
        False,
        'Subscribe reliably with a deep queue and process every frame, however late; '
        'for evaluation.',
        fixed=True,
    )
    image_transport: str = _parameter(
        'raw',
        'raw: Image on `image`; compressed: CompressedImage on `image/compressed`.',
        choices=('raw', 'compressed'),
        fixed=True,
    )
    max_age: float = _parameter(
        0.0,
        "Drop frames whose stamp is older than this on the node's clock, in seconds; 0: never.",
        least=0.0,
        most=3600.0,
    )
    min_confidence: float = _parameter(
        0.0, 'Pixels of lower confidence are labelled 255, unlabelled.', least=0.0, most=1.0
    )
    max_relative_uncertainty: float = _parameter(
        0.0,
        'Depth whose sigma is more than this fraction of it becomes NaN; 0: never.',
        least=0.0,
        most=10.0,
    )
    default_fov_deg: float = _parameter(
        0.0,
        'Horizontal field of view in degrees that stands in for a missing or uncalibrated '
        'CameraInfo; 0: depth and clouds wait for one.',
        least=0.0,
        most=179.0,
    )
    cloud_stride: int = _parameter(
        4, 'Clouds and costmap images take every n-th pixel of every n-th row.', least=1, most=64
    )
    max_range: float = _parameter(
        20.0,
        'Distance from the camera in metres up to which hazards are marked and rays clear.',
        least=0.1,
        most=1000.0,
    )
    hazard_classes: tuple[str, ...] = _parameter(
        ('rock', 'crater'),
        f'Classes whose points are hazards, of {", ".join(LUNAR_TERRAIN.names)}.',
    )

    def __post_init__(self) -> None:
        for name, known in METADATA.items():
            value = getattr(self, name)
            if known['range'] is not None:
                least, most = known['range']
                if not least <= value <= most:
                    raise ValueError(f'{name} = {value} must lie in {least} … {most}')
            if known['choices'] and value not in known['choices']:
                raise ValueError(
                    f"{name} = '{value}' must be one of {', '.join(known['choices'])}"
                )
        try:
            LUNAR_TERRAIN.ids_of(self.hazard_classes)
        except ValueError as error:
            raise ValueError(f'hazard_classes: {error}') from None


METADATA: dict[str, dict[str, Any]] = {
    parameter.name: dict(parameter.metadata) for parameter in fields(UnifiedParameters)
}


class NodeParameters:
    """
    The parameters of a running node, declared with descriptors and kept current.

    `on_change` is called after a change while the node runs.

    A value from the command line or a file that can not be used does not stop the node: the
    default stands in, and `refused` says why until a good value is set.

    Attributes:
        values: the current values; replaced as a whole, so that another thread may read them.
        refused: reasons for which start values were refused, by name.
        configured: set by the node while it is; fixed parameters are refused meanwhile.

    """

    def __init__(self, node: Node, on_change: Callable[[], None]) -> None:
        self.values = UnifiedParameters()
        self.refused: dict[str, str] = {}
        self.configured = False
        self._on_change = on_change
        for name in METADATA:
            self._declare(node, name)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._take)

    def _declare(self, node: Node, name: str) -> None:
        default = getattr(UnifiedParameters(), name)
        try:
            parameter = node.declare_parameter(name, default, _descriptor(name))
            self.values = replace(self.values, **_values([parameter]))
            return
        except InvalidParameterTypeException as error:
            reason = str(error)
        except InvalidParameterValueException:
            least, most = METADATA[name]['range']
            reason = f'{name} must lie in {least} … {most}'
        except ValueError as error:
            reason = str(error)
            node.undeclare_parameter(name)
        self.refused[name] = reason
        node.declare_parameter(name, default, _descriptor(name), ignore_override=True)

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        changes = _values(parameters)
        for name, value in changes.items():
            fixed = METADATA[name]['fixed'] and self.configured
            if fixed and value != getattr(self.values, name):
                return SetParametersResult(
                    successful=False,
                    reason=f'{name} can be set only while the node is unconfigured; '
                    'clean it up first',
                )
        try:
            replace(self.values, **changes)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take(self, parameters: list[Parameter]) -> None:
        changes = _values(parameters)
        self.values = replace(self.values, **changes)
        for name in changes:
            self.refused.pop(name, None)
        self._on_change()


def _values(parameters: list[Parameter]) -> dict[str, Any]:
    """Return the values of those parameters that are ours."""
    return {
        parameter.name: tuple(parameter.value)
        if parameter.type_ == Parameter.Type.STRING_ARRAY
        else parameter.value
        for parameter in parameters
        if parameter.name in METADATA
    }


def _descriptor(name: str) -> ParameterDescriptor:
    known = METADATA[name]
    descriptor = ParameterDescriptor(
        description=known['description'],
        additional_constraints=', '.join(known['choices']),
        read_only=name == 'autostart',
    )
    if known['range'] is not None:
        least, most = known['range']
        if isinstance(least, int):
            descriptor.integer_range = [IntegerRange(from_value=least, to_value=most, step=1)]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=least, to_value=most, step=0.0)
            ]
    return descriptor
