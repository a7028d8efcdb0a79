"""J and F of the objects of one frame whose masks are maps of object ids.

Notation: a frame of H x W pixels. In a map 0 is background and 255 void, which is no object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.formats.files import VOID
from sam_uniref.eval.boundaries import Masks, boundary_accuracy, region_similarity

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
    known, found = ids_in(truth), ids_in(predicted)
    masks, wanted = masks_of(predicted, known), masks_of(truth, known)
    j, f = region_similarity(masks, wanted), boundary_accuracy(masks, wanted)
    scores = {i: (float(j[k]), float(f[k])) for k, i in enumerate(known)}
    # An object that is not there: nothing overlaps, and only a mask that fills the picture has no boundary either.
    scores |= {i: (0.0, float((predicted == i).all())) for i in set(found) - set(known)}
    return ScoredFrame(frozenset(known), frozenset(found), scores)


def values_in(ids: IdMap) -> list[int]:
    """All values of a map ``(H, W)``, in order."""
    # One begins in the first column or where its left neighbour differs, which few pixels do: nothing is sorted.
    begins = ids[:, 1:] != ids[:, :-1]
    return [int(value) for value in np.unique(np.concatenate([ids[:, 0], ids[:, 1:][begins]]))]


def ids_in(ids: IdMap) -> list[int]:
    """Object ids of a map ``(H, W)``, in order, without background and void."""
    return [value for value in values_in(ids) if value not in (BACKGROUND, VOID)]


def masks_of(ids: IdMap, object_ids: Sequence[int]) -> Masks:
    """Masks ``(K, H, W)`` bool of objects in a map ``(H, W)``."""
    masks = np.empty((len(object_ids), *ids.shape), bool)
    for mask, object_id in zip(masks, object_ids, strict=True):
        np.equal(ids, object_id, out=mask)
    return masks


def check_sizes(predicted: IdMap, truth: IdMap) -> None:
    """Refuse maps ``(H, W)`` of different sizes.

    Raises:
        ValueError: With both sizes.
    """
    if predicted.shape != truth.shape or truth.ndim != 2:
        raise ValueError(f"the prediction is {predicted.shape}, the truth {truth.shape} (height, width)")
