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

"""Checkpoint folders: `config.json` beside `model.safetensors`, local or from the Hub."""

from collections.abc import Mapping
from dataclasses import asdict
import json
import os
from pathlib import Path
import shutil
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn, Tensor

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'


def find_checkpoint(source: str | Path, *, download: bool = False) -> Path:
    """
    Return the folder of a checkpoint.

    `source` is a folder or a Hub id, which is looked up among what was downloaded before, and
    fetched only with `download`. Raises FileNotFoundError or OSError when there is none, and
    ValueError when it holds only pickled weights: those can run code and are never loaded.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = _from_hub(str(source), download)
    if not (folder / WEIGHTS).is_file() and any(folder.glob('*.bin')):
        raise ValueError(
            f'{folder} holds pickled weights only (.bin), which are never loaded; '
            f'save them as {WEIGHTS}'
        )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f'{folder} is no checkpoint: it has no {name}')
    return folder


def _from_hub(source: str, download: bool) -> Path:
    # Imported here: it takes a tenth of a node's start, and a folder needs none of it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(source)
    except ValueError:
        raise FileNotFoundError(f'there is no folder {source}') from None
    try:
        return Path(
            snapshot_download(
                source, allow_patterns=[CONFIG, WEIGHTS], local_files_only=not download
            )
        )
    except Exception as error:  # the Hub's client raises its transport's errors as they come
        if not download:
            raise FileNotFoundError(
                f'there is no folder {source}, and no such Hub checkpoint was downloaded before; '
                'give a folder, or allow the download'
            ) from None
        reason = str(error).strip().partition('\n')[0]
        raise OSError(f'could not download {source} from the Hub: {reason}') from error


def read_config(folder: Path) -> dict[str, Any]:
    """Return `config.json` of a checkpoint; ValueError when it is not a JSON object."""
    path = folder / CONFIG
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is not JSON: {error}') from None
    if not isinstance(values, dict):
        raise ValueError(f'{path} is not a JSON object')
    return values


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return `model.safetensors` of a checkpoint on the CPU; ValueError when it is damaged."""
    path = folder / WEIGHTS
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f'{path} is damaged or no safetensors file: {error}') from None


def assign_weights(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """
    Load `weights` into `module`, in its own dtypes; a module on the meta device lands on the CPU.

    Raises ValueError, naming `where` they come from, unless every name and shape fits.
    """
    own = module.state_dict()
    misfits = {
        'missing': own.keys() - weights.keys(),
        'unknown': weights.keys() - own.keys(),
        'of another shape': {
            name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape
        },
    }
    faults = [
        f'{len(names)} {what} (such as {min(names)})' for what, names in misfits.items() if names
    ]
    if faults:
        raise ValueError(
            f'the weights in {where} do not fit its configuration: {"; ".join(faults)}'
        )
    meta = any(value.is_meta for value in own.values())
    if meta:
        # Copies: tensors as loaded may still be backed by the file.
        weights = {name: value.to(own[name].dtype, copy=True) for name, value in weights.items()}
    module.load_state_dict(weights, assign=meta)


class CheckpointedModel(nn.Module):
    """
    A network that can be saved as a checkpoint folder; its `__init__` takes one `config`.

    Fields:
        config: its configuration, a dataclass of what JSON can hold.

    """

    config: Any

    def save_pretrained(self, save_directory: str | Path, *, half: bool = False) -> None:
        """
        Write config.json and model.safetensors into a folder, each whole or not at all.

        `half` stores weights as float16 (norms and biases stay float32).
        """
        target = Path(save_directory)
        target.mkdir(parents=True, exist_ok=True)
        weights = {name: value.contiguous() for name, value in self.state_dict().items()}
        if half:
            weights = {name: x.half() if x.ndim > 1 else x for name, x in weights.items()}
        with TemporaryDirectory(prefix='.saving-', dir=target) as folder:
            config = json.dumps(asdict(self.config), sort_keys=True, indent=2)
            (Path(folder) / CONFIG).write_text(config, encoding='utf-8')
            save_file(weights, Path(folder) / WEIGHTS)
            # safetensors writes for its owner's eyes only.
            shutil.copymode(Path(folder) / CONFIG, Path(folder) / WEIGHTS)
            for name in (WEIGHTS, CONFIG):
                os.replace(Path(folder) / name, target / name)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None) -> str:
        """Upload the checkpoint to a model repository of the Hub; return the commit's address."""
        from huggingface_hub import HfApi

        hub = HfApi()
        hub.create_repo(repo_id, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            commit = hub.upload_folder(
                repo_id=repo_id, folder_path=folder, allow_patterns=[CONFIG, WEIGHTS]
            )
        return str(commit.commit_url)
