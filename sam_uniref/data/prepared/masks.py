"""Masks as COCO's run-length encoding: how prepared data sets hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_uniref.images import Mask
from sam_uniref.segmentation import encode_rle

Box = tuple[float, float, float, float]

SMALLEST_POLYGON = 6  # three points
# A corner further off than so many times the picture's sides: drawing it takes memory with its distance.
_FARTHEST = 10
# The string of runs: six bits a character from "0" on, of which five carry the number and one says that it goes on.
_FIRST_CHARACTER, _BITS, _GOES_ON, _SIGN, _LONGEST = 48, 5, 0x20, 0x10, 7


@dataclass(frozen=True)
class EncodedMask:
    """A mask in COCO's compressed run-length encoding.

    Attributes:
        counts: The runs, column by column, beginning with background.
        size: ``(height, width)`` in pixels.
    """

    counts: bytes
    size: tuple[int, int]

    @property
    def box(self) -> Box:
        """``(x, y, width, height)`` in pixels, of whole pixels: a one-pixel object is 1 wide and 1 high."""
        from pycocotools import mask as coco

        x, y, width, height = coco.toBbox(self._coco()).tolist()
        return x, y, width, height

    @property
    def area(self) -> int:
        """Number of foreground pixels."""
        from pycocotools import mask as coco

        return int(coco.area(self._coco()))

    def _coco(self) -> dict[str, Any]:
        return {"size": list(self.size), "counts": self.counts}


@dataclass(frozen=True)
class FilledBox:
    """Stands for the mask of an object of which only the box is known: all pixels that the box touches.

    Attributes:
        box: ``(x, y, width, height)`` in pixels, inside the picture and with an area.
        size: ``(height, width)`` of the picture in pixels.
    """

    box: Box
    size: tuple[int, int]

    def decode(self) -> Mask:
        """``(H, W)`` bool."""
        x, y, width, height = self.box
        mask = np.zeros(self.size, bool)
        mask[math.floor(y) : math.ceil(y + height), math.floor(x) : math.ceil(x + width)] = True
        return mask


def encode_mask(mask: Mask) -> EncodedMask:
    """Encode ``(H, W)`` bool."""
    return EncodedMask(encode_rle(mask)["counts"].encode("ascii"), (mask.shape[0], mask.shape[1]))


def decode_mask(encoded: EncodedMask) -> Mask:
    """The mask, ``(H, W)`` bool.

    Raises:
        ValueError: If the runs do not fill the size.
    """
    from pycocotools import mask as coco

    _check_runs(_runs_of_string(encoded.counts), encoded.size)
    decoded: Mask = np.ascontiguousarray(coco.decode(encoded._coco()).astype(bool))
    return decoded


def usable_polygons(polygons: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """Those with three points or more, and as many x as y.

    Raises:
        ValueError: If one is no list.
    """
    if not all(isinstance(polygon, list | tuple) for polygon in polygons):
        raise ValueError("a polygon is a list [x1, y1, x2, y2, ...], got something else")
    return [polygon for polygon in polygons if len(polygon) >= SMALLEST_POLYGON and len(polygon) % 2 == 0]


def polygons_to_mask(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> EncodedMask | None:
    """The union of an object's polygons, each ``[x1, y1, x2, y2, ...]`` in pixels.

    Overlapping polygons stay foreground where they overlap. Those with fewer than three points or an odd number of
    coordinates are left out.

    Returns:
        None if nothing is left.

    Raises:
        ValueError: If a coordinate is no number, not finite, or far outside the picture.
    """
    from pycocotools import mask as coco

    whole = [_coordinates(polygon, size) for polygon in usable_polygons(polygons)]
    if not whole:
        return None
    merged = coco.merge(coco.frPyObjects(whole, *size))
    return EncodedMask(merged["counts"], size)


def _coordinates(polygon: Sequence[float], size: tuple[int, int]) -> list[float]:
    """A polygon's numbers, such that it can be drawn."""
    try:
        values = np.asarray(polygon, np.float64)
    except (TypeError, ValueError):
        raise ValueError("a polygon's coordinates are numbers, got something else") from None
    # Written so that a NaN fails as well.
    if values.ndim != 1 or not (np.abs(values) <= _FARTHEST * max(size)).all():
        raise ValueError(f"a polygon's corner is no point near its picture of {size[1]}x{size[0]} (width x height)")
    coordinates: list[float] = values.tolist()
    return coordinates


def read_segmentation(segmentation: Any, size: tuple[int, int]) -> EncodedMask | None:
    """A COCO ``segmentation``: polygons, or run-length encoding with a list of counts or a string.

    Args:
        segmentation: As it stands in the JSON file.
        size: ``(height, width)`` of the picture.

    Returns:
        None if it marks no pixel.

    Raises:
        ValueError: If it is of another size, of no known form, or broken: its runs do not fill the size, or a polygon
            can't be drawn.
    """
    encoded: EncodedMask | None
    if isinstance(segmentation, Mapping):
        encoded = _read_rle(segmentation, size)
    elif isinstance(segmentation, Sequence) and not isinstance(segmentation, str):
        encoded = polygons_to_mask(segmentation, size)
    else:
        raise ValueError(f"a segmentation is polygons or run-length encoding, got {type(segmentation).__name__}")
    return encoded if encoded is not None and encoded.area else None


def _read_rle(rle: Mapping[str, Any], size: tuple[int, int]) -> EncodedMask:
    """Run-length encoding of either form."""
    from pycocotools import mask as coco

    try:
        given, counts = tuple(int(side) for side in rle["size"]), rle["counts"]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError("run-length encoding has a size [height, width] and counts, got something else") from None
    if given != tuple(size):
        raise ValueError(f"the mask's size is {list(given)} but its picture's {list(size)} ([height, width])")
    if isinstance(counts, str | bytes):
        counts = counts.encode() if isinstance(counts, str) else counts
        _check_runs(_runs_of_string(counts), size)
        return EncodedMask(counts, size)
    runs = np.asarray(counts)
    if runs.ndim != 1 or runs.dtype.kind not in "iu":
        raise ValueError("the runs of a mask are whole numbers, got something else")
    _check_runs(runs, size)
    return EncodedMask(coco.frPyObjects({"size": list(size), "counts": runs.tolist()}, *size)["counts"], size)


def _check_runs(runs: NDArray[Any], size: tuple[int, int]) -> None:
    """Refuse runs that do not fill the size: COCO's tools give back whatever stood in memory for the rest."""
    pixels = size[0] * size[1]
    if not ((runs >= 0) & (runs <= pixels)).all() or runs.sum() != pixels:
        raise ValueError(f"the mask's runs don't fill its {pixels} pixels: it is cut off or of another picture")


def _runs_of_string(counts: bytes) -> NDArray[np.int64]:
    """The runs, ``(N,)``; from the fourth on, a number stands for the difference to the one before the last.

    Raises:
        ValueError: If it is no such string.
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - _FIRST_CHARACTER
    last = (codes & _GOES_ON) == 0
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or not last[-1]:
        raise ValueError("the mask's string of runs is cut off or has characters that no such string has")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise ValueError("the mask's string of runs has a number that is too large")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & (2**_BITS - 1)) << (_BITS * place), starts)
    numbers -= np.where(codes[ends] & _SIGN, np.int64(1) << (_BITS * lengths), 0)
    runs = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    return runs
