"""J and F of the objects of one frame whose masks are maps of object ids.

Notation: a frame of H x W pixels. In a map 0 is background and 255 void, which is no object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.formats.files import VOID
from sam_uniref.eval.boundaries import boundary_radius, score_pairs

BACKGROUND = 0

IdMap = NDArray[np.integer]


@dataclass(frozen=True)
class ScoredFrame:
    """One frame, prediction i against true object i.

    Attributes:
        truth: Ids in the true map.
        predicted: Ids in the predicted one.
        scores: J and F of each id in either, in 0-1.
    """

    truth: frozenset[int]
    predicted: frozenset[int]
    scores: dict[int, tuple[float, float]]

    def of(self, object_id: int) -> tuple[float, float]:
        """J and F of an object; 1 where neither map has it."""
        return self.scores.get(object_id, (1.0, 1.0))


def score_frame(predicted: IdMap, truth: IdMap) -> ScoredFrame:
    """J and F of every object of one frame, ids as they are. Void counts as background.

    Args:
        predicted: ``(H, W)`` object ids.
        truth: ``(H, W)`` object ids.

    Raises:
        ValueError: If the sizes differ.
    """
    check_sizes(predicted, truth)
    known, values = ids_in(truth), values_in(predicted)
    found = _objects(values)
    # One by one: all masks of a frame at once are more memory than the processor has at hand.
    j, f = score_pairs(((predicted == i, truth == i) for i in known), boundary_radius(*truth.shape))
    scores = {i: (float(j[k]), float(f[k])) for k, i in enumerate(known)}
    # An object that is not there: nothing overlaps, and only a mask that fills the picture has no boundary either.
    scores |= {i: (0.0, float(values == [i])) for i in set(found) - set(known)}
    return ScoredFrame(frozenset(known), frozenset(found), scores)


def values_in(ids: IdMap) -> list[int]:
    """All values of a map ``(H, W)``, in order."""
    line = np.ascontiguousarray(ids).ravel()
    # A value begins where the pixel before differs, which few do: little is left to sort.
    begins = np.flatnonzero(line[1:] != line[:-1]) + 1
    return [int(value) for value in np.unique(np.concatenate([line[:1], line[begins]]))]


def ids_in(ids: IdMap) -> list[int]:
    """Object ids of a map ``(H, W)``, in order, without background and void."""
    return _objects(values_in(ids))


def check_sizes(predicted: IdMap, truth: IdMap) -> None:
    """Refuse maps ``(H, W)`` of different sizes.

    Raises:
        ValueError: With both sizes.
    """
    if predicted.shape != truth.shape or truth.ndim != 2:
        raise ValueError(f"the prediction is {predicted.shape}, the truth {truth.shape} (height, width)")


def _objects(values: Sequence[int]) -> list[int]:
    """Those that are neither background nor void."""
    return [value for value in values if value not in (BACKGROUND, VOID)]
