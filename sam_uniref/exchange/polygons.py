"""Masks as polygons along the pixels' edges, with holes, and back.

Coordinates are (x, y) in pixels, (0, 0) the upper left corner of the upper left pixel: a mask of that pixel alone is
the square from (0, 0) to (1, 1). Without simplification nothing is lost. An outline runs with its object on its right
as seen on screen, a hole the other way; pixels that touch at a corner alone are parts of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam_uniref.exchange.labelled import check_mask, check_size
from sam_uniref.images import Mask
from sam_uniref.transforms import Size

Ring = NDArray[np.float64]
"""``(N, 2)`` corners as (x, y); the last one is joined to the first."""

# East, south, west, north, each a right turn from the one before.
_STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
# Edges times lines that are looked at together.
_AT_ONCE = 1 << 21
# A corner farther off than so many times the sides is no point of the picture.
_FARTHEST = 10


@dataclass(frozen=True)
class Polygon:
    """One connected part of an object.

    Attributes:
        outline: ``(N, 2)`` corners as (x, y).
        holes: What is cut out of it, each like the outline.
    """

    outline: Ring
    holes: tuple[Ring, ...] = ()


def encode_polygons(mask: Mask, *, tolerance: float = 0.0) -> list[Polygon]:
    """The parts of a mask, from the upper left on; none where it is empty.

    Args:
        mask: ``(H, W)`` bool.
        tolerance: How far in pixels a simplified line may run from the true one (Douglas-Peucker); 0 keeps every
            corner. What is lost then is measured by `polygon_iou`.

    Raises:
        ValueError: If the mask is no such array, or the tolerance is negative.
    """
    from scipy.ndimage import label

    check_mask(mask)
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 or more pixels, got {tolerance}")
    parts, _ = label(mask)
    outlines: dict[int, Ring] = {}
    holes: dict[int, list[Ring]] = {}
    for ring, part in _rings(mask, parts):
        simple = _simplified(ring, tolerance)
        if _signed_area(ring) > 0:
            outlines[part] = simple if simple is not None else ring
        elif simple is not None:
            holes.setdefault(part, []).append(simple)
    return [Polygon(outlines[part], tuple(holes.get(part, ()))) for part in sorted(outlines)]


def decode_polygons(polygons: Sequence[Polygon], size: Size) -> Mask:
    """The mask ``(H, W)`` bool of all pixels whose middle is inside a part and in none of its holes.

    Raises:
        ValueError: If a ring has fewer than three corners, one that is not finite or far outside, or the size is none.
    """
    height, width = check_size(*size)
    mask = np.zeros((height, width), bool)
    for polygon in polygons:
        outline = _checked(polygon.outline, (height, width))
        # Only where the part is: there may be many small ones.
        x, y = np.clip(np.floor(outline.min(axis=0)), 0, (width, height)).astype(int).tolist()
        right, below = np.clip(np.ceil(outline.max(axis=0)), 0, (width, height)).astype(int).tolist()
        if right > x and below > y:
            rings = [_checked(ring, (height, width)) - (x, y) for ring in (outline, *polygon.holes)]
            mask[y:below, x:right] |= _filled(rings, below - y, right - x)
    return mask


def polygon_iou(mask: Mask, polygons: Sequence[Polygon]) -> float:
    """How much of a mask its polygons keep: intersection over union in 0-1; 1 for an empty mask without any."""
    drawn = decode_polygons(polygons, (mask.shape[0], mask.shape[1]))
    union = int((mask | drawn).sum())
    return 1.0 if union == 0 else int((mask & drawn).sum()) / union


def join_rings(polygons: Sequence[Polygon]) -> Ring:
    """All parts and holes as one ring, for formats that have but one: a bridge of no width leads to each and back.

    Filled by the even-odd rule at the pixels' middles, as `fill_rings` and pycocotools do, this is the same mask.
    Programs that draw the line itself too, such as OpenCV's ``fillPoly``, draw the bridges.

    Raises:
        ValueError: If there is no polygon.
    """
    rings = [ring for polygon in polygons for ring in (*polygon.holes, polygon.outline)][::-1]
    if not rings:
        raise ValueError("an empty mask has no polygon")
    joined = rings[0]
    for ring in rings[1:]:
        away, here = _nearest(joined, ring)
        detour = np.concatenate([ring[here:], ring[: here + 1]])
        joined = np.concatenate([joined[: away + 1], detour, joined[away:]])
    return joined


def fill_rings(rings: Sequence[Ring], size: Size) -> Mask:
    """All pixels whose middle is inside an odd number of rings, ``(H, W)`` bool.

    Args:
        rings: Each ``(N, 2)`` as (x, y), clockwise or not.
        size: ``(height, width)``.

    Raises:
        ValueError: If a ring has fewer than three corners, or one that is not finite or far outside.
    """
    checked = check_size(*size)
    return _filled([_checked(ring, checked) for ring in rings], *checked)


def _filled(rings: Sequence[Ring], height: int, width: int) -> Mask:
    """As `fill_rings`, of rings that can be drawn."""
    toggled = np.zeros((height, width + 1), bool)
    for ring in rings:
        for rows, columns in _crossings(ring, height, width):
            np.logical_xor.at(toggled, (rows, columns), True)
    filled: Mask = np.logical_xor.accumulate(toggled[:, :width], axis=1)
    return filled


def _checked(ring: Ring, size: Size) -> Ring:
    """Corners ``(N, 2)`` that can be drawn."""
    try:
        corners = np.asarray(ring, np.float64)
    except (TypeError, ValueError):
        raise ValueError("a polygon's corners are numbers, got something else") from None
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(f"a polygon has three corners (x, y) or more, got an array {corners.shape}")
    # Written so that a NaN fails as well.
    if not (np.abs(corners) <= _FARTHEST * max(size)).all():
        raise ValueError(f"a polygon's corner is no point near its picture of {size[1]}x{size[0]} (width x height)")
    return corners


def _crossings(corners: Ring, height: int, width: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Where a ring crosses the lines through the pixels' middles: lines, and the first pixel right of each crossing."""
    ends = np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)
    # From top to bottom: an edge walked both ways crosses at the very same places.
    ends = np.where((ends[:, 0, 1] > ends[:, 1, 1])[:, None, None], ends[:, ::-1], ends)
    (x0, y0), (x1, y1) = ends[:, 0].T, ends[:, 1].T
    first = np.clip(np.ceil(y0 - 0.5), 0, height).astype(np.int64)
    count = np.clip(np.ceil(y1 - 0.5), 0, height).astype(np.int64) - first
    begin = 0
    total = np.cumsum(count)
    while begin < len(count):
        done = total[begin - 1] if begin else 0
        stop = max(begin + 1, int(np.searchsorted(total, done + _AT_ONCE, side="right")))
        some = np.repeat(np.arange(begin, stop), count[begin:stop])
        starts = np.concatenate([[0], np.cumsum(count[begin:stop])[:-1]])
        rows = first[some] + np.arange(len(some)) - np.repeat(starts, count[begin:stop])
        x = x0[some] + (rows + 0.5 - y0[some]) / (y1[some] - y0[some]) * (x1[some] - x0[some])
        yield rows, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
        begin = stop


def _rings(mask: Mask, parts: NDArray[np.integer]) -> Iterator[tuple[Ring, int]]:
    """All rings between object and background, their corners alone, and the part that each is of."""
    around = np.pad(mask, 1)
    inside = around[1:-1, 1:-1]
    # Per direction the pixels that have an edge walked that way, and that edge's start within the pixel.
    neighbours = (around[:-2, 1:-1], around[1:-1, 2:], around[2:, 1:-1], around[1:-1, :-2])
    starts = ((0, 0), (1, 0), (1, 1), (0, 1))
    stride = mask.shape[1] + 1
    keys, owners = [], []
    for direction, (beyond, (x, y)) in enumerate(zip(neighbours, starts, strict=True)):
        rows, columns = np.nonzero(inside & ~beyond)
        keys.append((((rows + y) * stride) + columns + x) * 4 + direction)
        owners.append(parts[rows, columns])
    key = np.concatenate(keys)
    order = np.argsort(key)
    key, owner = key[order], np.concatenate(owners)[order]
    following = _following(key, stride)
    vertex, heading = key // 4, key % 4
    is_corner = np.zeros(len(key), bool)
    is_corner[following] = heading[following] != heading  # an edge that begins with a turn
    successors = following.tolist()
    seen = np.zeros(len(key), bool)
    for start in np.flatnonzero(is_corner).tolist():
        if seen[start]:
            continue
        ring = [start]
        edge = successors[start]
        while edge != start:
            ring.append(edge)
            edge = successors[edge]
        walked = np.array(ring)
        seen[walked] = True
        corners = vertex[walked[is_corner[walked]]]
        yield np.stack([corners % stride, corners // stride], axis=1).astype(np.float64), int(owner[start])


def _following(key: NDArray[np.int64], stride: int) -> NDArray[np.int64]:
    """The edge that follows each, by its place: to the right where there is one, so that it stays with its pixel."""
    direction = key % 4
    end = key // 4 + _STEPS[direction] @ np.array([1, stride])
    following = np.full(len(key), -1)
    for turn in (3, 0, 1):  # the last one that is there counts
        wanted = end * 4 + (direction + turn) % 4
        place = np.searchsorted(key, wanted).clip(max=len(key) - 1)
        following = np.where(key[place] == wanted, place, following)
    return following


def _simplified(ring: Ring, tolerance: float) -> Ring | None:
    """A ring with fewer corners; None where fewer than three are left."""
    if tolerance == 0:
        return ring
    import cv2

    simple = cv2.approxPolyDP(ring.astype(np.float32)[:, None], tolerance, closed=True)[:, 0].astype(np.float64)
    return simple if len(simple) >= 3 else None


def _signed_area(ring: Ring) -> float:
    """Positive where it runs clockwise on screen."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _nearest(one: Ring, other: Ring) -> tuple[int, int]:
    """The corners of two rings that are nearest to each other, by their places."""
    from scipy.spatial import cKDTree

    distances, places = cKDTree(one).query(other)
    here = int(np.argmin(distances))
    return int(places[here]), here
