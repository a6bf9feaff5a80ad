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
What there is to configure in a training run: frozen dataclasses, filled from YAML.

Every key of the YAML file is a field below, and can be overridden on the command line by its
dotted name: `--optimizer.learning-rate 3e-4`.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints, Literal, TypeVar

from train.augment import AugmentConfig
import yaml

T = TypeVar('T')

# Names stand here, not beside what they name, so that a misspelt key is found before torch loads.
Form = Literal['literal', 'inverse']
NetworkName = Literal[
    'rover',
    'base',
    'paper',
    'plain',
    'dilated',
    'dilated_last_four',
    'dilated_full',
    'taps',
    'transformer_head',
]
BaselineName = Literal[
    'segformer', 'maskformer', 'unetplusplus', 'depth_anything', 'depth_anything_metric'
]


@dataclass(frozen=True)
class DataConfig:
    """
    Which frames are learnt from.

    Params:
        cache_size: side in pixels at which frames are kept for training.
        cache: folder of the cache; None = beside the data.
        held_out: scenes for validation; empty = about every tenth scene.
        batch_size: frames a step.
        workers: processes that prepare batches; 0 = none besides the main one.
        rare_sampling: how much more often frames with craters and rocks are drawn; 0 = every
            frame once an epoch.
        eval_frames: held-out frames scored during training, spread evenly; all at the end.

    """

    cache_size: int = 320
    cache: Path | None = None
    held_out: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    batch_size: int = 8
    workers: int = 0
    rare_sampling: float = 0.0
    eval_frames: int = 64

    def __post_init__(self) -> None:
        _require(self.cache_size > 0, 'data.cache_size must be positive')
        _require(self.batch_size > 0, 'data.batch_size must be positive')
        _require(self.rare_sampling >= 0, 'data.rare_sampling must not be negative')


@dataclass(frozen=True)
class LossConfig:
    """
    Weight of each term; a term of weight 0 is not computed.

    Params:
        cross_entropy, lovasz: on labels.
        class_balance: power p of the class weights share^−p in the cross-entropy; 0 = equal.
        near_labels: a cross-entropy of what is near; for networks that learn depth as well.
        l1, l2: on depth divided by the model's `max_depth`, clipped to [0, 1].
        silog, gradient: on log-depth.
        near_relief, rock_relief: on log-depth, the shape of near ground, and of rocks on it.
        near_rocks, near_ground: on log-depth of near rocks, and of what is near besides.
        laplace: on log-depth and its predicted spread.
        adversarial: a small critic, trained along, tells predicted log-depth from true.
        distillation: λ_KD, on what a teacher says; needs `teacher.model`.

    """

    cross_entropy: float = 1.0
    lovasz: float = 0.0
    class_balance: float = 0.0
    near_labels: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    silog: float = 0.0
    gradient: float = 0.0
    near_relief: float = 0.0
    rock_relief: float = 0.0
    near_rocks: float = 0.0
    near_ground: float = 0.0
    laplace: float = 0.0
    adversarial: float = 0.0
    distillation: float = 0.0


@dataclass(frozen=True)
class TeacherConfig:
    """
    Whose depth is distilled, and how.

    Params:
        model: folder or Hub id of any depth network that transformers loads; None = no teacher.
        download: whether it may be fetched.
        form: 'inverse' compares the teacher with 1 / depth, 'literal' with depth / `max_depth`
            as the paper writes it, whatever the teacher's sign.
        alpha: share of the gradient term; the pixel term has the rest.
        precompute: run the teacher once on every frame and keep its maps beside the data; else
            on every augmented batch.

    """

    model: str | None = None
    download: bool = False
    form: Form = 'inverse'
    alpha: float = 0.5
    precompute: bool = True

    def __post_init__(self) -> None:
        _require(0 <= self.alpha <= 1, 'teacher.alpha must lie in [0, 1]')


@dataclass(frozen=True)
class OptimizerConfig:
    """
    How the weights move.

    Params:
        name: 'adam' (weight decay as L2 in the gradient, the paper's) or 'adamw'.
        learning_rate: at its peak.
        weight_decay: on matrices and kernels; the paper's Adam decays everything.
        layer_decay: factor of the learning rate from one encoder block to the one before it.
        warmup_steps: linear rise from 0.
        cosine: fall along a cosine to 0 at the end; else constant.
        clip: largest norm of the gradient; 0 = not clipped.
        ema: decay of the averaged weights that are evaluated and saved; 0 = the weights
            themselves.

    """

    name: Literal['adam', 'adamw'] = 'adamw'
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    warmup_steps: int = 0
    cosine: bool = True
    clip: float = 1.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        _require(self.learning_rate > 0, 'optimizer.learning_rate must be positive')
        _require(0 < self.layer_decay <= 1, 'optimizer.layer_decay must lie in (0, 1]')
        _require(0 <= self.ema < 1, 'optimizer.ema must lie in [0, 1)')


@dataclass(frozen=True)
class RunConfig:
    """
    A training run, whatever the network.

    Params:
        size: side in pixels of the network's input; None = the network's own.
        epochs, steps, minutes: how long; the one that is set counts, `minutes` by the clock of
            the run (the only one that does not repeat bit for bit).
        evaluate_every: steps between evaluations, each with a checkpoint.
        seed: of everything random.
        device: 'auto', 'cpu', 'cuda', …
        precision: 'fp32' or 'bf16' (autocast, on a GPU).
        shard: with torchrun, split weights, gradients and optimiser among the processes
            (FSDP2), for networks that do not fit one GPU; else each has all (DDP).
        clock: what `minutes` are of: the wall's, or this process's use of the processor, which
            treats runs alike on a machine shared with others.
        wandb_project: also log to this project of Weights & Biases, if that is installed.

    """

    size: int | None = None
    epochs: float | None = None
    steps: int | None = None
    minutes: float | None = None
    evaluate_every: int = 200
    seed: int = 0
    device: str = 'auto'
    precision: Literal['fp32', 'bf16'] = 'fp32'
    shard: bool = False
    clock: Literal['wall', 'process'] = 'wall'
    wandb_project: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        given = [n for n in ('epochs', 'steps', 'minutes') if getattr(self, n) is not None]
        _require(len(given) == 1, f'set one of epochs, steps, minutes; got {given or "none"}')
        _require(self.evaluate_every > 0, 'evaluate_every must be positive')


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """
    A training run of the unified network; see RunConfig for the rest.

    Params:
        model: configuration of the network, one of train/networks.py.
        initial: checkpoint of a unified network (folder or hub id) to start from.
        encoder: checkpoint of SAM, SAM 2 or a unified network (folder or hub id) whose image
            encoder to start from.
        download: whether those may be fetched.
        balance_labels: at the end, shift each class's logit to where held-out mIoU is largest.
        teacher: whose depth is distilled.
        loss: what is minimised.

    """

    model: NetworkName = 'rover'
    initial: str | None = None
    encoder: str | None = None
    download: bool = False
    balance_labels: bool = False
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    loss: LossConfig = field(default_factory=LossConfig)


@dataclass(frozen=True)
class BaselineConfig(RunConfig):
    """
    A training run of a single-task network; see RunConfig for the rest.

    Params:
        network: which, see train/baselines.py.
        loss: what is minimised, by the networks that have no loss of their own: those of labels
            take `cross_entropy`, `lovasz`, `class_balance`, depth_anything_metric the others.

    """

    network: BaselineName = 'segformer'
    loss: LossConfig = field(default_factory=lambda: LossConfig(silog=1.0, gradient=0.5))


@dataclass(frozen=True)
class TeacherRunConfig(RunConfig):
    """
    A training run of a teacher: DPT on a plain vision transformer; see RunConfig for the rest.

    Params:
        hidden_size, layers, heads: the transformer's size. The student of `rover` has 192, 8, 3.
        neck: width of the four reassembled maps is neck · (1, 2, 4, 4).

    """

    hidden_size: int = 384
    layers: int = 12
    heads: int = 6
    neck: int = 96

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.layers >= 4, 'layers must be at least 4: four maps are tapped')
        _require(self.hidden_size % self.heads == 0, 'heads must divide hidden_size')


def load_config(kind: type[T], path: Path) -> T:
    """
    Return the frozen dataclass `kind` filled from the YAML file at `path`.

    A key `extends` names a file beside it, whose values stand where this one has none.
    Raises FileNotFoundError, or ValueError that names file, key and what would do.
    """
    values = _read(path)
    try:
        filled: T = _fill(kind, values, '')
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    return filled


def config_from_dict(kind: type[T], values: dict[str, Any]) -> T:
    """Return `kind` from what a run's config.json holds; ValueError names a key that is wrong."""
    filled: T = _fill(kind, values, '')
    return filled


def _read(path: Path) -> Any:
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f'{path}: not YAML: {error}') from error
    if isinstance(values, dict) and 'extends' in values:
        return _merged(_read(path.with_name(str(values.pop('extends')))), values)
    return values


def _merged(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        both = {key: _merged(below[key], above[key]) for key in below.keys() & above.keys()}
        return {**below, **above, **both}
    return above


def _fill(kind: Any, values: Any, prefix: str) -> Any:
    _require(isinstance(values, dict), f'{prefix or "the file"} must be a mapping of keys')
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    filled = {}
    for key, value in values.items():
        if key not in known:
            near = get_close_matches(str(key), known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f'known: {", ".join(known)}'
            raise ValueError(f"unknown key '{prefix}{key}'; {hint}")
        filled[key] = _convert(hints[key], value, f'{prefix}{key}')
    return kind(**filled)


def _convert(hint: Any, value: Any, key: str) -> Any:
    if is_dataclass(hint):
        return _fill(hint, value, f'{key}.')
    choices = get_args(hint) or (hint,)
    if value is None and type(None) in choices:
        return None
    if isinstance(value, list) and Ellipsis in choices:
        return tuple(str(item) for item in value)
    if value in [c for c in choices if isinstance(c, str)]:
        return value
    for kind in choices:
        if kind is bool and isinstance(value, bool):
            return value
        if kind is int and type(value) is int:
            return value
        # YAML reads 1e-4, without a point, as text.
        if kind is float and type(value) in (int, float, str):
            try:
                return float(value)
            except ValueError:
                continue
        if kind in (str, Path) and isinstance(value, str):
            return kind(value)
    wanted = ' or '.join(getattr(choice, '__name__', repr(choice)) for choice in choices)
    raise ValueError(f'{key} = {value!r} should be {wanted}')


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
