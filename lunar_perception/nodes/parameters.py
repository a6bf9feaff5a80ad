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

"""Parameters of the perception nodes: what they share, what they may be, their current values."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter


def ros_parameter(
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


def backend_parameter(*names: str) -> Any:
    """Return the field of what runs the network, if not torch; `names` can be chosen besides."""
    *others, last = (f'{n} (torch.compile)' if n == 'compile' else n for n in ('torch', *names))
    return ros_parameter(
        'auto',
        'What runs the network: auto (the fastest that is installed and agrees with torch), '
        f'{", ".join(others)} or {last}.',
        choices=('auto', 'torch', *names),
        fixed=True,
    )


@dataclass(frozen=True)
class PerceptionParameters:
    """
    What every perception node can be told, by the names that ROS knows; a node adds its own.

    Raises ValueError for a value that the node can not work with.
    """

    autostart: bool = ros_parameter(
        True, 'Go to active at the start; false under a lifecycle manager. Read at the start only.'
    )
    model: str = ros_parameter(
        '',
        'Checkpoint folder, or the id of a Hub model that is on this machine already; '
        "empty: the package's own weights.",
        fixed=True,
    )
    device: str = ros_parameter(
        'auto', 'Where the network runs: auto (CUDA where there is one), cpu, cuda or cuda:<n>.',
        fixed=True,
    )  # fmt: skip
    precision: str = ros_parameter(
        'auto',
        "The network's arithmetic: auto (bf16 on CUDA; fp32 on the CPU, where backend auto may "
        'round what bears it), fp32, bf16 or fp16.',
        choices=('auto', 'fp32', 'bf16', 'fp16'),
        fixed=True,
    )
    backend: str = backend_parameter('compile', 'onnxruntime', 'tensorrt', 'openvino')
    lossless: bool = ros_parameter(
        False,
        'Subscribe reliably with a deep queue and process every frame, however late; '
        'for evaluation.',
        fixed=True,
    )
    image_transport: str = ros_parameter(
        'raw',
        'raw: Image on `image`; compressed: CompressedImage on `image/compressed`.',
        choices=('raw', 'compressed'),
        fixed=True,
    )
    max_age: float = ros_parameter(
        0.0,
        "Drop frames whose stamp is older than this on the node's clock, in seconds; 0: never.",
        least=0.0,
        most=3600.0,
    )
    min_confidence: float = ros_parameter(
        0.0, 'Pixels of lower confidence are labelled 255, unlabelled.', least=0.0, most=1.0
    )

    def __post_init__(self) -> None:
        for name, known in metadata_of(type(self)).items():
            value = getattr(self, name)
            if known['range'] is not None:
                least, most = known['range']
                if not least <= value <= most:
                    raise ValueError(f'{name} = {value} must lie in {least} … {most}')
            if known['choices'] and value not in known['choices']:
                raise ValueError(
                    f"{name} = '{value}' must be one of {', '.join(known['choices'])}"
                )


def metadata_of(parameters: type[PerceptionParameters]) -> dict[str, dict[str, Any]]:
    """Return what `ros_parameter` noted of each, by name and in their order."""
    return {known.name: dict(known.metadata) for known in fields(parameters)}


Parameters = TypeVar('Parameters', bound=PerceptionParameters)


class NodeParameters(Generic[Parameters]):
    """
    The parameters of a running node, declared with descriptors and kept current.

    `on_change` is called after a change while the node runs.

    A value from the command line or a file that can not be used does not stop the node: the
    default stands in, and `refused` says why until a good value is set.

    Fields:
        values: the current values; replaced as a whole, so that another thread may read them.
        refused: reasons for which start values were refused, by name.
        configured: set by the node while it is; fixed parameters are refused meanwhile.

    """

    def __init__(
        self, node: Node, parameters: type[Parameters], on_change: Callable[[], None]
    ) -> None:
        self.values = parameters()
        self._defaults = self.values
        self._metadata = metadata_of(parameters)
        self.refused: dict[str, str] = {}
        self.configured = False
        self._on_change = on_change
        for name in self._metadata:
            self._declare(node, name)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._take)

    def _declare(self, node: Node, name: str) -> None:
        default, known = getattr(self._defaults, name), self._metadata[name]
        try:
            parameter = node.declare_parameter(name, default, _descriptor(name, known))
            self.values = replace(self.values, **self._values([parameter]))
            return
        except InvalidParameterTypeException as error:
            reason = str(error)
        except InvalidParameterValueException:
            least, most = known['range']
            reason = f'{name} must lie in {least} … {most}'
        except ValueError as error:
            reason = str(error)
            node.undeclare_parameter(name)
        self.refused[name] = reason
        node.declare_parameter(name, default, _descriptor(name, known), ignore_override=True)

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        changes = self._values(parameters)
        for name, value in changes.items():
            fixed = self._metadata[name]['fixed'] and self.configured
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
        changes = self._values(parameters)
        self.values = replace(self.values, **changes)
        for name in changes:
            self.refused.pop(name, None)
        self._on_change()

    def _values(self, parameters: list[Parameter]) -> dict[str, Any]:
        """Return the values of those parameters that are ours."""
        return {
            parameter.name: tuple(parameter.value)
            if parameter.type_ == Parameter.Type.STRING_ARRAY
            else parameter.value
            for parameter in parameters
            if parameter.name in self._metadata
        }


def _descriptor(name: str, known: dict[str, Any]) -> ParameterDescriptor:
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
