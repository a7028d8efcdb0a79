"""Masks as COCO polygons that give every pixel back: they run along the borders between pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Corner = tuple[int, int]


def mask_polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """The outlines of a mask.

    COCO polygons have no holes: a mask with one is cut through it into halves.

    Args:
        mask: ``(H, W)`` bool.

    Returns:
        Polygons ``[x1, y1, x2, y2, ...]`` in pixels, x to the right and y down, that don't overlap; none if empty.
    """
    loops = _loops(mask)
    holes = [loop for loop in loops if _area(loop) < 0]
    if not holes:
        return [[float(value) for corner in loop for value in corner] for loop in loops]
    columns = [x for x, _ in holes[0]]
    cut = (min(columns) + max(columns)) // 2
    cut = max(cut, min(columns) + 1)
    left, right = mask.copy(), mask.copy()
    left[:, cut:], right[:, :cut] = False, False
    return mask_polygons(left) + mask_polygons(right)


def _loops(mask: NDArray[np.bool_]) -> list[list[Corner]]:
    """Corners of the closed borders, clockwise around the mask and anticlockwise around its holes."""
    ahead = _border(mask)
    loops = []
    while ahead:
        # The leftmost corner is never one where two parts touch, so a loop is closed when it comes back to it.
        start = corner = min(ahead)
        direction = (0, 0)
        loop: list[Corner] = []
        while not loop or corner != start:
            ways = ahead[corner]
            # Where two parts touch at a corner, the turn to the right stays with one of them.
            right = (-direction[1], direction[0])
            turned = right if right in ways else ways[0]
            ways.remove(turned)
            if not ways:
                del ahead[corner]
            if turned != direction:
                loop.append(corner)
            direction = turned
            corner = (corner[0] + direction[0], corner[1] + direction[1])
        loops.append(loop)
    return loops


def _border(mask: NDArray[np.bool_]) -> dict[Corner, list[Corner]]:
    """From each corner of the border, the directions in which it goes on with the mask to its right."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    sides = [
        (padded[:-2, 1:-1], (0, 0), (1, 0)),  # along the top
        (padded[1:-1, 2:], (1, 0), (0, 1)),  # down the right side
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    ]
    ahead: dict[Corner, list[Corner]] = {}
    for neighbour, (right, down), direction in sides:
        for row, column in np.argwhere(inner & ~neighbour).tolist():
            ahead.setdefault((column + right, row + down), []).append(direction)
    return ahead


def _area(loop: list[Corner]) -> int:
    """Twice the signed area: above 0 for a border, below for a hole."""
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(loop, [*loop[1:], loop[0]], strict=True))
