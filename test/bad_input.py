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

"""What can be wrong with a node's input: by what is wrong, the input and what is said of it."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
import pickle
from typing import Any

import cv2
from in_process import HEIGHT, image_of, info_of, WIDTH
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tiny_network import save_tiny_network

HUGE = 2**32 - 1


@dataclass(frozen=True)
class Row:
    """
    One row of the table.

    Fields:
        says: message in diagnostics and log; `state`: the lifecycle state afterwards.
        frames: good frames until labels and depth are right again; None before there are any.

    """

    wrong: str
    says: str
    state: str
    frames: int | None

    def __str__(self) -> str:
        frames = 'once configured' if self.frames is None else self.frames
        return f'| {self.wrong} | {self.says} | {self.state} | {frames} |'


def float_image(value: float) -> dict[str, Any]:
    values = np.full((HEIGHT, WIDTH), value, '<f4')
    return {'encoding': '32FC1', 'step': 4 * WIDTH, 'data': array('B', values.tobytes())}


IMAGES: dict[str, tuple[dict[str, Any], str]] = {
    'unknown encoding': ({'encoding': 'rgb24'}, "encoding 'rgb24' is not one of"),
    'no encoding': ({'encoding': ''}, "encoding '' is not one of"),
    'truncated data': (
        {'data': array('B', bytes(100))},
        'the data is cut off: 100 of 162 bytes',
    ),
    'no data': ({'data': array('B')}, 'the data is cut off: 0 of 162 bytes'),
    'width zero': ({'width': 0}, 'the image is empty (0×6)'),
    'height zero': ({'height': 0}, 'the image is empty (9×0)'),
    'absurd width': ({'width': HUGE}, f'step 27 is less than a row of {HUGE} rgb8 pixels'),
    'absurd height': ({'height': HUGE}, f'the data is cut off: 162 of {27 * HUGE} bytes'),
    'NaN in a float image': (float_image(float('nan')), 'the float image holds NaN'),
    'a float image that is no colour': (
        float_image(40.0),
        'the float image holds values from 40 to 40',
    ),
    'odd width where pixels share colours': (
        {'encoding': 'yuyv'},
        'a yuyv image has an even width, not 9',
    ),
}


def bad_image(wrong: str) -> Image:
    message = image_of(7)
    for name, value in IMAGES[wrong][0].items():
        setattr(message, name, value)
    return message


K = [5.0, 0.0, 4.0, 0.0, 5.0, 2.5, 0.0, 0.0, 1.0]
CAMERA_INFOS: dict[str, tuple[dict[str, Any], str]] = {
    'CameraInfo that never came': ({}, 'no CameraInfo has come'),
    'CameraInfo with K = 0': ({'k': [0.0] * 9}, 'CameraInfo is uncalibrated (K[0] = 0)'),
    'negative focal length': ({'k': [-5.0, *K[1:]]}, 'fx = -5'),
    'focal length NaN': ({'k': [float('nan'), *K[1:]]}, 'fx = nan'),
    'CameraInfo of another size': (
        {'width': 640, 'height': 480},
        'CameraInfo is of 640×480 pixels, the image of 9×6',
    ),
    'CameraInfo of no size': ({'width': 0}, 'camera size 0×6 must be positive'),
    'CameraInfo of another frame': ({}, "CameraInfo is of frame 'ear', the image of 'eye'"),
}


def bad_info(wrong: str, image: Image) -> CameraInfo | None:
    """Return the CameraInfo that comes with `image`; None when none comes."""
    if 'never' in wrong:
        return None
    info = info_of(**CAMERA_INFOS[wrong][0])
    info.header.stamp = image.header.stamp
    info.header.frame_id = 'ear' if 'frame' in wrong else image.header.frame_id
    return info


PNG = cv2.imencode('.png', np.full((HEIGHT, WIDTH, 3), 3, np.uint8))[1].tobytes()
COMPRESSED = {
    'compressed image without data': b'',
    'compressed image cut off': PNG[:30],
    'compressed image that is none': b'nonsense',
}
COMPRESSED_SAYS = 'not a sound JPEG or PNG'


def compressed(data: bytes) -> CompressedImage:
    """Return an image of label 3 if `data` is PNG."""
    return CompressedImage(header=image_of(0).header, format='png', data=array('B', data))


def _cut(folder: Path) -> None:
    weights = folder / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:1000])


def _of_another(folder: Path) -> None:
    wider = save_tiny_network(folder.with_name('wider'), decoder_channels=12)
    (folder / 'model.safetensors').write_bytes((wider / 'model.safetensors').read_bytes())


def _pickled(folder: Path) -> None:
    with (folder / 'model.safetensors').open('wb') as file:
        pickle.dump({'weight': 1}, file)


def _torch_file(folder: Path) -> None:
    (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')


def _emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def _gone(folder: Path) -> None:
    _emptied(folder)
    folder.rmdir()


# What is done to the folder of weights.
WEIGHTS: dict[str, tuple[Callable[[Path], None], str]] = {
    'missing weights': (_gone, 'there is no folder'),
    'an empty folder for weights': (_emptied, 'it has no config.json'),
    'corrupt safetensors': (_cut, 'model.safetensors is damaged or no safetensors file'),
    'weights of another configuration': (_of_another, 'do not fit its configuration'),
    'a pickle named safetensors': (_pickled, 'is damaged or no safetensors file'),
    'a pickle offered as weights': (_torch_file, 'pickled weights only (.bin), which are never'),
}
PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    'unknown device': ({'device': 'abacus'}, "unknown device 'abacus'"),
    'a GPU that is not there': ({'device': 'cuda:99'}, 'cuda:99'),
    'parameter out of range': ({'max_age': -1.0}, 'max_age must lie in 0.0 … 3600.0'),
    'unknown class': ({'hazard_classes': ['boulder']}, "unknown class 'boulder'"),
}
