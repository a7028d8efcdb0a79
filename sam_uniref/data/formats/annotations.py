"""An annotated object of a picture, read with suspicion: from a file's entry to a row, or to a counted problem."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sam_uniref.data.formats.files import missing_layout, relative_path, sound_picture
from sam_uniref.data.prepared.masks import Box, EncodedMask, read_segmentation, usable_polygons
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import ImageRow

# Annotations in one unit of work: some megabytes of polygons.
UNIT = 5000
# Pixels by which a box may leave its picture without mention: rounding of decimals.
_ROUNDING = 1e-3

Places = Callable[[str], Sequence[str]]
"""From a picture's name to the paths below the root where it may lie, the one that messages name last."""


class FoundObject(NamedTuple):
    """An object as its file tells of it; what can be wrong with it is not looked at yet.

    Attributes:
        target: Its id in the split.
        name: Of its picture.
        height: Of its picture in pixels.
        width: Of its picture in pixels.
        category: Its class; empty if there are none.
        shape: Its ``segmentation`` or ``bbox`` in COCO's forms.
        sentences: That mean it.
        coco_id: Its picture's id in COCO; None if it is not in COCO.
    """

    target: str
    name: str
    height: int
    width: int
    category: str
    shape: Any
    sentences: tuple[str, ...] = ()
    coco_id: int | None = None


def mask_rows(root: Path, unit: Iterable[FoundObject], places: Places, problems: Problems) -> Iterator[ImageRow]:
    """Rows of objects with masks; one whose picture or mask is broken is counted in ``problems`` and left out."""
    for found in unit:
        image = _sound_place(root, found, places, problems)
        if image is None:
            continue
        mask = _sound_segmentation(found.shape, (found.height, found.width), found.target, problems)
        if mask is not None:
            yield _row(found, image, mask.counts, mask.box)


def box_rows(root: Path, unit: Iterable[FoundObject], places: Places, problems: Problems) -> Iterator[ImageRow]:
    """Rows of objects with boxes alone; one whose picture or box is broken is counted and left out."""
    for found in unit:
        image = _sound_place(root, found, places, problems)
        if image is None:
            continue
        box = _sound_box(found.shape, (found.height, found.width), found.target, problems)
        if box is not None:
            yield _row(found, image, None, box)


def _row(found: FoundObject, image: str, rle: bytes | None, box: Box) -> ImageRow:
    return ImageRow(
        image, found.height, found.width, found.target, found.category, rle, box, found.sentences, found.coco_id
    )


def sound_sentences(texts: Iterable[str], name: object, problems: Problems) -> tuple[str, ...]:
    """An object's sentences without blanks around them; empty ones are left out, counted if others are left."""
    stripped = [text.strip() for text in texts]
    sentences = tuple(text for text in stripped if text)
    if sentences and len(sentences) < len(stripped):
        problems.mended("empty sentence, left out", name)
    return sentences


def picture_folder(root: Path, folders: Sequence[str]) -> str:
    """The first of these folders below the root that is there.

    Raises:
        FileNotFoundError: If none is.
    """
    for folder in folders:
        if (root / folder).is_dir():
            return folder
    raise missing_layout(root, [f"{folder}/ with the pictures" for folder in folders])


def _sound_place(root: Path, found: FoundObject, places: Places, problems: Problems) -> str | None:
    """The path of an object's picture, which is there, whole and of the size that is told."""
    try:
        paths = places(relative_path(found.name))
    except ValueError:
        problems.broken("path leaves the folder", found.name)
        return None
    path = next((path for path in paths[:-1] if _is_there(root / path)), paths[-1])
    return path if sound_picture(root, path, problems, size=(found.height, found.width)) else None


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for the system
        return False


def _sound_segmentation(segmentation: Any, size: tuple[int, int], name: str, problems: Problems) -> EncodedMask | None:
    """A mask that marks something; otherwise None, and the reason in ``problems``."""
    try:
        left_out = 0
        if isinstance(segmentation, list):
            usable = usable_polygons(segmentation)
            left_out = len(segmentation) - len(usable)
            if not usable:
                problems.broken("no usable polygon", name)
                return None
        mask = read_segmentation(segmentation, size)
    except ValueError as error:
        problems.broken("broken mask", f"{name}: {error}")
        return None
    if mask is None:
        problems.broken("empty mask", name)
        return None
    if left_out:
        problems.mended("polygon of fewer than 3 points or an odd number of values, left out", name)
    return mask


def _sound_box(box: Any, size: tuple[int, int], name: str, problems: Problems) -> Box | None:
    """A box ``(x, y, width, height)`` inside its picture; otherwise None, and the reason in ``problems``."""
    numbers = isinstance(box, list | tuple) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
    if not numbers or not all(map(math.isfinite, box)):
        problems.broken("box that is not four numbers", f"{name}: {box!r:.60}")
        return None
    x, y, width, height = map(float, box)
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width, float(size[1])), min(y + height, float(size[0]))
    example = f"{name}: {list(box)} in {size[1]}x{size[0]}"
    if min(width, height, right - left, bottom - top) <= 0:
        problems.broken("box without an area in its picture", example)
        return None
    if max(left - x, top - y, x + width - right, y + height - bottom) > _ROUNDING:
        problems.mended("box that leaves its picture, clipped", example)
    return left, top, right - left, bottom - top
