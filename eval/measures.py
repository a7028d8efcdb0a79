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

from sam_uniref.eval.bootstrap import Statistic, bootstrap

Values = NDArray[np.float64]


def mean_of_ratios(parts: Values) -> Values:
    """The metric of ``(..., units, 2 * ratios)`` parts, ``(...)``; a ratio without a denominator is 0."""
    return np.asarray(_ratios(parts)[0].mean(axis=-1))


def mean_of_known_ratios(parts: Values) -> Values:
    """As `mean_of_ratios`, but a ratio without a denominator is left out: a group that a draw has no object of."""
    ratios, known = _ratios(parts)
    return np.asarray(ratios.sum(axis=-1) / np.maximum(known.sum(axis=-1), 1))


@dataclass(frozen=True)
class Metric:
    """One number, and what it is made of.

    Attributes:
        value: Of all units.
        parts: ``(units, 2 * ratios)``: what each unit adds to the numerator and to the denominator of each ratio, in
            turns. The statistic of them is the value.
        unit: What is resampled for the interval: samples within a unit are not independent of each other.
        statistic: `mean_of_ratios` or `mean_of_known_ratios`.
    """

    value: float
    parts: Values
    unit: str
    statistic: Statistic = mean_of_ratios

    def reported(self) -> dict[str, Any]:
        """Value, ends of the 95 % interval, number of units, and what these are, for JSON."""
        told = bootstrap(self.parts, self.statistic, unit=self.unit)
        return {"value": self.value, "low": told.low, "high": told.high, "n": len(self.parts), "unit": self.unit}


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

    def metric(
        self,
        value: float,
        *ratios: tuple[Sequence[float] | Values, Sequence[float] | Values],
        statistic: Statistic = mean_of_ratios,
    ) -> Metric:
        """A metric of all samples.

        Args:
            value: Of the metric.
            ratios: What each sample adds to the numerator and to the denominator of each ratio.
            statistic: From the ratios to the value.
        """
        columns = [np.asarray(column, np.float64) for ratio in ratios for column in ratio]
        parts = [np.bincount(self._number, column, minlength=self._count) for column in columns]
        return Metric(value, np.stack(parts, axis=1), self._unit, statistic)


def reported(metrics: Mapping[str, Metric]) -> dict[str, dict[str, Any]]:
    """Of each metric what ``results.json`` has."""
    return {name: metric.reported() for name, metric in metrics.items()}


def _ratios(parts: Values) -> tuple[Values, NDArray[np.bool_]]:
    """The ratios ``(..., ratios)`` of ``(..., units, 2 * ratios)`` parts, and which of them have a denominator."""
    sums = parts.sum(axis=-2)
    above, below = sums[..., ::2], sums[..., 1::2]
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0), below != 0
