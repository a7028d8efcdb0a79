"""Chance that is the same on every machine: a keyed stream of doubles and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Draws:
    """A stream of draws that is a pure function of its key.

    Everything comes from ``Generator(PCG64).random``, the draw that numpy keeps stable over versions and machines.

    Args:
        key: Whole numbers of at least 0: seed, split, index and whatever else sets streams apart.
    """

    def __init__(self, *key: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))

    def below(self, count: int) -> int:
        """A whole number from 0 to ``count - 1``."""
        return int(self._generator.random() * count)

    def between(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return low + self.below(high - low + 1)

    def uniform(self, low: float, high: float) -> float:
        """A number in ``[low, high)``, with 5 decimals so that later rounding can't differ."""
        return round(low + (high - low) * self._generator.random(), 5)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self._generator.random() < probability)

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def weighted(self, items: Sequence[T], weights: Sequence[float]) -> T:
        """One of the items, by weights above 0."""
        left = self._generator.random() * math.fsum(weights)
        for item, weight in zip(items, weights, strict=True):
            left -= weight
            if left < 0:
                return item
        return items[-1]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in another order."""
        mixed = list(items)
        for last in range(len(mixed) - 1, 0, -1):
            other = self.below(last + 1)
            mixed[last], mixed[other] = mixed[other], mixed[last]
        return mixed

    def grid(self, rows: int, columns: int, count: int) -> NDArray[np.int64]:
        """``(rows, columns)`` whole numbers from 0 to ``count - 1``."""
        return (self._generator.random((rows, columns)) * count).astype(np.int64)


def cos_sin(degrees: float) -> tuple[float, float]:
    """Cosine and sine to 6 decimals, where every machine's mathematics library agrees."""
    radians = math.radians(degrees)
    return round(math.cos(radians), 6), round(math.sin(radians), 6)
