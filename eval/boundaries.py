"""J and F of one frame as DAVIS defines them: region similarity and boundary accuracy.

Notation: K objects, P proposals for them, a frame of H x W pixels. All masks of a frame are compared in one pass: they
are packed, eight a byte, so that a shift of the picture shifts all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from sam_uniref.eval.packed_masks import MASKS_A_BYTE, Bits, Values, cut_out, pack, unpack_line
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
    return _similarity(*_columns(_count(p, t) for p, t in zip(predicted, truth, strict=True)))


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
    counts = _columns(_count(p, t) for p in predicted for t in truth)
    return _similarity(*(count.reshape(len(predicted), len(truth)) for count in counts))


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
    return _accuracy(pack(chain.from_iterable(zip(predicted, truth, strict=True))), len(truth), radius)


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
    lines = [_lines(bits, radius) for bits in cut_out(pack([*predicted, *truth]))]
    table = np.block([[_near(some, others) for others in lines] for some in lines])
    ours, theirs = slice(len(predicted)), slice(len(predicted), len(predicted) + len(truth))
    lengths = np.diagonal(table)
    return _harmonic(table[ours, theirs], lengths[ours, None], table[theirs, ours].T, lengths[None, theirs])


def score_pairs(pairs: Iterable[tuple[Mask, Mask]], radius: int) -> tuple[Values, Values]:
    """J and F of each object, as `region_similarity` and `boundary_accuracy` have them, in less memory than these.

    Args:
        pairs: The predicted and the true mask ``(H, W)`` bool of an object; each is looked at once.
        radius: `boundary_radius` of the frame.

    Returns:
        ``(K,)`` each, in 0-1.
    """
    counts = []

    def counted() -> Iterator[Mask]:
        for predicted, truth in pairs:
            counts.append(_count(predicted, truth))
            yield predicted
            yield truth

    pictures = pack(counted())
    return _similarity(*_columns(counts)), _accuracy(pictures, len(counts), radius)


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


def _count(predicted: Mask, truth: Mask) -> tuple[int, int, int]:
    """Pixels of both masks, of the predicted and of the true one."""
    both, ours, theirs = (int(np.count_nonzero(mask)) for mask in (predicted & truth, predicted, truth))
    return both, ours, theirs


def _columns(counts: Iterable[tuple[int, int, int]]) -> list[Values]:
    """The counts of all pairs, one array a kind."""
    return list(np.array(list(counts), np.float64).reshape(-1, 3).T)


def _similarity(both: Values, predicted: Values, truth: Values) -> Values:
    """J from pixels in both masks and in each."""
    either = predicted + truth - both
    return np.divide(both, either, out=np.ones_like(both), where=either > 0)


def _accuracy(pictures: Sequence[Bits], count: int, radius: int) -> Values:
    """F of each object, whose predicted and true mask are packed side by side, so always in the same byte."""
    tables = [_near(lines, lines) for lines in (_lines(bits, radius) for bits in cut_out(pictures))]
    ours, theirs = np.arange(0, MASKS_A_BYTE, 2), np.arange(1, MASKS_A_BYTE, 2)
    kinds = ((ours, theirs), (ours, ours), (theirs, ours), (theirs, theirs))
    return _harmonic(*(np.concatenate([np.zeros(0), *(table[kind] for table in tables)])[:count] for kind in kinds))


def _lines(bits: Bits, radius: int) -> _Lines:
    """Boundaries of the masks of one picture."""
    drawn = boundary_map(bits)
    places = np.flatnonzero(drawn.ravel() != 0)
    near = np.zeros_like(drawn)
    if len(places):
        # Rows out of reach of any boundary stay empty.
        first, last = (int(place) // drawn.shape[1] for place in places[[0, -1]])
        rows = slice(max(0, first - radius), last + radius + 1)
        near[rows] = dilate(drawn[rows], radius)
    return _Lines(places, unpack_line(drawn.ravel()[places]), near.ravel())


def _near(some: _Lines, others: _Lines) -> Values:
    """Boundary pixels of mask i of ``some`` within the tolerance of mask j's of ``others``, ``(8, 8)``.

    Those of a mask near its own boundary are all that it has.
    """
    return some.masks.T @ unpack_line(others.near[some.places])


def _harmonic(found: Values, drawn: Values, recalled: Values, wanted: Values) -> Values:
    """F from boundary pixels: predicted ones near a true one, all predicted ones, and the reverse of both."""
    precision = np.divide(found, drawn, out=np.zeros_like(found), where=drawn > 0)
    recall = np.divide(recalled, wanted, out=np.zeros_like(found), where=wanted > 0)
    total = precision + recall
    scores = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    scores[np.broadcast_to((drawn == 0) & (wanted == 0), scores.shape)] = 1
    return scores
