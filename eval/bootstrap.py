"""How sure a number is: percentile bootstrap intervals of a statistic, and of the difference of two methods.

Units are drawn again with replacement, as many as there are: images, classes, videos or objects. What is one unit
decides what the interval speaks of, so it is named in the result. Frames of a video and objects of a scene resemble
each other; draw videos and scenes then, each with its sums, by `ratio_of_sums`.

Notation: N units, R draws of N units each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]
Statistic = Callable[[Numbers], Numbers]
"""From ``(R, N, ...)``, N units' numbers in each of R draws, to ``(R,)``."""

RESAMPLES = 10_000
LEVEL = 0.95
# Numbers that are drawn at once: 32 MB.
_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A number with its percentile bootstrap interval.

    Attributes:
        value: Of the units as they are.
        low: Lower end.
        high: Upper end.
        level: Share of the draws that lies between, in 0-1.
        unit: What was drawn: ``image``, ``class``, ``video`` or ``object``.
        units: How many there are.
    """

    value: float
    low: float
    high: float
    level: float
    unit: str
    units: int

    @property
    def above_zero(self) -> bool:
        """Of a difference: whether the first method is ahead at this level."""
        return self.low > 0

    def __str__(self) -> str:
        """Such as ``0.712 [0.690, 0.733]``."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_of_units(drawn: Numbers) -> Numbers:
    """Statistic: the mean of one number a unit, ``(R, N)``: mIoU, J, F, Prec@t of hits."""
    return drawn.mean(axis=1)


def ratio_of_sums(drawn: Numbers) -> Numbers:
    """Statistic: the sum of the first number over the sum of the second, ``(R, N, 2)``; 0 where that is 0.

    oIoU of intersections and unions; the mean over objects of units that hold several, of their sums and counts.
    """
    sums = drawn.sum(axis=1)
    return np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] != 0)


def bootstrap(
    units: ArrayLike,
    statistic: Statistic = mean_of_units,
    *,
    unit: str,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The interval of a statistic. The same units in the same order and the same seed give the same interval.

    Args:
        units: ``(N,)`` or ``(N, ...)``, what the statistic needs of each unit.
        statistic: From ``(R, N, ...)`` to ``(R,)``.
        unit: What one is, such as ``image``.
        resamples: Draws.
        level: In 0-1.
        seed: Of the draws.

    Raises:
        ValueError: If there is no unit, a number is not finite, or an option is out of its range.
    """
    numbers = _checked(units, "units")
    _check_options(resamples, level)
    drawn = [statistic(numbers[rows]) for rows in _draws(numbers, resamples, seed)]
    return _interval(statistic(numbers[None]), drawn, level, unit, len(numbers))


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    statistic: Statistic = mean_of_units,
    *,
    unit: str,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The interval of the first method's statistic less the second's, on the same units in every draw.

    Args:
        first: ``(N, ...)``, the first method's numbers of each unit.
        second: The second method's of the same units in the same order.
        statistic: From ``(R, N, ...)`` to ``(R,)``.
        unit: What one is, such as ``image``.
        resamples: Draws.
        level: In 0-1.
        seed: Of the draws.

    Raises:
        ValueError: If there is no unit, the methods have not the same units, a number is not finite, or an option is
            out of its range.
    """
    ours, theirs = _checked(first, "first"), _checked(second, "second")
    if ours.shape != theirs.shape:
        raise ValueError(f"both methods need the same units, got numbers of {ours.shape} and {theirs.shape}")
    _check_options(resamples, level)
    drawn = [statistic(ours[rows]) - statistic(theirs[rows]) for rows in _draws(ours, resamples, seed)]
    return _interval(statistic(ours[None]) - statistic(theirs[None]), drawn, level, unit, len(ours))


def _checked(units: ArrayLike, name: str) -> Numbers:
    """Units' numbers.

    Raises:
        ValueError: If there is none, or one is not finite.
    """
    numbers = np.asarray(units, np.float64)
    if not numbers.ndim or not len(numbers):
        raise ValueError(f"{name} must hold at least one unit, got {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite, unit {int(np.argwhere(~np.isfinite(numbers))[0, 0])} is not")
    return numbers


def _check_options(resamples: int, level: float) -> None:
    """Refuse what gives no interval."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")


def _draws(numbers: Numbers, resamples: int, seed: int) -> Iterator[NDArray[Any]]:
    """Numbers of units, ``(at most R, N)`` at a time."""
    generator = np.random.default_rng(seed)
    rows = max(1, _AT_ONCE // numbers.size)
    for start in range(0, resamples, rows):
        yield generator.integers(0, len(numbers), (min(rows, resamples - start), len(numbers)))


def _interval(value: Numbers, drawn: list[Numbers], level: float, unit: str, units: int) -> Interval:
    """Percentiles of the draws.

    Raises:
        ValueError: If the statistic is not of a draw's units, or not finite.
    """
    values = np.concatenate(drawn)
    if value.shape != (1,) or not np.isfinite(values).all():
        raise ValueError("the statistic must give one finite number a draw, from (R, N, ...) to (R,)")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value[0]), float(low), float(high), level, unit, units)
