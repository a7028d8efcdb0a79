"""J and F of one frame as DAVIS defines them: region similarity and boundary accuracy.

Notation: K objects, a frame of H x W pixels. All K objects of a frame are compared in one pass: a byte holds eight
objects' masks, a bit each, so that a shift of the picture shifts all of them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sam_uniref.images import Mask

Masks = NDArray[np.bool_]
Bits = NDArray[np.uint8]
Values = NDArray[np.float64]

BOUND = 0.008
"""How far apart boundaries may lie and still match, as a share of the picture's diagonal."""

_OBJECTS_A_BYTE = 8
# (256, 8): which objects a byte speaks of.
_OBJECTS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.int64)


def region_similarity(predicted: Masks, truth: Masks, *, void: Mask | None = None) -> Values:
    """J: intersection over union of each object; 1 where both masks are empty.

    Args:
        predicted: ``(K, H, W)`` bool.
        truth: ``(K, H, W)`` bool, object k's truth against object k's prediction.
        void: ``(H, W)`` bool, pixels that count for neither; DAVIS uses it in its unsupervised protocol only.

    Returns:
        ``(K,)`` in 0-1.

    Raises:
        ValueError: If a shape does not fit.
    """
    predicted, truth = _checked(predicted, truth, void)
    both = np.array([np.count_nonzero(p & t) for p, t in zip(predicted, truth, strict=True)], np.float64)
    either = np.array([np.count_nonzero(p | t) for p, t in zip(predicted, truth, strict=True)], np.float64)
    return np.divide(both, either, out=np.ones_like(both), where=either > 0)


def boundary_accuracy(predicted: Masks, truth: Masks, *, void: Mask | None = None, bound: float = BOUND) -> Values:
    """F: how well the boundaries of each object's masks match.

    Precision is the share of the predicted boundary within `boundary_radius` of the true one, recall the reverse, and
    F = 2PR / (P + R), 0 where both are 0. Both boundaries empty: 1; only one of them: 0. (A mask that fills the
    picture has no boundary either.)

    Args:
        predicted: ``(K, H, W)`` bool.
        truth: ``(K, H, W)`` bool.
        void: ``(H, W)`` bool, pixels that are taken out of both before their boundaries are drawn.
        bound: The tolerance as a share of the picture's diagonal.

    Returns:
        ``(K,)`` in 0-1.

    Raises:
        ValueError: If a shape does not fit.
    """
    predicted, truth = _checked(predicted, truth, void)
    radius = boundary_radius(truth.shape[1], truth.shape[2], bound)
    counts = [_matches(ours, theirs, radius) for ours, theirs in zip(_packed(predicted), _packed(truth), strict=True)]
    found, drawn, recalled, wanted = np.concatenate([np.zeros((4, 0)), *counts], axis=1)[:, : len(truth)]
    precision = np.divide(found, drawn, out=np.zeros_like(found), where=drawn > 0)
    recall = np.divide(recalled, wanted, out=np.zeros_like(found), where=wanted > 0)
    total = precision + recall
    scores = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    scores[(drawn == 0) & (wanted == 0)] = 1
    return scores


def boundary_radius(height: int, width: int, bound: float = BOUND) -> int:
    """The tolerance in pixels, rounded up: 8 at 854 x 480."""
    return math.ceil(bound * math.hypot(height, width))


def boundary_map(masks: NDArray) -> NDArray:
    """Pixels that differ from their right, lower or lower-right neighbour; a neighbour outside is no neighbour.

    The last row looks only to the right, the last column only down, and the last corner is no boundary.

    Args:
        masks: ``(..., H, W)`` bool, or bytes of eight objects.
    """
    drawn = np.zeros_like(masks)
    across = masks[..., :, :-1] ^ masks[..., :, 1:]
    down = masks[..., :-1, :] ^ masks[..., 1:, :]
    drawn[..., :, :-1] |= across
    drawn[..., :-1, :] |= down
    drawn[..., :-1, :-1] |= masks[..., :-1, :-1] ^ masks[..., 1:, 1:]
    return drawn


def dilate(bits: Bits, radius: int) -> Bits:
    """Every object in ``(H, W)`` bytes grown by a disk ``x^2 + y^2 <= radius^2``, exactly.

    A disk is a stack of horizontal runs, and the longer runs contain the shorter ones: from the disk's top to its
    middle the picture is smeared further sideways, and laid over the result at that height, above and below.
    """
    height = bits.shape[0]
    grown = np.zeros_like(bits)
    smeared = bits.copy()
    reach = 0
    for rise in range(radius, -1, -1):
        while reach < math.isqrt(radius * radius - rise * rise):
            reach += 1
            smeared[:, reach:] |= bits[:, :-reach]
            smeared[:, :-reach] |= bits[:, reach:]
        if rise < height:
            grown[rise:] |= smeared[: height - rise]
            grown[: height - rise] |= smeared[rise:]
    return grown


def _checked(predicted: Masks, truth: Masks, void: Mask | None) -> tuple[Masks, Masks]:
    """Masks of one shape, void pixels taken out."""
    if predicted.ndim != 3 or predicted.shape != truth.shape:
        raise ValueError(f"masks must be (K, H, W) and alike, got {predicted.shape} and {truth.shape}")
    if predicted.dtype != np.bool_ or truth.dtype != np.bool_:
        raise ValueError(f"masks must be bool, got {predicted.dtype} and {truth.dtype}")
    if void is None:
        return predicted, truth
    if void.shape != truth.shape[1:]:
        raise ValueError(f"void is {void.shape}, the masks are {truth.shape[1:]} (height, width)")
    return predicted & ~void, truth & ~void


def _packed(masks: Masks) -> list[Bits]:
    """``(K, H, W)`` bool as ceil(K / 8) pictures of bytes: object 8n + i is bit i of picture n."""
    pictures = []
    for start in range(0, len(masks), _OBJECTS_A_BYTE):
        bits = np.zeros(masks.shape[1:], np.uint8)
        for i, mask in enumerate(masks[start : start + _OBJECTS_A_BYTE]):
            bits |= mask.view(np.uint8) << np.uint8(i)
        pictures.append(bits)
    return pictures


def _matches(predicted: Bits, truth: Bits, radius: int) -> Values:
    """Boundary pixels of eight objects, ``(4, 8)``: predicted and near a true one, predicted, the reverse of both."""
    ours, theirs = boundary_map(predicted), boundary_map(truth)
    either = ours | theirs
    rows, columns = np.flatnonzero(either.any(axis=1)), np.flatnonzero(either.any(axis=0))
    if not len(rows):
        return np.zeros((4, _OBJECTS_A_BYTE))
    # Outside the box around all boundaries there is nothing to find, nor to be found by.
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    ours, theirs = ours[box], theirs[box]
    found, recalled = ours & dilate(theirs, radius), theirs & dilate(ours, radius)
    return np.stack([_count(bits) for bits in (found, ours, recalled, theirs)])


def _count(bits: Bits) -> Values:
    """Pixels of each of eight objects, ``(8,)``."""
    histogram = np.bincount(bits[bits != 0], minlength=256)
    return (histogram @ _OBJECTS_OF_BYTE).astype(np.float64)
