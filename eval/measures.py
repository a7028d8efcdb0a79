"""Metrics with their 95 % intervals.

All of the metrics that are reported are means of ratios of sums: a sum over sentences, images, classes or objects by
another sum over them, or the mean of several such ratios. So a resample of the units costs a sum, whatever the metric.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_uniref.eval.bootstrap import bootstrap

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One number, and what it is made of.

    Attributes:
        value: Of all units.
        parts: ``(units, 2 * ratios)``: what each unit adds to the numerator and to the denominator of each ratio, in
            turns. `mean_of_ratios` of them is the value.
        unit: What is resampled for the interval: samples within a unit are not independent of each other.
    """

    value: float
    parts: Values
    unit: str

    def reported(self) -> dict[str, Any]:
        """Value, ends of the 95 % interval, number of units, and what these are, for JSON."""
        low, high = interval(self.parts, self.unit)
        return {"value": self.value, "low": low, "high": high, "n": len(self.parts), "unit": self.unit}


class Units:
    """Samples grouped to the units that are resampled.

    Args:
        names: Of each sample, the unit that it belongs to.
        unit: What a unit is.
    """

    def __init__(self, names: Sequence[Hashable], unit: str) -> None:
        numbers: dict[Hashable, int] = {}
        self._number = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
        self._count, self._unit = len(numbers), unit

    def metric(self, value: float, *ratios: tuple[Sequence[float] | Values, Sequence[float] | Values]) -> Metric:
        """A metric of all samples.

        Args:
            value: Of the metric.
            ratios: What each sample adds to the numerator and to the denominator of each ratio.
        """
        columns = [np.asarray(column, np.float64) for ratio in ratios for column in ratio]
        parts = [np.bincount(self._number, column, minlength=self._count) for column in columns]
        return Metric(value, np.stack(parts, axis=1), self._unit)


def mean_of_ratios(parts: Values) -> Values:
    """The metric of ``(..., units, 2 * ratios)`` parts, ``(...)``; a ratio without a denominator is 0."""
    sums = parts.sum(axis=-2)
    above, below = sums[..., ::2], sums[..., 1::2]
    ratios: Values = np.divide(above, below, out=np.zeros_like(above), where=below != 0)
    return np.asarray(ratios.mean(axis=-1))


def interval(parts: Values, unit: str) -> tuple[float, float]:
    """Ends of the 95 % percentile bootstrap interval of `mean_of_ratios` over units.

    Args:
        parts: ``(units, 2 * ratios)``.
        unit: What is resampled.
    """
    told = bootstrap(parts, mean_of_ratios, unit=unit)
    return told.low, told.high


def reported(metrics: Mapping[str, Metric]) -> dict[str, dict[str, Any]]:
    """Of each metric what ``results.json`` has."""
    return {name: metric.reported() for name, metric in metrics.items()}
