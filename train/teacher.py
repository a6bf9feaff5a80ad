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

"""A frozen depth network that teaches: loading, its maps of all frames, its sign."""

from collections.abc import Iterator
import json
import math
from pathlib import Path
import re
import shutil
from tempfile import TemporaryDirectory

from lunar_perception.atomic import write_json
import numpy as np
import torch
from torch import nn, Tensor
from torch.nn import functional as F
from tqdm import tqdm
from train.batches import IMAGENET_MEAN, IMAGENET_STD
from train.config import TeacherConfig
from train.frames import Frames
from train.losses import valid_depth
from transformers import AutoConfig, AutoImageProcessor, AutoModelForDepthEstimation

SIGN_FRAMES = 24
"""How many training frames the sign is read from."""


class Teacher(nn.Module):
    """
    A depth network of transformers behind one face.

    `forward` maps ImageNet-normalised RGB images (B, 3, H, W) to the network's depth or inverse
    depth (B, 1, H, W), each image's shifted and scaled to mean 0 and standard deviation 1:
    teachers are affine-invariant, and their units differ by orders of magnitude.

    Fields:
        size: side in pixels of the images that the network sees.

    """

    def __init__(self, network: nn.Module, size: int, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.size = size
        self.register_buffer('gain', _column(IMAGENET_STD) / _column(std))
        self.register_buffer('offset', (_column(IMAGENET_MEAN) - _column(mean)) / _column(std))

    @classmethod
    def load(cls, source: str, *, download: bool = False) -> 'Teacher':
        """
        Return the network in a folder or of a Hub id; the Hub is asked only with `download`.

        Raises OSError when there is none, ValueError when it predicts no depth or its weights
        are pickled.
        """
        where = {'local_files_only': not download}
        try:
            config = AutoConfig.from_pretrained(source, **where)
        except (OSError, ValueError) as error:
            remedy = '' if download else ' (nothing is fetched unless teacher.download is set)'
            raise OSError(f'teacher {source} can not be loaded{remedy}: {_first(error)}') from None
        known = AutoModelForDepthEstimation._model_mapping
        if type(config) not in known:
            raise ValueError(
                f'teacher {source} is a {config.model_type} network, which predicts no depth; '
                'name a depth network such as Intel/dpt-large'
            )
        try:
            network = AutoModelForDepthEstimation.from_pretrained(
                source, use_safetensors=True, **where
            )
        except (OSError, ValueError) as error:
            raise OSError(f'teacher {source}: no usable weights: {_first(error)}') from None
        mean, std, size = IMAGENET_MEAN.tolist(), IMAGENET_STD.tolist(), None
        try:
            processor = AutoImageProcessor.from_pretrained(source, **where)
        except (OSError, ValueError):
            pass  # a bare checkpoint: taken to have seen ImageNet's normalisation
        else:
            mean, std = list(processor.image_mean), list(processor.image_std)
            size = dict(processor.size or {}).get('height')
        backbone = getattr(config, 'backbone_config', None)
        for part in (config, backbone):
            size = size or getattr(part, 'image_size', None)
        patch = getattr(config, 'patch_size', None) or getattr(backbone, 'patch_size', None) or 32
        size = max(patch, int(size or 384) // patch * patch)
        return cls(network, size, mean, std)

    def train(self, mode: bool = True) -> 'Teacher':
        """Stay in evaluation: a teacher does not learn."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if (height, width) != (self.size, self.size):
            images = F.interpolate(images, (self.size,) * 2, mode='bilinear', antialias=True)
        depth = self.network(pixel_values=images * self.gain + self.offset).predicted_depth
        depth = F.interpolate(
            depth.float()[:, None], (height, width), mode='bilinear', align_corners=False
        )
        mean = depth.mean((1, 2, 3), keepdim=True)
        std = depth.std((1, 2, 3), keepdim=True)
        return (depth - mean) / (std + 1e-6)


def teacher_maps(
    teacher: Teacher, config: TeacherConfig, frames: Frames, data: Path, device: torch.device
) -> np.ndarray:
    """
    Return the teacher's map of every frame, (N, S, S) float16, computed once and kept.

    They are kept beside `data`, under the teacher's name, until data or weights change.
    """
    name = re.sub(r'[^A-Za-z0-9.-]+', '_', str(config.model)).strip('_')[-60:]
    data = data.resolve()
    folder = data.with_name(f'{data.name}_teacher_{name}_{frames.size}')
    key = {'teacher': _fingerprint(teacher), 'names': list(frames.names), 'size': frames.size}
    index = folder / 'index.json'
    if not index.exists() or json.loads(index.read_text()) != key:
        with TemporaryDirectory(prefix=f'.{folder.name}.', dir=folder.parent) as temporary:
            building = Path(temporary) / folder.name
            building.mkdir()
            shape = (len(frames), frames.size, frames.size)
            maps = np.lib.format.open_memmap(building / 'maps.npy', 'w+', np.float16, shape)
            bar = tqdm(range(len(frames)), "the teacher's maps", unit='frame')
            for i, depth in zip(
                bar, teacher_answers(teacher, frames, range(len(frames)), device), strict=True
            ):
                maps[i] = depth
            maps.flush()
            write_json(building / 'index.json', key)
            shutil.rmtree(folder, ignore_errors=True)
            building.rename(folder)
    maps = np.load(folder / 'maps.npy', mmap_mode='r')
    return maps


def teacher_sign(
    teacher: Teacher, frames: Frames, indices: np.ndarray, device: torch.device
) -> dict[str, float]:
    """
    Return how a teacher's answer goes with the true depth, and with its inverse.

    'depth', 'inverse_depth': Pearson correlation over the pixels of a frame that have depth,
    averaged over SIGN_FRAMES frames. A teacher of inverse depth has the second positive.
    """
    places = np.linspace(0, len(indices) - 1, min(SIGN_FRAMES, len(indices))).round().astype(int)
    chosen = indices[places]
    found: dict[str, list[float]] = {'depth': [], 'inverse_depth': []}
    for i, answer in zip(chosen, teacher_answers(teacher, frames, chosen, device), strict=True):
        truth = torch.from_numpy(frames.depth[i].astype(np.float32))
        valid = valid_depth(truth).numpy()
        depth, said = truth.numpy()[valid].astype(float), answer[valid].astype(float)
        for name, target in (('depth', depth), ('inverse_depth', 1 / np.maximum(depth, 1e-3))):
            value = np.corrcoef(said, target)[0, 1] if len(depth) > 1 else math.nan
            if math.isfinite(value):
                found[name].append(float(value))
    if not found['depth']:
        raise ValueError('the sign of the teacher can not be told: no frame has depth that varies')
    return {name: float(np.mean(values)) for name, values in found.items()}


def check_sign(sign: dict[str, float], config: TeacherConfig) -> str:
    """
    Return a line that says which sign the teacher has, and what the chosen form makes of it.

    Raises ValueError when 'inverse' would be compared with a teacher of depth: that pulls the
    wrong way, and nobody has published it.
    """
    inverse = sign['inverse_depth'] > sign['depth']
    kind = 'inverse depth' if inverse else 'depth'
    line = (
        f'teacher {config.model} predicts {kind}: correlation {sign["inverse_depth"]:+.2f} with '
        f'1 / depth, {sign["depth"]:+.2f} with depth; form {config.form}'
    )
    if config.form == 'inverse' and not inverse:
        raise ValueError(f"{line} pulls the wrong way; set teacher.form to 'literal'")
    if config.form == 'literal' and inverse:
        line += " pulls the wrong way, as the paper's equation does"
    return line


def teacher_answers(
    teacher: Teacher, frames: Frames, indices: np.ndarray | range, device: torch.device
) -> Iterator[np.ndarray]:
    """Yield what the teacher says of each frame, (S, S) float32."""
    for i in indices:
        image = (frames.image[i].astype(np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_STD
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        yield teacher(pixels.to(device))[0, 0].cpu().numpy()


def _fingerprint(teacher: Teacher) -> list[float]:
    """Return numbers that change when the weights do."""
    sums = [float(p.double().abs().sum()) for p in teacher.network.parameters()]
    return [float(len(sums)), float(np.sum(sums)), float(np.dot(sums, np.arange(len(sums))))]


def _column(values: list[float] | np.ndarray) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32).view(1, 3, 1, 1)


def _first(error: Exception) -> str:
    return str(error).strip().partition('\n')[0]
