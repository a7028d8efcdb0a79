"""YOLO's segmentation labels: a text file a picture, a line an object: its class's number, then x y x y ... in 0-1.

An object is one ring there. Holes and parts are joined to it by bridges of no width; `decode_yolo` reads them exactly,
programs that draw the line too (Ultralytics, by OpenCV's ``fillPoly``) add the pixels of the outline's right and lower
side and of the bridges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sam_uniref.exchange.labelled import LabelledMask, check_size
from sam_uniref.exchange.polygons import encode_polygons, fill_rings, join_rings
from sam_uniref.transforms import Size

# Of a side: exact to a thousandth of a pixel in a picture of 100,000.
_DECIMALS = 8


def encode_yolo(objects: Sequence[LabelledMask], classes: Sequence[str], *, tolerance: float = 0.0) -> str:
    """The text of a picture's label file; empty where nothing was found. Scores are not in it, nor are empty masks.

    Args:
        objects: Of one picture.
        classes: The data set's labels in the order of their numbers.
        tolerance: How far in pixels a simplified outline may run from the true one; see `encode_polygons`.

    Raises:
        ValueError: If a label is no class.
    """
    numbers = {label: number for number, label in enumerate(classes)}
    lines = []
    for found in objects:
        if found.label not in numbers:
            raise ValueError(f"{found.label!r} is no class, these are: {list(classes)}")
        polygons = encode_polygons(found.mask, tolerance=tolerance)
        if polygons:
            height, width = found.mask.shape
            shares = (join_rings(polygons) / (width, height)).ravel().tolist()
            corners = " ".join(np.format_float_positional(share, _DECIMALS, trim="-") for share in shares)
            lines.append(f"{numbers[found.label]} {corners}\n")
    return "".join(lines)


def decode_yolo(text: str, size: Size, classes: Sequence[str]) -> list[LabelledMask]:
    """The objects of a label file.

    Args:
        text: Of the file.
        size: ``(height, width)`` of the picture in pixels.
        classes: The data set's labels in the order of their numbers.

    Raises:
        ValueError: If a line is no class and three or more corners in 0-1 (a box has two numbers too few); it says
            which.
    """
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    height, width = check_size(*size, max(1, len(lines)))
    objects = []
    for number, (kind, *shares) in lines:
        if not kind.isdecimal() or int(kind) >= len(classes):
            raise ValueError(f"line {number}: the class is a number below {len(classes)}, got {kind[:20]!r}")
        try:
            corners = np.array([float(share) for share in shares])
        except ValueError:
            raise ValueError(f"line {number}: corners are numbers, got something else") from None
        if len(corners) < 6 or len(corners) % 2 or not ((corners >= 0) & (corners <= 1)).all():
            raise ValueError(
                f"line {number}: an outline is x y of three corners or more, in shares of the sides (0-1), "
                f"got {len(corners)} numbers; lines of boxes have four"
            )
        mask = fill_rings([corners.reshape(-1, 2) * (width, height)], (height, width))
        objects.append(LabelledMask(mask, classes[int(kind)]))
    return objects
