"""Annotated objects: what data sets are made of, and the columns that episodes choose them by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.prepared.masks import EncodedMask, FilledBox, decode_mask
from sam_uniref.images import RGB, Mask, image_size, load_image, load_mask

Numbers = NDArray[np.int64]

STILL = -1
"""The frame number of a picture that is no frame."""


@dataclass(frozen=True)
class AnnotatedObject:
    """One object in one picture, on disk.

    Attributes:
        image: The picture's file.
        mask: The mask's file (a palette PNG's ids, or a binary picture), or the mask itself, encoded; or the box where
            that is all that is known.
        object_id: Which id of the mask.
        group: What may serve as its reference: its class (FSS) or its clip and object (VOS).
        scene: What shares its surroundings: its clip, or its own picture.
        frame: Number of the frame in its clip, or None for a still.
        sentences: What names it.
        held_out: Whether it is kept for validation.
    """

    image: Path
    mask: Path | EncodedMask | FilledBox
    object_id: int
    group: str
    scene: str
    frame: int | None = None
    sentences: tuple[str, ...] = ()
    held_out: bool = False

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.image} object {self.object_id}"

    def load(self) -> tuple[RGB, Mask]:
        """Picture ``(H, W, 3)`` uint8 RGB and mask ``(H, W)`` bool: the filled box where only that is known.

        Raises:
            FileNotFoundError: If a file is not there.
            ValueError: If a file is broken, empty or of another size.
        """
        picture = _load_picture(self.image)
        size = (picture.shape[0], picture.shape[1])
        if isinstance(self.mask, Path):
            return picture, _load_mask(self.mask, size, self.object_id)
        if self.mask.size != size:
            raise ValueError(
                f"{self.image} is {size[1]}x{size[0]}, but {self.mask.size[1]}x{self.mask.size[0]} when it was "
                "prepared (width x height); prepare the data set again"
            )
        return picture, self.mask.decode() if isinstance(self.mask, FilledBox) else decode_mask(self.mask)

    @property
    def spoken(self) -> set[str]:
        """Its sentences, as they are compared."""
        return {" ".join(sentence.lower().split()) for sentence in self.sentences}


# Small sets fit whole, big ones cost 32 pictures of memory a worker.
@lru_cache(maxsize=32)
def _load_picture(path: Path) -> RGB:
    return load_image(path)


@lru_cache(maxsize=32)
def _load_mask(path: Path, size: tuple[int, int], object_id: int) -> Mask:
    return load_mask(path, size, object_id=object_id)


@dataclass(frozen=True)
class ObjectColumns:
    """What episodes choose objects by, a value an object; equal numbers mean the same thing.

    Attributes:
        group: ``(N,)`` int64: what may serve as its reference.
        picture: ``(N,)`` int64: the picture's file.
        scene: ``(N,)`` int64: what shares its surroundings.
        frame: ``(N,)`` int64: number of the frame in its clip, -1 for a still.
        sentences: ``(N,)`` int64: how many it has.
        held_out: ``(N,)`` bool.
        subject: ``(N,)`` int64: what one training sample is drawn from: an object of a clip, whichever its frame.
    """

    group: Numbers
    picture: Numbers
    scene: Numbers
    frame: Numbers
    sentences: Numbers
    held_out: NDArray[np.bool_]
    subject: Numbers


class ObjectTable(Protocol):
    """Annotated objects by number. Only the columns are in memory; a million objects cost tens of megabytes."""

    columns: ObjectColumns

    @property
    def landscape(self) -> NDArray[np.bool_]:
        """``(N,)``: whose pictures are wider than high."""

    def __len__(self) -> int:
        """Number of objects in pictures."""

    def __getitem__(self, index: int) -> AnnotatedObject:
        """One of them."""


class ObjectList:
    """A table of objects that are in memory, as a user's folder has them; each is a subject of its own."""

    def __init__(self, objects: Sequence[AnnotatedObject]) -> None:
        self._objects = list(objects)
        self.columns = ObjectColumns(
            group=_numbered([o.group for o in objects]),
            picture=_numbered([str(o.image) for o in objects]),
            scene=_numbered([o.scene for o in objects]),
            frame=np.array([STILL if o.frame is None else o.frame for o in objects], np.int64),
            sentences=np.array([len(o.sentences) for o in objects], np.int64),
            held_out=np.array([o.held_out for o in objects], bool),
            subject=np.arange(len(objects)),
        )

    @cached_property
    def landscape(self) -> NDArray[np.bool_]:
        """See `ObjectTable`; the files' headers are read when it is first asked for."""
        sizes = {path: image_size(path) for path in {item.image for item in self._objects}}
        return np.array([sizes[item.image][1] > sizes[item.image][0] for item in self._objects], bool)

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, index: int) -> AnnotatedObject:
        return self._objects[index]


def _numbered(names: Sequence[str]) -> Numbers:
    """Each name's number, in order of appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


class Members:
    """Which objects have which number in a column.

    Args:
        codes: ``(N,)`` the column.
        chosen: ``(M,)`` indices of the objects that count.
    """

    def __init__(self, codes: Numbers, chosen: Numbers) -> None:
        self._ordered = chosen[np.argsort(codes[chosen], kind="stable")]
        self.codes, self._starts = np.unique(codes[self._ordered], return_index=True)

    def __len__(self) -> int:
        """Number of distinct codes."""
        return len(self.codes)

    @property
    def firsts(self) -> Numbers:
        """``(len(self),)``: of each code, the first object that has it."""
        return self._ordered[self._starts]

    def of(self, code: int) -> Numbers:
        """Indices of the objects with this number, rising."""
        place = int(np.searchsorted(self.codes, code))
        if place == len(self.codes) or self.codes[place] != code:
            return self._ordered[:0]
        stop = self._starts[place + 1] if place + 1 < len(self._starts) else len(self._ordered)
        return self._ordered[self._starts[place] : stop]

    def at(self, place: int) -> Numbers:
        """Indices of the objects with the number at a place among `codes`."""
        return self.of(int(self.codes[place]))


def distinct_pictures(columns: ObjectColumns, chosen: Numbers) -> Numbers:
    """``(M,)``: for each chosen object, in how many different pictures its group has chosen objects."""
    if not len(chosen):
        return chosen
    pairs = np.unique(np.stack([columns.group[chosen], columns.picture[chosen]]), axis=1)
    groups, counts = np.unique(pairs[0], return_counts=True)
    return counts[np.searchsorted(groups, columns.group[chosen])]
