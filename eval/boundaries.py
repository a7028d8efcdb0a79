"""J and F of one frame as DAVIS defines them: region similarity and boundary accuracy.

Notation: K objects, P proposals for them, a frame of H x W pixels. All masks of a frame are compared in one pass: they
are packed, eight a byte, so that a shift of the picture shifts all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam_uniref.eval.packed_masks import Bits, PackedMasks, Values, areas, cut_out, pack, unpack_line
from sam_uniref.images import Mask

Masks = NDArray[np.bool_]
BOUND = 0.008
"""How far apart boundaries may lie and still match, as a share of the picture's diagonal."""


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
    _check_pairs(predicted, truth)
    return _similarity_of_packed(pack(predicted), pack(truth))


def region_similarity_of_all(predicted: Masks, truth: Masks, *, void: Mask | None = None) -> Values:
    """J of every proposal for every object; 1 where both masks are empty.

    Args:
        predicted: ``(P, H, W)`` bool.
        truth: ``(K, H, W)`` bool.
        void: As in `region_similarity`.

    Returns:
        ``(P, K)`` in 0-1.

    Raises:
        ValueError: If a shape does not fit.
    """
    predicted, truth = _checked(predicted, truth, void)
    both = np.array([[np.count_nonzero(p & t) for t in truth] for p in predicted], np.float64)
    both = both.reshape(len(predicted), len(truth))
    return _similarity(both, areas(pack(predicted))[:, None], areas(pack(truth))[None])


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
    _check_pairs(predicted, truth)
    radius = boundary_radius(truth.shape[1], truth.shape[2], bound)
    return _accuracy_of_packed(*cut_out(pack(predicted), pack(truth)), radius)


def boundary_accuracy_of_all(
    predicted: Masks, truth: Masks, *, void: Mask | None = None, bound: float = BOUND
) -> Values:
    """F of every proposal for every object, each as in `boundary_accuracy`.

    Args:
        predicted: ``(P, H, W)`` bool.
        truth: ``(K, H, W)`` bool.
        void: As in `boundary_accuracy`.
        bound: As in `boundary_accuracy`.

    Returns:
        ``(P, K)`` in 0-1.

    Raises:
        ValueError: If a shape does not fit.
    """
    predicted, truth = _checked(predicted, truth, void)
    if not len(predicted) or not len(truth):
        return np.zeros((len(predicted), len(truth)))
    radius = boundary_radius(truth.shape[1], truth.shape[2], bound)
    ours, theirs = (_lines(packed, radius) for packed in cut_out(pack(predicted), pack(truth)))
    found = np.block([[_matches(o, t) for t in theirs] for o in ours])
    recalled = np.block([[_matches(t, o).T for t in theirs] for o in ours])
    drawn, wanted = _joined(_lengths(ours))[:, None], _joined(_lengths(theirs))[None]
    kept = (slice(len(predicted)), slice(len(truth)))
    return _harmonic(found[kept], drawn[kept[0]], recalled[kept], wanted[:, kept[1]])


def score_packed(predicted: PackedMasks, truth: PackedMasks, radius: int) -> tuple[Values, Values]:
    """J and F of each object, as `region_similarity` and `boundary_accuracy` have them.

    Args:
        predicted: K masks.
        truth: K masks, object k's truth against object k's prediction.
        radius: `boundary_radius` of the frame.

    Returns:
        ``(K,)`` each, in 0-1.
    """
    predicted, truth = cut_out(predicted, truth)
    return _similarity_of_packed(predicted, truth), _accuracy_of_packed(predicted, truth, radius)


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
    np.bitwise_xor(masks[..., :, :-1], masks[..., :, 1:], out=drawn[..., :, :-1])
    drawn[..., :-1, :] |= masks[..., :-1, :] ^ masks[..., 1:, :]
    drawn[..., :-1, :-1] |= masks[..., :-1, :-1] ^ masks[..., 1:, 1:]
    return drawn


def dilate(bits: Bits, radius: int) -> Bits:
    """Every object in ``(H, W)`` bytes grown by a disk ``x^2 + y^2 <= radius^2``, exactly.

    A disk is a stack of horizontal runs, and the longer runs contain the shorter ones: from the disk's top to its
    middle the picture is smeared further sideways, and laid over the result at that height, above and below.

    The rows lie behind one another with a gap of the radius between them, so that a shift is one of a single long
    row, and what leaves a row stays in the gap.
    """
    height, width = bits.shape
    row = width + radius
    rows = np.zeros((height, row), np.uint8)
    rows[:, :width] = bits
    line = rows.ravel()
    smeared, grown = line.copy(), np.zeros_like(line)
    reach = 0
    for rise in range(radius, -1, -1):
        while reach < math.isqrt(radius * radius - rise * rise):
            reach += 1
            smeared[reach:] |= line[:-reach]
            smeared[:-reach] |= line[reach:]
        if rise < height:
            shift = rise * row
            grown[shift:] |= smeared[: len(line) - shift]
            if rise:
                grown[: len(line) - shift] |= smeared[shift:]
    return grown.reshape(height, row)[:, :width]


@dataclass(frozen=True)
class _Lines:
    """Boundaries of eight masks in the part of the frame where there are any.

    Attributes:
        places: ``(n,)``, where in that part, row by row, any of them has a pixel.
        masks: ``(n, 8)``, 1 where the boundary at that place is the mask's.
        near: ``(h * w,)`` bytes, pixels within the tolerance of each.
    """

    places: NDArray[np.intp]
    masks: Values
    near: Bits


def _checked(predicted: Masks, truth: Masks, void: Mask | None) -> tuple[Masks, Masks]:
    """Masks of one frame, void pixels taken out."""
    if predicted.ndim != 3 or truth.ndim != 3 or predicted.shape[1:] != truth.shape[1:]:
        raise ValueError(f"masks must be (K, H, W) and alike, got {predicted.shape} and {truth.shape}")
    if predicted.dtype != np.bool_ or truth.dtype != np.bool_:
        raise ValueError(f"masks must be bool, got {predicted.dtype} and {truth.dtype}")
    if void is None:
        return predicted, truth
    if void.shape != truth.shape[1:]:
        raise ValueError(f"void is {void.shape}, the masks are {truth.shape[1:]} (height, width)")
    return predicted & ~void, truth & ~void


def _check_pairs(predicted: Masks, truth: Masks) -> None:
    """Refuse masks that are not one for one."""
    if len(predicted) != len(truth):
        raise ValueError(f"masks must be (K, H, W) and alike, got {predicted.shape} and {truth.shape}")


def _similarity_of_packed(predicted: PackedMasks, truth: PackedMasks) -> Values:
    """J of each object."""
    both = tuple(p & t for p, t in zip(predicted.pictures, truth.pictures, strict=True))
    return _similarity(areas(PackedMasks(truth.count, both)), areas(predicted), areas(truth))


def _similarity(both: Values, predicted: Values, truth: Values) -> Values:
    """J from pixels in both masks and in each."""
    either = predicted + truth - both
    return np.divide(both, either, out=np.ones_like(both), where=either > 0)


def _accuracy_of_packed(predicted: PackedMasks, truth: PackedMasks, radius: int) -> Values:
    """F of each object."""
    ours, theirs = _lines(predicted, radius), _lines(truth, radius)
    pairs = list(zip(ours, theirs, strict=True))
    found = [np.diagonal(_matches(o, t)) for o, t in pairs]
    recalled = [np.diagonal(_matches(t, o)) for o, t in pairs]
    counts = (_joined(part)[: truth.count] for part in (found, _lengths(ours), recalled, _lengths(theirs)))
    return _harmonic(*counts)


def _lines(packed: PackedMasks, radius: int) -> list[_Lines]:
    """Boundaries, eight masks a picture."""
    lines = []
    for bits in packed.pictures:
        drawn = boundary_map(bits)
        places = np.flatnonzero(drawn.ravel() != 0)
        near = np.zeros_like(drawn)
        if len(places):
            # Rows out of reach of any boundary stay empty.
            first, last = (int(place) // drawn.shape[1] for place in places[[0, -1]])
            rows = slice(max(0, first - radius), last + radius + 1)
            near[rows] = dilate(drawn[rows], radius)
        lines.append(_Lines(places, unpack_line(drawn.ravel()[places]), near.ravel()))
    return lines


def _matches(some: _Lines, others: _Lines) -> Values:
    """Boundary pixels of mask i of ``some`` near the boundary of mask j of ``others``, ``(8, 8)``."""
    return some.masks.T @ unpack_line(others.near[some.places])


def _lengths(lines: Sequence[_Lines]) -> list[Values]:
    """Boundary pixels of each mask, of eight an array."""
    return [picture.masks.sum(axis=0) for picture in lines]


def _joined(parts: Sequence[Values]) -> Values:
    """One array after the other; empty for none."""
    return np.concatenate([np.zeros(0), *parts])


def _harmonic(found: Values, drawn: Values, recalled: Values, wanted: Values) -> Values:
    """F from boundary pixels: predicted ones near a true one, all predicted ones, and the reverse of both."""
    precision = np.divide(found, drawn, out=np.zeros_like(found), where=drawn > 0)
    recall = np.divide(recalled, wanted, out=np.zeros_like(found), where=wanted > 0)
    total = precision + recall
    scores = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    scores[np.broadcast_to((drawn == 0) & (wanted == 0), scores.shape)] = 1
    return scores
