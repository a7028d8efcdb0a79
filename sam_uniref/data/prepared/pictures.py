"""A prepared image table picture by picture, each with all its objects: what detection is trained on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.instances import PictureObjects
from sam_uniref.data.prepared.masks import EncodedMask, decode_mask
from sam_uniref.data.prepared.objects import column_codes, wider_than_high
from sam_uniref.images import RGB, load_image

if TYPE_CHECKING:
    from datasets import Dataset
    from pyarrow import ChunkedArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnnotatedPicture:
    """A picture on disk and what is in it.

    Attributes:
        image: Its file.
        size: ``(height, width)`` when it was prepared.
        boxes: ``(M, 4)`` float32 as (x0, y0, x1, y1) in pixels.
        labels: ``(M,)`` int64 from 0.
        masks: Of the objects, encoded; None where only boxes are known.
    """

    image: Path
    size: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: tuple[EncodedMask, ...] | None

    def load(self) -> tuple[RGB, PictureObjects]:
        """Picture ``(H, W, 3)`` uint8 RGB and its objects.

        Raises:
            FileNotFoundError: If the file is not there.
            ValueError: If it is broken, or of another size than when it was prepared.
        """
        picture = load_image(self.image)
        if picture.shape[:2] != self.size:
            raise ValueError(
                f"{self.image} is {picture.shape[1]}x{picture.shape[0]}, but {self.size[1]}x{self.size[0]} when it was "
                "prepared (width x height); prepare the data set again"
            )
        if self.masks is None:
            return picture, PictureObjects(self.boxes, self.labels)
        masks = np.stack([decode_mask(mask) for mask in self.masks])
        return picture, PictureObjects.of_masks(masks, self.labels)


class PreparedPictures:
    """Pictures of an image table.

    Attributes:
        categories: Names of the classes by their numbers: those trained on by name, then those only validated on.
        held_out: ``(pictures,)`` bool: which serve validation.
        landscape: ``(pictures,)`` bool: which are wider than high.
        has_masks: ``(pictures,)`` bool: of which the masks are known of all objects; the others' objects are taken by
            their boxes. Where a table has both, the log says of how many.

    Args:
        rows: Of an image table.
        root: Folder that the rows' paths are relative to.
        held_out: ``(rows,)`` bool: which serve validation.
        left_out: ``(rows,)`` bool: which are not to be used at all.
        boxes_alone: Take the boxes even where masks are known.
    """

    def __init__(
        self,
        rows: Dataset,
        root: Path,
        held_out: NDArray[np.bool_],
        left_out: NDArray[np.bool_],
        *,
        boxes_alone: bool = False,
    ) -> None:
        table = rows.data.table
        self._rows, self._root = rows, root
        used = np.flatnonzero(~left_out)
        # A picture that both splits have stays two pictures.
        codes = column_codes(table["image"])[used] * 2 + held_out[used]
        # Tens of millions of boxes: their numbers take half the memory so.
        self._ordered = used[np.argsort(codes, kind="stable")].astype(np.int32)
        _, counts = np.unique(codes, return_counts=True)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        first = self._ordered[self._starts[:-1]]
        self.held_out = held_out[first]
        self.landscape = wider_than_high(table)[first]
        self.has_masks = self._with_masks(table["rle"], boxes_alone)
        self.categories = _in_order(table["category"], held_out)
        self._labels = {name: number for number, name in enumerate(self.categories)}

    def _with_masks(self, masks: ChunkedArray, boxes_alone: bool) -> NDArray[np.bool_]:
        """See `has_masks`."""
        if boxes_alone or not len(self):
            return np.zeros(len(self), np.bool_)
        known = masks.is_valid().to_numpy()[self._ordered]
        whole = np.logical_and.reduceat(known, self._starts[:-1])
        if known.any() and not whole.all():
            logger.warning(
                "%s: %d of %d pictures have an object without a mask; all objects of these are taken by their boxes",
                self._root,
                np.count_nonzero(~whole),
                len(whole),
            )
        return whole

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> AnnotatedPicture:
        """A picture and its objects."""
        objects = self._rows[self._ordered[self._starts[index] : self._starts[index + 1]].tolist()]
        size = (objects["height"][0], objects["width"][0])
        boxes = np.array(objects["box"], np.float32)
        boxes[:, 2:] += boxes[:, :2]
        return AnnotatedPicture(
            self._root / objects["image"][0],
            size,
            boxes,
            np.array([self._labels[name] for name in objects["category"]], np.int64),
            tuple(EncodedMask(rle, size) for rle in objects["rle"]) if self.has_masks[index] else None,
        )


def _in_order(categories: object, held_out: NDArray[np.bool_]) -> tuple[str, ...]:
    """Distinct names, sorted: first those of rows that are trained on, so that validation changes no number."""
    import pyarrow.compute as pc

    everything = set(pc.unique(categories).to_pylist())
    trained = set(pc.unique(pc.filter(categories, ~held_out)).to_pylist())
    return (*sorted(trained), *sorted(everything - trained))
