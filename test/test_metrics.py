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

"""Metrics against torchmetrics and plain NumPy, on random and on adversarial inputs."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from lunar_perception.metrics import Evaluation
from lunar_perception.taxonomy import LUNAR_TERRAIN, SKY, UNLABELLED
import numpy as np
import pytest
import torch
from torchmetrics import JaccardIndex

KEYS = ['abs_rel', 'rmse', 'delta1', 'delta2', 'delta3']
SHAPE = (6, 7)

# Few classes at a time, so that some are absent from truth, from prediction, from both.
ids = st.lists(st.sampled_from([0, 1, 2, 3, 4]), min_size=1, max_size=3).flatmap(
    lambda classes: hnp.arrays(np.uint8, SHAPE, elements=st.sampled_from(classes))
)
unknown = hnp.arrays(bool, SHAPE)


def evaluate(label=None, confidence=None, depth=None, uncertainty=None, truth=None, truth_m=None):
    evaluation = Evaluation()
    truth = np.zeros(SHAPE, np.uint8) if truth is None else truth
    evaluation.update(label, confidence, depth, uncertainty, truth, truth_m)
    return evaluation


@settings(deadline=None, max_examples=50)
@given(truth=ids, label=ids, ignored=unknown)
def test_miou_agrees_with_torchmetrics(truth, label, ignored):
    truth = np.where(ignored, UNLABELLED, truth).astype(np.uint8)
    result = evaluate(label, truth=truth).to_dict()
    if ignored.all():
        assert result['miou'] is None
        return
    tensors = torch.from_numpy(label), torch.from_numpy(truth)
    options = {'task': 'multiclass', 'num_classes': 5, 'ignore_index': UNLABELLED}
    mean = JaccardIndex(**options)(*tensors)
    each = JaccardIndex(**options, average='none')(*tensors)
    assert result['miou'] == pytest.approx(float(mean), abs=1e-6)
    seen = truth != UNLABELLED
    for index, name in enumerate(LUNAR_TERRAIN.names):
        if index in truth[seen] or index in label[seen]:
            assert result['iou'][name] == pytest.approx(float(each[index]), abs=1e-6)
        else:
            assert result['iou'][name] is None


def test_unlabelled_prediction_misses_its_class_and_accuses_no_other():
    truth = np.array([[0, 0, 0, 2]], np.uint8)
    label = np.array([[0, 0, UNLABELLED, 2]], np.uint8)
    result = evaluate(label, truth=truth).to_dict()
    assert result['iou'] == {
        'regolith': pytest.approx(2 / 3), 'crater': None, 'rock': 1, 'mountain': None, 'sky': None
    }  # fmt: skip


def depth_oracle(depth, truth, scale=None):
    """Return KEYS and the number of invalid predictions, pixel by pixel."""
    errors, squares, hits, invalid = [], [], [0, 0, 0], 0
    pairs = [(d, t) for d, t in zip(depth.ravel(), truth.ravel(), strict=True)]
    pairs = [(float(d), float(t)) for d, t in pairs if np.isfinite(t) and t > 0]
    for d, t in pairs:
        if not np.isfinite(d):
            invalid += 1
            continue
        if scale is not None:
            d, t = min(max(d, 0), scale) / scale, min(t, scale) / scale
        errors.append(abs(d - t) / t)
        squares.append((d - t) ** 2)
        for power in range(3):
            hits[power] += d > 0 and max(d / t, t / d) < 1.25 ** (power + 1)
    means = [np.mean(errors), np.sqrt(np.mean(squares))] if errors else [None, None]
    deltas = [hit / len(pairs) if pairs else None for hit in hits]
    return dict(zip(KEYS, means + deltas, strict=True)), invalid


awkward = st.sampled_from([0.0, -3.0, 2.0**-10, 100.0, 150.0, np.inf, -np.inf, np.nan])
metres = hnp.arrays(np.float32, SHAPE, elements=st.one_of(st.floats(0.25, 120, width=32), awkward))


@settings(deadline=None, max_examples=50)
@given(depth=metres, truth_m=metres, truth=ids)
def test_depth_agrees_with_a_pixelwise_oracle(depth, truth_m, truth):
    evaluation = evaluate(depth=depth, truth=truth, truth_m=truth_m)
    result = evaluation.to_dict()
    expected, invalid = depth_oracle(depth, truth_m)
    normalised, _ = depth_oracle(depth, truth_m, scale=100.0)
    assert {key: result[key] for key in KEYS} == pytest.approx(expected)
    assert result['normalised'] == pytest.approx(normalised)
    assert result['invalid_predictions'] == invalid

    rock = np.where(truth == 2, truth_m, np.nan)
    expected, invalid = depth_oracle(depth, rock)
    on_rock = evaluation.depth_metrics(classes=['rock'])
    assert on_rock == pytest.approx({**expected, 'invalid_predictions': invalid})
    json.dumps(result, allow_nan=False)


def test_nothing_to_measure_is_null_not_nan():
    sky = np.full(SHAPE, SKY, np.uint8)
    infinite = np.full(SHAPE, np.inf, np.float32)
    result = evaluate(sky, None, infinite, infinite, sky, infinite).to_dict()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result) == [
        'miou', 'iou', *KEYS, 'normalised', 'invalid_predictions', 'ece', 'ause', 'frames'
    ]  # fmt: skip
    assert result['miou'] == 1
    assert [result[key] for key in KEYS] == [None] * 5
    assert (result['ece'], result['ause'], result['frames']) == (None, None, 1)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 4))
def test_merged_parts_equal_the_whole(seed, frames):
    rng = np.random.default_rng(seed)
    whole, left, right = Evaluation(), Evaluation(), Evaluation()
    for _ in range(frames):
        frame = (
            rng.integers(0, 5, SHAPE, np.uint8),
            rng.random(SHAPE, np.float32),
            rng.uniform(1, 50, SHAPE).astype(np.float32),
            rng.uniform(0.1, 5, SHAPE).astype(np.float32),
            rng.integers(0, 5, SHAPE, np.uint8),
            rng.uniform(1, 50, SHAPE).astype(np.float32),
        )
        whole.update(*frame)
        (left if rng.random() < 0.5 else right).update(*frame)
    left.merge(right)
    flat, merged = whole.to_dict(), left.to_dict()
    assert merged.pop('iou') == flat.pop('iou')
    assert merged.pop('normalised') == pytest.approx(flat.pop('normalised'))
    assert merged == pytest.approx(flat)


def test_calibration_error_by_hand():
    truth = np.zeros((1, 8), np.uint8)
    truth[0, 7] = UNLABELLED
    label = np.array([[0, 0, 0, 1, 0, 1, UNLABELLED, 0]], np.uint8)
    confidence = np.array([[0.9, 0.9, 0.9, 0.9, 0.4, 0.4, 1.0, 1.0]])
    evaluation = evaluate(label, confidence, truth=truth)
    high, low = 230 / 255, 102 / 255  # round(255 · 0.9), round(255 · 0.4)
    expected = (4 * abs(0.75 - high) + 2 * abs(0.5 - low)) / 6
    assert evaluation.to_dict()['ece'] == pytest.approx(expected)
    assert evaluation.reliability().pixels.tolist() == [2, 4]
    quantised = np.rint(confidence * 255).astype(np.uint8)
    assert evaluate(label, quantised, truth=truth).ece() == evaluation.ece()


def test_sparsification_against_sorting():
    rng = np.random.default_rng(0)
    shape = (80, 90)
    truth_m = rng.uniform(1, 40, shape)
    sigma = rng.uniform(0.01, 0.5, shape)
    depth = truth_m * (1 + rng.normal(size=shape) * sigma)
    depth = np.maximum(depth, 0.1)
    evaluation = evaluate(
        depth=depth, uncertainty=sigma * depth, truth=np.zeros(shape, np.uint8), truth_m=truth_m
    )
    error = (np.abs(depth - truth_m) / truth_m).ravel()
    curves = evaluation.sparsification()

    def sorted_curve(key):
        left = np.rint((1 - curves.fraction) * error.size).astype(int)
        return np.cumsum(error[np.argsort(key.ravel())])[left - 1] / left

    np.testing.assert_allclose(curves.by_uncertainty, sorted_curve(sigma), rtol=0.02)
    np.testing.assert_allclose(curves.by_oracle, sorted_curve(error), rtol=0.02)
    gap = sorted_curve(sigma) - sorted_curve(error)
    area = (gap.sum() - (gap[0] + gap[-1]) / 2) * 0.01
    assert evaluation.ause() == pytest.approx(area, rel=0.02)

    perfect = np.abs(depth - truth_m) / truth_m * depth
    best = evaluate(
        depth=depth, uncertainty=perfect, truth=np.zeros(shape, np.uint8), truth_m=truth_m
    )
    assert best.ause() == pytest.approx(0, abs=1e-9)


def test_unknown_uncertainty_is_taken_away_first():
    truth_m = np.full(SHAPE, 10.0)
    depth, uncertainty = truth_m.copy(), np.full(SHAPE, 0.1)
    depth[0], uncertainty[0] = 20, np.nan
    evaluation = evaluate(depth=depth, uncertainty=uncertainty, truth_m=truth_m)
    assert evaluation.ause() == pytest.approx(0, abs=1e-9)


def test_errors_by_distance():
    truth_m = np.array([[1.5, 1.5, 2.0, 500.0]])
    depth = np.array([[1.5, 3.0, 3.0, 400.0]])
    errors = evaluate(depth=depth, truth=np.zeros((1, 4), np.uint8), truth_m=truth_m)
    errors = errors.distance_errors()
    assert errors.pixels[[0, 1, 2, -1]].tolist() == [0, 2, 1, 1]
    np.testing.assert_allclose(errors.abs_rel[[0, 1, 2, -1]], [np.nan, 0.5, 0.5, 0.2])
    np.testing.assert_allclose(errors.rmse[[1, 2, -1]], [np.sqrt(1.5**2 / 2), 1, 100])


def test_bad_input_is_refused():
    label = np.zeros(SHAPE, np.uint8)
    with pytest.raises(ValueError, match='predicted label 7'):
        evaluate(np.full(SHAPE, 7, np.uint8), truth=label)
    with pytest.raises(ValueError, match='true label 5'):
        evaluate(label, truth=np.full(SHAPE, 5, np.uint8))
    with pytest.raises(ValueError, match=r'depth \(2, 2\) does not fit truth'):
        evaluate(depth=np.zeros((2, 2)), truth=label, truth_m=np.ones(SHAPE))
    with pytest.raises(ValueError, match='confidence'):
        evaluate(label, np.full(SHAPE, 1.5), truth=label)
