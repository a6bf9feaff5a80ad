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
Segmentation, depth and calibration metrics, pooled over every pixel of every frame.

Everything is kept as sums and histograms of fixed size, so that memory does not grow with the
number of frames and parts evaluated apart can be merged.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lunar_perception.taxonomy import LUNAR_TERRAIN, Taxonomy, UNLABELLED
import numpy as np

PROTOCOLS = ('metric', 'normalised')
"""Depth in metres, or clipped to [0, NORMALISED_RANGE_M] and divided by it."""

NORMALISED_RANGE_M = 100.0

DISTANCE_EDGES_M = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0)
"""Lower edges of the bins of true depth; the last bin has no upper edge."""

CALIBRATION_BINS = 15

_DELTA = 1.25
# What is summed over pixels, by protocol, true class and distance.
_SUMS = ('valid', 'invalid', 'abs_rel', 'squared', 'delta1', 'delta2', 'delta3')
# Sparsification sorts by value in bins of 0.5 %, from 1e-6 to 1e3.
_SORT_BINS = 4096
_SORT_DECADES = (-6.0, 3.0)


class Reliability(NamedTuple):
    """Of each confidence bin that holds pixels: mean confidence, accuracy, number of pixels."""

    confidence: np.ndarray
    accuracy: np.ndarray
    pixels: np.ndarray


class Sparsification(NamedTuple):
    """
    Mean absolute relative error of the pixels left when a fraction is taken away.

    Taken away are those of largest relative uncertainty, or for the oracle, of largest error.
    """

    fraction: np.ndarray
    by_uncertainty: np.ndarray
    by_oracle: np.ndarray


class DistanceErrors(NamedTuple):
    """By bin of DISTANCE_EDGES_M: number of pixels, abs_rel, rmse (NaN in empty bins)."""

    pixels: np.ndarray
    abs_rel: np.ndarray
    rmse: np.ndarray


class Evaluation:
    """
    Pooled metrics of predictions against truth.

    Segmentation: pixels whose truth is UNLABELLED are left out; a prediction of UNLABELLED is a
    miss of the true class and nobody's false alarm. A class absent from truth and prediction
    has no IoU and does not enter the mean.

    Depth, for each protocol: pixels without a finite positive true depth (sky) are left out. A
    prediction that is not finite where the truth is can have no error: it is counted as
    `invalid_predictions`, misses every delta, and stays out of abs_rel and rmse.

    ECE: over labelled predictions, confidence quantised as in the node's message, 15 bins of
    equal width (Guo et al. 2017). AUSE: area between the sparsification curve, by uncertainty
    relative to depth, and the oracle's, for abs_rel (Poggi et al. 2020); curves by histogram.
    """

    def __init__(self, taxonomy: Taxonomy = LUNAR_TERRAIN) -> None:
        classes = len(taxonomy)
        self.taxonomy = taxonomy
        self.frames = 0
        self.confusion = np.zeros((classes, classes + 1), np.int64)
        """Pixels by true class and predicted class; the last column is UNLABELLED."""
        self._confidence = np.zeros((2, 256), np.int64)  # wrong, right; by quantised confidence
        bins = len(DISTANCE_EDGES_M)
        self._depth = np.zeros((len(PROTOCOLS), len(_SUMS), classes + 1, bins))
        # Pixel count and abs_rel; by sorted uncertainty, by sorted error.
        self._sorted = np.zeros((2, 2, _SORT_BINS))

    def update(
        self,
        label: np.ndarray | None,
        confidence: np.ndarray | None,
        depth: np.ndarray | None,
        uncertainty: np.ndarray | None,
        truth_label: np.ndarray,
        truth_depth: np.ndarray | None,
    ) -> None:
        """
        Add one frame; what is None is not evaluated.

        All arrays are (H, W). `label`, `truth_label`: uint8 ids or UNLABELLED; `confidence`:
        uint8 as in the message, or float in [0, 1]; `depth`, `truth_depth`: metres, +Inf for
        sky; `uncertainty`: metres, one sigma. Raises ValueError for sizes that differ and
        values out of range.
        """
        for name, array in (
            ('label', label),
            ('confidence', confidence),
            ('depth', depth),
            ('uncertainty', uncertainty),
            ('true depth', truth_depth),
        ):
            if array is not None and array.shape != truth_label.shape:
                raise ValueError(f'{name} {array.shape} does not fit truth {truth_label.shape}')
        truth = self._checked_ids(truth_label, 'true')
        if label is not None:
            self._add_labels(self._checked_ids(label, 'predicted'), confidence, truth)
        if depth is not None and truth_depth is not None:
            self._add_depth(depth, uncertainty, truth, truth_depth)
        self.frames += 1

    def merge(self, other: 'Evaluation') -> None:
        """Add what another evaluation has seen; ValueError when its taxonomy differs."""
        if other.taxonomy != self.taxonomy:
            raise ValueError(f"can't merge {other.taxonomy.name} into {self.taxonomy.name}")
        self.frames += other.frames
        self.confusion += other.confusion
        self._confidence += other._confidence
        self._depth += other._depth
        self._sorted += other._sorted

    def to_dict(self) -> dict[str, Any]:
        """Return the keys of metrics.json; None where there is nothing to measure."""
        iou = self.iou()
        depth = {protocol: self.depth_metrics(protocol) for protocol in PROTOCOLS}
        invalid = depth['metric'].pop('invalid_predictions')
        depth['normalised'].pop('invalid_predictions')
        return {
            'miou': _number(np.nanmean(iou)) if np.isfinite(iou).any() else None,
            'iou': dict(zip(self.taxonomy.names, map(_number, iou), strict=True)),
            **depth['metric'],
            'normalised': depth['normalised'],
            'invalid_predictions': invalid,
            'ece': self.ece(),
            'ause': self.ause(),
            'frames': self.frames,
        }

    def iou(self) -> np.ndarray:
        """Return intersection over union by class, float64; NaN for an absent class."""
        hits = np.diag(self.confusion)
        union = self.confusion.sum(axis=1) + self.confusion[:, :-1].sum(axis=0) - hits
        return _divide(hits, union)

    def depth_metrics(
        self, protocol: str = 'metric', classes: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """
        Return abs_rel, rmse, delta1, delta2, delta3 and invalid_predictions of a protocol.

        `classes` narrows the pixels to those of these true classes.
        """
        sums = self._depth[PROTOCOLS.index(protocol)].sum(axis=-1)
        if classes is not None:
            sums = sums[:, list(self.taxonomy.ids_of(classes))]
        total = dict(zip(_SUMS, sums.sum(axis=-1), strict=True))
        valid, seen = total['valid'], total['valid'] + total['invalid']
        return {
            'abs_rel': _number(_divide(total['abs_rel'], valid)),
            'rmse': _number(np.sqrt(_divide(total['squared'], valid))),
            **{key: _number(_divide(total[key], seen)) for key in ('delta1', 'delta2', 'delta3')},
            'invalid_predictions': int(total['invalid']),
        }

    def distance_errors(self, protocol: str = 'metric') -> DistanceErrors:
        """Return errors by true depth."""
        total = dict(zip(_SUMS, self._depth[PROTOCOLS.index(protocol)].sum(axis=1), strict=True))
        valid = total['valid']
        return DistanceErrors(
            valid, _divide(total['abs_rel'], valid), np.sqrt(_divide(total['squared'], valid))
        )

    def reliability(self) -> Reliability:
        """Return accuracy against confidence, by bin."""
        levels = np.arange(256) / 255
        index = np.ceil(levels * CALIBRATION_BINS).astype(int).clip(1) - 1  # bins (low, high]
        wrong, right = self._confidence
        count = np.bincount(index, wrong + right, CALIBRATION_BINS)
        confidence = np.bincount(index, (wrong + right) * levels, CALIBRATION_BINS)
        hits = np.bincount(index, right, CALIBRATION_BINS)
        used = count > 0
        return Reliability(
            confidence[used] / count[used], hits[used] / count[used], count[used].astype(np.int64)
        )

    def ece(self) -> float | None:
        """Return the expected calibration error, in [0, 1]."""
        confidence, accuracy, pixels = self.reliability()
        if not len(pixels):
            return None
        return float(np.abs(confidence - accuracy) @ pixels / pixels.sum())

    def sparsification(self) -> Sparsification | None:
        """Return the sparsification curves in steps of 1 %; None without uncertainty."""
        if not self._sorted[0, 0].any():
            return None
        fraction = np.arange(100) / 100
        by_uncertainty, by_oracle = (_sparsify(sums, fraction) for sums in self._sorted)
        return Sparsification(fraction, by_uncertainty, by_oracle)

    def ause(self) -> float | None:
        """Return the area between the sparsification curves, in units of abs_rel."""
        curves = self.sparsification()
        if curves is None:
            return None
        gap = curves.by_uncertainty - curves.by_oracle
        return float(((gap[1:] + gap[:-1]) / 2 * np.diff(curves.fraction)).sum())

    def _checked_ids(self, label: np.ndarray, whose: str) -> np.ndarray:
        """Return ids as integers, UNLABELLED as the number of classes."""
        classes = len(self.taxonomy)
        unknown = (label != UNLABELLED) & ((label < 0) | (label >= classes))
        if unknown.any():
            raise ValueError(
                f'{whose} label {label[unknown][0]} is not an id of {self.taxonomy.name}'
            )
        ids: np.ndarray = np.where(label == UNLABELLED, classes, label).astype(np.intp)
        return ids

    def _add_labels(
        self, label: np.ndarray, confidence: np.ndarray | None, truth: np.ndarray
    ) -> None:
        classes = len(self.taxonomy)
        known = truth < classes
        pairs = truth[known] * (classes + 1) + label[known]
        counts = np.bincount(pairs, minlength=self.confusion.size)
        self.confusion += counts.reshape(self.confusion.shape)
        if confidence is not None:
            chosen = known & (label < classes)
            level = _quantise(confidence)[chosen].astype(np.intp)
            right = label[chosen] == truth[chosen]
            counts = np.bincount(right * 256 + level, minlength=512)
            self._confidence += counts.reshape(2, 256)

    def _add_depth(
        self,
        depth: np.ndarray,
        uncertainty: np.ndarray | None,
        truth: np.ndarray,
        truth_depth: np.ndarray,
    ) -> None:
        seen = np.isfinite(truth_depth) & (truth_depth > 0)
        true_m, depth_m = truth_depth[seen].astype(float), depth[seen].astype(float)
        valid = np.isfinite(depth_m)
        bins = len(DISTANCE_EDGES_M)
        group = truth[seen] * bins + np.searchsorted(DISTANCE_EDGES_M, true_m, 'right') - 1
        metric_error = np.empty(0)
        for protocol, sums in zip(PROTOCOLS, self._depth, strict=True):
            t, d = true_m, depth_m
            if protocol == 'normalised':
                t, d = (np.clip(m, 0, NORMALISED_RANGE_M) / NORMALISED_RANGE_M for m in (t, d))
            d = np.where(valid, d, t)
            error = np.abs(d - t) / t
            with np.errstate(divide='ignore'):
                ratio = np.where(d > 0, np.maximum(d / t, t / d), np.inf)
            terms = [valid, ~valid, error, (d - t) ** 2]
            terms += [valid & (ratio < _DELTA**power) for power in (1, 2, 3)]
            for total, term in zip(sums, terms, strict=True):
                total += np.bincount(group, term, total.size).reshape(total.shape)
            if protocol == 'metric':
                metric_error = error[valid]
        if uncertainty is not None:
            relative = uncertainty[seen][valid] / np.maximum(depth_m[valid], 1e-9)
            for sums, key in zip(self._sorted, (relative, metric_error), strict=True):
                index = _sort_bin(key)
                sums += [
                    np.bincount(index, minlength=_SORT_BINS),
                    np.bincount(index, metric_error, _SORT_BINS),
                ]


def _quantise(confidence: np.ndarray) -> np.ndarray:
    """Return confidence as in the node's message, round(255 · p), uint8."""
    if confidence.dtype == np.uint8:
        return confidence
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError('confidence must lie in [0, 1]')
    level: np.ndarray = np.rint(confidence * 255).astype(np.uint8)
    return level


def _sort_bin(value: np.ndarray) -> np.ndarray:
    """Return the logarithmic bin of each value; what is not finite goes into the last."""
    low, high = _SORT_DECADES
    value = np.where(np.isfinite(value), value, np.inf).clip(10**low, 10**high)
    position = (np.log10(value) - low) / (high - low)
    index: np.ndarray = np.minimum(position * _SORT_BINS, _SORT_BINS - 1).astype(np.intp)
    return index


def _sparsify(sums: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Return the mean error of the smallest 1 − fraction of the sorted pixels."""
    pixels, error = np.pad(np.cumsum(sums, axis=1), ((0, 0), (1, 0)))
    left = (1 - fraction) * pixels[-1]
    mean: np.ndarray = np.interp(left, pixels, error) / left
    return mean


def _divide(a: Any, b: Any) -> np.ndarray:
    """Return a / b in float64, NaN where b is zero."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    out: np.ndarray = np.full(np.broadcast(a, b).shape, np.nan)
    np.divide(a, b, out=out, where=b != 0)
    return out


def _number(value: Any) -> float | None:
    """Return a float that JSON has, or None."""
    return float(value) if np.isfinite(value) else None
