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
Time the whole predictor beside what a user would run instead, image to arrays of its size.

    python -m benchmarks.alternatives [--repeats N] [--threads N] [--device D] [--output JSON]

Same image, same run, in turn, a process each, so that no program's threads hold up another's: the
shipped network on the backend that `auto` takes, on torch eager and, on the CPU, on the one that
`auto` takes in fp32 and on `int8`; the same network with transformers' SamVisionModel as its
encoder, eager; SegFormer-B0, Depth Anything V2 Small, UNet++ (ResNet-34) and DPT-Large through
transformers' and smp's own code, processors and post-processing included. The others' weights are
random, which changes what they say and not how long they take. One large matrix product takes its
turn too: at its rate, our network's operations take the least that any program can need in
float32.

A shared machine's speed changes within seconds. So the programs of our network, a second a round,
take turns among themselves, and many; then the default and the others do, at several seconds a
round. Ratios are of medians of the same rounds.
"""

from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Any

from benchmarks.own_process import OwnProcess, Program
from benchmarks.record import write_record
from benchmarks.roofline import matrix_product
from benchmarks.sam import flops, with_sam_vision_model
from benchmarks.setting import arguments, camera_image, prepare, SIDE
from lunar_perception import UnifiedPredictor
from lunar_perception.timing import run_in_turn, spreads
import numpy as np
import segmentation_models_pytorch as smp
from segmentation_models_pytorch.encoders._preprocessing import preprocess_input
import torch
from torch import nn
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
)

OUR_TURNS = 6
"""Turns that the programs of our network take for each of the others'."""

CLASSES = 5
DPT_SIDE = 384
IMAGENET = {
    'mean': (0.485, 0.456, 0.406),
    'std': (0.229, 0.224, 0.225),
    'input_range': (0, 1),
    'input_space': 'RGB',
}
"""What smp's get_preprocessing_fn would fetch for ResNet-34."""
PAIRS = {
    'segformer-b0 + depth-anything-v2-small': ('segformer-b0', 'depth-anything-v2-small'),
    'unet++ + dpt-large': ('unet++', 'dpt-large'),
}


def main() -> None:
    parser = arguments(__doc__.splitlines()[1], repeats=7)
    options = parser.parse_args()
    names = [*OURS, *ALTERNATIVES]
    if torch.device(options.device).type != 'cpu':
        names = [name for name in names if name not in ON_THE_CPU]
    with ExitStack() as processes:
        programs = {
            name: processes.enter_context(OwnProcess(partial(make, name, options)))
            for name in (*names, 'product')
        }
        ours = run_in_turn(
            {name: programs[name] for name in names if name in OURS}, OUR_TURNS * options.repeats
        )
        others = {name: programs[name] for name in ('default', *ALTERNATIVES, 'product')}
        times = run_in_turn(others, options.repeats)
    product_rate = programs['product'].about['operations'] / median(times.pop('product'))
    operations = network_flops()
    default = median(times.pop('default'))
    seconds = {name: median(samples) for name, samples in times.items()}
    for pair, parts in PAIRS.items():
        seconds[pair] = sum(seconds[part] for part in parts)
    faster = {name: median(samples) / median(ours['default']) for name, samples in ours.items()}
    faster |= {name: s / default for name, s in seconds.items()}
    results = {
        'side': SIDE,
        'programs': {name: programs[name].about for name in names},
        'milliseconds': spreads(ours | times),
        'default_beside_others_milliseconds': round(1e3 * default, 3),
        'pair_milliseconds': {pair: round(1e3 * seconds[pair], 3) for pair in PAIRS},
        'gflop': round(operations / 1e9, 1),
        'product_gflop_per_s': round(product_rate / 1e9, 1),
        'least_milliseconds_at_that_rate': round(1e3 * operations / product_rate, 1),
        'default_is_faster_by': {name: round(ratio, 3) for name, ratio in faster.items()},
    }
    print(results)
    if options.output:
        write_record(options.output, results)


def make(name: str, options: Namespace) -> tuple[Program, dict[str, Any]]:
    """Return a program by its name, and what is to be told of it."""
    synchronise = prepare(options)
    torch.manual_seed(0)
    image, device = camera_image(), options.device
    if name == 'product':
        program, operations = matrix_product(torch.device(device))
        about: dict[str, Any] = {'operations': operations}
    elif name in OURS:
        predictor = OURS[name](device)
        eager = UnifiedPredictor.from_pretrained(device=device, backend='torch')
        program = partial(labels_and_depth, predictor, image)
        about = {
            'labels_as_eager': float((predictor(image).label == eager(image).label).mean()),
            'parameters_millions': parameters_millions(eager.model),
            'backend': predictor.backend,
        }
    else:
        network, program = ALTERNATIVES[name](image, device)
        about = {'parameters_millions': parameters_millions(network)}

    def run() -> None:
        program()
        synchronise()

    return run, about


def network_flops() -> int:
    """Return the operations of the shipped network's pass over one image."""
    model = UnifiedPredictor.from_pretrained(backend='torch').model
    return flops(lambda: model(torch.zeros(1, 3, SIDE, SIDE)))


def sam_vision_predictor(device: str) -> UnifiedPredictor:
    """Return the predictor on torch eager, with transformers' SamVisionModel as its encoder."""
    model = UnifiedPredictor.from_pretrained(device=device, backend='torch').model
    return UnifiedPredictor(with_sam_vision_model(model, SIDE), device=device, backend='torch')


OURS: dict[str, Callable[[str], UnifiedPredictor]] = {
    'default': lambda device: UnifiedPredictor.from_pretrained(device=device),
    'eager': lambda device: UnifiedPredictor.from_pretrained(device=device, backend='torch'),
    'sam-vision-model': sam_vision_predictor,
    'fp32': lambda device: UnifiedPredictor.from_pretrained(device=device, precision='fp32'),
    'int8': lambda device: UnifiedPredictor.from_pretrained(device=device, backend='int8'),
}
ON_THE_CPU = ('fp32', 'int8')


def labels_and_depth(predictor: UnifiedPredictor, image: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return label and depth (H, W)."""
    prediction = predictor(image)
    return prediction.label, prediction.depth


def segformer(image: np.ndarray, device: str) -> tuple[nn.Module, Program]:
    """Return SegFormer-B0, and what gives its labels (H, W) of the image."""
    network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES))
    network.to(device).eval()
    processor = SegformerImageProcessor(size={'height': SIDE, 'width': SIDE})

    @torch.inference_mode()
    def run() -> np.ndarray:
        inputs = processor(images=image, return_tensors='pt').to(device)
        output = network(**inputs)
        sizes = [image.shape[:2]]
        return processor.post_process_semantic_segmentation(output, sizes)[0].cpu().numpy()

    return network, run


def depth_anything(image: np.ndarray, device: str) -> tuple[nn.Module, Program]:
    """Return Depth Anything V2 Small, and what gives its depth (H, W) of the image."""
    backbone = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        out_features=['stage3', 'stage6', 'stage9', 'stage12'],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=384,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
        depth_estimation_type='metric',
        max_depth=80,
    )
    processor = DPTImageProcessor(
        size={'height': SIDE, 'width': SIDE}, keep_aspect_ratio=True, ensure_multiple_of=14
    )
    return estimate_depth(DepthAnythingForDepthEstimation(config), processor, image, device)


def dpt_large(image: np.ndarray, device: str) -> tuple[nn.Module, Program]:
    """Return DPT-Large at its own 384², and what gives its depth (H, W) of the image."""
    config = DPTConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        backbone_out_indices=[5, 11, 17, 23],
        neck_hidden_sizes=[256, 512, 1024, 1024],
        image_size=DPT_SIDE,
    )
    processor = DPTImageProcessor(size={'height': DPT_SIDE, 'width': DPT_SIDE})
    return estimate_depth(DPTForDepthEstimation(config), processor, image, device)


def estimate_depth(
    network: nn.Module, processor: DPTImageProcessor, image: np.ndarray, device: str
) -> tuple[nn.Module, Program]:
    """Return the network, and what gives its depth (H, W) of the image."""
    network.to(device).eval()

    @torch.inference_mode()
    def run() -> np.ndarray:
        inputs = processor(images=image, return_tensors='pt').to(device)
        output = network(**inputs)
        sizes = [image.shape[:2]]
        depth = processor.post_process_depth_estimation(output, sizes)[0]['predicted_depth']
        return depth.cpu().numpy()

    return network, run


def unet_plus_plus(image: np.ndarray, device: str) -> tuple[nn.Module, Program]:
    """Return UNet++ on a ResNet-34, and what gives its labels (H, W) of the image."""
    network = smp.UnetPlusPlus('resnet34', encoder_weights=None, classes=CLASSES)
    network.to(device).eval()

    @torch.inference_mode()
    def run() -> np.ndarray:
        pixels = torch.from_numpy(preprocess_input(image, **IMAGENET).astype(np.float32))
        scores = network(pixels.permute(2, 0, 1)[None].to(device))[0]
        return scores.argmax(dim=0).cpu().numpy()

    return network, run


ALTERNATIVES: dict[str, Callable[[np.ndarray, str], tuple[nn.Module, Program]]] = {
    'segformer-b0': segformer,
    'depth-anything-v2-small': depth_anything,
    'unet++': unet_plus_plus,
    'dpt-large': dpt_large,
}


def parameters_millions(network: nn.Module) -> float:
    """Return how many million parameters a network has."""
    return round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2)


if __name__ == '__main__':
    main()
