"""Masks as COCO's run-length encoding: how prepared data sets hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam_uniref.images import Mask
from sam_uniref.segmentation import encode_rle

Box = tuple[float, float, float, float]

SMALLEST_POLYGON = 6  # three points


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


def encode_mask(mask: Mask) -> EncodedMask:
    """Encode ``(H, W)`` bool."""
    return EncodedMask(encode_rle(mask)["counts"].encode("ascii"), (mask.shape[0], mask.shape[1]))


def decode_mask(encoded: EncodedMask) -> Mask:
    """The mask, ``(H, W)`` bool.

    Raises:
        ValueError: If the runs do not fill the size.
    """
    from pycocotools import mask as coco

    decoded: Mask = np.ascontiguousarray(coco.decode(encoded._coco()).astype(bool))
    return decoded


def polygons_to_mask(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> EncodedMask | None:
    """The union of an object's polygons, each ``[x1, y1, x2, y2, ...]`` in pixels.

    Overlapping polygons stay foreground where they overlap. Those with fewer than three points or an odd number of
    coordinates are left out.

    Returns:
        None if nothing is left.
    """
    from pycocotools import mask as coco

    whole = [list(map(float, p)) for p in polygons if len(p) >= SMALLEST_POLYGON and len(p) % 2 == 0]
    if not whole:
        return None
    merged = coco.merge(coco.frPyObjects(whole, *size))
    return EncodedMask(merged["counts"], size)


def read_segmentation(segmentation: Any, size: tuple[int, int]) -> EncodedMask | None:
    """A COCO ``segmentation``: polygons, or run-length encoding with a list of counts or a string.

    Args:
        segmentation: As it stands in the JSON file.
        size: ``(height, width)`` of the picture.

    Returns:
        None if it marks no pixel.

    Raises:
        ValueError: If it is of another size, or of no known form.
    """
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

    given, counts = tuple(int(side) for side in rle["size"]), rle["counts"]
    if given != tuple(size):
        raise ValueError(f"the mask is {given[1]}x{given[0]} but its picture {size[1]}x{size[0]} (width x height)")
    if isinstance(counts, str | bytes):
        counts = counts.encode() if isinstance(counts, str) else counts
        return EncodedMask(counts, size)
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"the mask's runs cover {sum(counts)} pixels, its picture has {size[0] * size[1]}")
    return EncodedMask(coco.frPyObjects({"size": list(size), "counts": list(counts)}, *size)["counts"], size)
