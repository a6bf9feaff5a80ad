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
`python -m train pictures`: what a run's network sees, beside the truth, like Figures 3 to 8.

One row a frame, of held-out frames spread evenly: image; true, predicted labels; true depth, the
teacher's, the predicted one, and the difference of depths. What a network does not say is left
out. A teacher's inverse depth, of unknown scale and shift, is aligned to the truth to be shown.
"""

from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

from lunar_perception.atomic import write_png
from lunar_perception.visualize import (
    color_depth,
    color_depth_errors,
    overlay_labels,
    side_by_side,
)
import numpy as np
import torch
from train.config import BaselineConfig, config_from_dict, TrainConfig
from train.evaluation import aligned_log_depth, answers, FramePrediction, HeldOut
from train.frames import load_frames
from train.networks import load_network
from train.single_task import load_baseline, SIZE
from train.teacher import Teacher, teacher_answers


@dataclass(frozen=True)
class PicturesCommand:
    """
    Draw the predictions of a finished run.

    Params:
        run: its folder.
        data: the scenes that it was trained and scored on.
        output: PNG to write.
        frames: how many rows.

    """

    run: Path
    data: Path
    output: Path
    frames: int = 4


def draw_pictures(command: PicturesCommand) -> None:
    """Write the picture; FileNotFoundError when the run is not finished."""
    path = command.run / 'config.json'
    if not path.exists() or not (command.run / 'metrics.json').exists():
        raise FileNotFoundError(f'{command.run} holds no finished run')
    values: dict[str, Any] = json.loads(path.read_text())
    teacher: Teacher | None = None
    model: Any
    if 'network' in values:
        baseline = config_from_dict(BaselineConfig, values)
        config, size = baseline, baseline.size or SIZE
        model = load_baseline(baseline.network, size, command.run)
    elif 'model' in values:
        config = unified = config_from_dict(TrainConfig, values)
        model = load_network(unified.model, command.run / 'weights')
        size = model.config.input_size
        if unified.teacher.model is not None:
            teacher = Teacher.load(unified.teacher.model, download=unified.teacher.download)
    else:
        raise ValueError(f'{command.run} is a run of a teacher, of which there are no pictures')
    frames = load_frames(command.data, config.data.cache_size, config.data.cache)
    _, test = frames.split(config.data.held_out, config.data.left_out)
    held_out = HeldOut(frames, test, size, 1, torch.device('cpu')).thinned(command.frames)
    taught: list[np.ndarray | None] = [None] * len(held_out.indices)
    if teacher is not None:
        taught = list(teacher_answers(teacher, frames, held_out.indices, held_out.device))
    rows = [
        _row(frames.image[i], frame, model, said)
        for i, frame, said in zip(
            held_out.indices, held_out.predictions(model), taught, strict=True
        )
    ]
    write_png(command.output, np.concatenate(rows))
    print(command.output)


def _row(
    image: np.ndarray, frame: FramePrediction, model: Any, taught: np.ndarray | None
) -> np.ndarray:
    label, _, depth, _ = answers(frame, model.config)
    panels = {'Image': image}
    if label is not None:
        panels['True labels'] = overlay_labels(image, frame.label)
        panels['Labels'] = overlay_labels(image, label)
    if depth is not None:
        panels['True depth'] = color_depth(frame.depth)
        if taught is not None:
            truth = torch.from_numpy(frame.depth)
            shown = aligned_log_depth(torch.from_numpy(taught), truth).exp().numpy()
            panels['Teacher'] = color_depth(np.where(frame.depth == np.inf, np.inf, shown))
        panels['Depth'] = color_depth(depth)
        panels['Difference'] = color_depth_errors(depth, frame.depth)
    return side_by_side(list(panels.values()), list(panels))
