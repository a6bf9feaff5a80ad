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
Where the rover is at any time: a smooth drive, its velocity, and what its inertial unit feels.

Here world and body have x ahead, y left, z up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MOON_GRAVITY = 1.62
"""Metres a second squared."""

KNOT_S = 0.25
"""Seconds between the knots of a drive; what changes faster, the suspension swallows."""

WHEELBASE, TRACK = 1.2, 1.0
"""Metres between axles and between wheels of an axle."""


@dataclass(frozen=True)
class Pose:
    """
    Where a frame is in the world (x forward at the start, y left, z up).

    Fields:
        position: its origin, (3,) metres.
        rotation: its axes as columns, (3, 3).

    """

    position: np.ndarray
    rotation: np.ndarray

    def then(self, other: 'Pose') -> 'Pose':
        """Return `other`, given in this frame, in the world."""
        return Pose(self.position + self.rotation @ other.position, self.rotation @ other.rotation)


@dataclass(frozen=True)
class BSpline:
    """
    A uniform cubic B-spline: twice continuously differentiable, smoother than its knots.

    Fields:
        step: seconds between knots; the first lies at −step.
        knots: (N, C) control values.

    """

    step: float
    knots: np.ndarray

    def at(self, t: np.ndarray, derivative: int = 0) -> np.ndarray:
        """Return values, or first or second derivatives by time, at times t (T,), (T, C)."""
        u, first = self._place(t)
        weights = _WEIGHTS[derivative](u[:, None]) / self.step**derivative
        return np.einsum('tk,tkc->tc', weights, self.knots[first[:, None] + np.arange(4)])

    @classmethod
    def fit(cls, t: np.ndarray, values: np.ndarray, step: float) -> 'BSpline':
        """Return the spline nearest to `values` (T, C) at times t (T,) ≥ 0 by least squares."""
        spline = cls(step, np.zeros((int(np.ceil(t[-1] / step)) + 4, values.shape[1])))
        u, first = spline._place(t)
        matrix = np.zeros((len(t), len(spline.knots)))
        np.put_along_axis(matrix, first[:, None] + np.arange(4), _WEIGHTS[0](u[:, None]), 1)
        # Second differences of the knots, lightly, carry it over gaps between the samples.
        bend = 0.01 * np.diff(np.eye(len(spline.knots)), 2, axis=0)
        target = np.concatenate([values, np.zeros((len(bend), values.shape[1]))])
        return cls(step, np.linalg.lstsq(np.concatenate([matrix, bend]), target, rcond=None)[0])

    def _place(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scaled = np.asarray(t, float) / self.step
        first = np.clip(scaled.astype(int), 0, len(self.knots) - 4)
        return scaled - first, first


def _polynomials(*coefficients: tuple[float, ...]) -> Callable[[np.ndarray], np.ndarray]:
    rows = np.array(coefficients) / 6
    return lambda u: u ** np.arange(rows.shape[1]) @ rows.T


_WEIGHTS = (
    _polynomials((1, -3, 3, -1), (4, 0, -6, 3), (1, 3, 3, -3), (0, 0, 0, 1)),
    _polynomials((-3, 6, -3), (0, -12, 9), (3, 6, -9), (0, 0, 3)),
    _polynomials((6, -6), (-12, 18), (6, -18), (0, 6)),
)


@dataclass(frozen=True, eq=False)
class Course:
    """
    Which way a rover takes over the plain, whatever the ground.

    Fields:
        stamps_ns: (N,) int64, of the frames.
        plane: x, y (metres) and heading (radians, not wrapped) by seconds since the first stamp.

    """

    stamps_ns: np.ndarray
    plane: BSpline

    def first(self, count: int) -> 'Course':
        """Return the course of the first frames; ValueError when it has fewer."""
        if count > len(self.stamps_ns):
            raise ValueError(
                f'{count} frames are asked for, but the trajectory has {len(self.stamps_ns)}'
            )
        return Course(self.stamps_ns[:count], self.plane)

    def seconds(self) -> np.ndarray:
        """Return the frames' times since the first, (N,) seconds."""
        return (self.stamps_ns - self.stamps_ns[0]) / 1e9

    def points(self, spacing: float = 0.5) -> np.ndarray:
        """Return (M, 2) points in metres along the way, about `spacing` apart."""
        end = self.seconds()[-1]
        fine = self.plane.at(np.linspace(0, end, int(end / KNOT_S) * 2 + 2))[:, :2]
        gone = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
        stops = np.arange(0, gone[-1] + spacing, spacing)
        return np.stack([np.interp(stops, gone, fine[:, k]) for k in range(2)], -1)


def read_trajectory(file: str | Path) -> Course:
    """
    Return the way of a LuSNAR rover from a CSV: timestamp [ns], x, y, z, qw, qx, qy, qz.

    Only the plan is taken, x, y and heading: height and attitude follow the ground it is driven
    over. Axes are LuSNAR's (y right). Raises ValueError when the file is no such table.
    """
    try:
        lines = Path(file).read_text().splitlines()
        rows = [line.split(',') for line in lines if line[:1].isdigit()]
        stamps = np.array([int(row[0]) for row in rows], np.int64)
        values = np.array([[float(v) for v in row[1:8]] for row in rows])
    except ValueError as error:
        raise ValueError(f'{file}: not a table of numbers: {error}') from None
    if values.ndim != 2 or values.shape[1] != 7 or len(values) < 2:
        raise ValueError(f'{file}: rows timestamp,x,y,z,qw,qx,qy,qz are expected, two at least')
    if (np.diff(stamps) <= 0).any() or not np.isfinite(values).all():
        raise ValueError(f'{file}: stamps must grow, and values must be finite')
    w, x, y, z = values[:, 3:].T
    heading = np.unwrap(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))
    plan = np.stack([values[:, 0], -values[:, 1], -heading], -1)
    return Course(stamps, BSpline.fit((stamps - stamps[0]) / 1e9, plan, 2 * KNOT_S))


class Drive:
    """A course driven over ground: pose, velocity and inertial measurements at any time."""

    def __init__(
        self, course: Course, height_at: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ) -> None:
        """`height_at` gives the ground's height in metres at points x, y (N,)."""
        self.course = course
        end = course.seconds()[-1]
        times = np.arange(-1, int(np.ceil(end / KNOT_S)) + 3) * KNOT_S
        # Before its start and after its end the course goes straight on.
        inside = np.clip(times, 0, end)
        plan = course.plane.at(inside) + (times - inside)[:, None] * course.plane.at(inside, 1)
        self._spline = BSpline(KNOT_S, np.concatenate([plan, _standing(plan, height_at)], 1))

    def pose(self, t: float) -> Pose:
        """Return the body's pose `t` seconds after the first frame."""
        x, y, heading, z, pitch, roll = self._spline.at(np.array([t]))[0]
        return Pose(np.array([x, y, z]), _rotations(np.array([[heading, pitch, roll]]))[0])

    def velocity(self, t: float) -> np.ndarray:
        """Return the body's velocity in the world, (3,) m/s."""
        return self._spline.at(np.array([t]), 1)[0, [0, 1, 3]]

    def inertial(self, t: np.ndarray, lever: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Return what an ideal inertial unit at `lever` (3,) metres in the body measures.

        Angular velocity (T, 3) rad/s and specific force (T, 3) m/s² in body axes: acceleration
        less gravity, so that at rest it points up with 1.62 m/s².
        """
        angles, rates, curvature = (self._spline.at(t, k) for k in range(3))
        rotation = _rotations(angles[:, [2, 4, 5]])
        omega = _body_rates(angles[:, [4, 5]], rates[:, [2, 4, 5]])
        h = 1e-4
        later, sooner = (
            _body_rates(
                angles[:, [4, 5]] + s * rates[:, [4, 5]],
                rates[:, [2, 4, 5]] + s * curvature[:, [2, 4, 5]],
            )
            for s in (h, -h)
        )
        turn = (later - sooner) / (2 * h)
        force = curvature[:, [0, 1, 3]] + [0.0, 0.0, MOON_GRAVITY]
        force = np.einsum('tji,tj->ti', rotation, force)
        force += np.cross(turn, lever) + np.cross(omega, np.cross(omega, lever))
        return omega, force


def _standing(
    plan: np.ndarray, height_at: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return height, pitch (nose up negative) and roll with four wheels on the ground, (N, 3)."""
    ahead = np.stack([np.cos(plan[:, 2]), np.sin(plan[:, 2])], -1)
    left = np.stack([-ahead[:, 1], ahead[:, 0]], -1)
    wheels = [
        height_at(*(plan[:, :2] + 0.5 * (a * WHEELBASE * ahead + b * TRACK * left)).T)
        for a in (1, -1)
        for b in (1, -1)
    ]
    fl, fr, rl, rr = wheels
    climb, bank = (fl + fr - rl - rr) / (2 * WHEELBASE), (fl + rl - fr - rr) / (2 * TRACK)
    pitch = -np.arctan(climb)
    return np.stack([sum(wheels) / 4, pitch, np.arctan(bank * np.cos(pitch))], -1)


def _rotations(angles: np.ndarray) -> np.ndarray:
    """Return rotations (T, 3, 3) from heading, pitch and roll (T, 3): about z, then y, then x."""
    (cz, cy, cx), (sz, sy, sx) = np.cos(angles.T), np.sin(angles.T)
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def _body_rates(angles: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Return angular velocity (T, 3) in body axes from pitch, roll and all three's rates."""
    pitch, roll = angles.T
    heading_rate, pitch_rate, roll_rate = rates.T
    cos, sin = np.cos(roll), np.sin(roll)
    return np.stack(
        [
            roll_rate - heading_rate * np.sin(pitch),
            pitch_rate * cos + heading_rate * np.cos(pitch) * sin,
            -pitch_rate * sin + heading_rate * np.cos(pitch) * cos,
        ],
        -1,
    )
