"""COCO-shaped files, read as a stream: ``images``, ``categories`` and ``annotations`` joined in bounded memory."""

from __future__ import annotations

import json
from array import array
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sam_uniref.data.formats.annotations import FoundObject
from sam_uniref.data.formats.compact import IdSet, Texts
from sam_uniref.data.formats.streams import stream_objects
from sam_uniref.data.prepared.problems import Problems


class Picture(NamedTuple):
    """An entry of ``images``.

    Attributes:
        id: In this file.
        name: Its ``file_name`` as it stands there; not to be trusted.
        height: In pixels.
        width: In pixels.
        expressions: Its ``expressions`` as they stand there; None if it has none.
    """

    id: int
    name: str
    height: int
    width: int
    expressions: Any


class PictureTable:
    """The ``images`` of a file by their ids: about 60 bytes each, for there are files of two million."""

    def __init__(self, path: Path, problems: Problems) -> None:
        """Read them all.

        Args:
            path: The COCO-shaped file.
            problems: Takes ids that stand twice; the first picture of such an id is kept.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is broken, or of another release.
        """
        ids, heights, widths = array("q"), array("i"), array("i")
        self._names, self._expressions = Texts(), Texts()
        for image in stream_objects(path, "images", "id", "file_name", "height", "width"):
            try:
                ids.append(image["id"])
                heights.append(image["height"])
                widths.append(image["width"])
                self._names.append(image["file_name"])
            except (TypeError, OverflowError, AttributeError) as error:
                raise ValueError(f"{path}: the picture {image['id']!r} has broken entries ({error})") from error
            self._expressions.append(json.dumps(image["expressions"]) if "expressions" in image else "")
        self._heights, self._widths = heights, widths
        whole = np.frombuffer(ids, np.int64)
        # Stable: of pictures with the same id the first is found.
        self._order = np.argsort(whole, kind="stable")
        self._ids = whole[self._order]
        for double in self._ids[1:][np.diff(self._ids) == 0].tolist():
            problems.broken("picture id that stands twice", double)

    def find(self, picture_id: Any) -> Picture | None:
        """The picture of an id; None if there is none."""
        if not isinstance(picture_id, int):
            return None
        rank = int(np.searchsorted(self._ids, picture_id))
        if rank == len(self._ids) or self._ids[rank] != picture_id:
            return None
        place = int(self._order[rank])
        said = self._expressions[place]
        return Picture(
            picture_id,
            self._names[place],
            self._heights[place],
            self._widths[place],
            json.loads(said) if said else None,
        )


class Annotation(NamedTuple):
    """An entry of ``annotations``, joined with its picture and category."""

    entry: dict[str, Any]
    picture: Picture
    category: str

    def found(
        self, shape: str, *, target: int | None = None, sentences: tuple[str, ...] = (), coco_id: int | None = None
    ) -> FoundObject:
        """The object.

        Args:
            shape: The key of its mask or box.
            target: Its id; by default the annotation's.
            sentences: That mean it.
            coco_id: Its picture's id in COCO; None if it is not in COCO.
        """
        name = str(self.entry["id"] if target is None else target)
        _, picture, height, width, _ = self.picture
        return FoundObject(name, picture, height, width, self.category, self.entry[shape], sentences, coco_id)


def stream_annotations(
    path: Path, problems: Problems, shape: str, *, only: Container[int] | None = None, crowds: bool = False
) -> Iterator[Annotation]:
    """All annotations that have a picture and a category, in the file's order.

    Args:
        path: The COCO-shaped file.
        problems: Takes those that have none, whose id stands twice, and crowds.
        shape: The key that each must have: ``segmentation`` or ``bbox``.
        only: Ids to give; the others are passed over. By default all.
        crowds: Whether groups (``iscrowd``) are given too.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is broken, or of another release.
    """
    pictures, categories = PictureTable(path, problems), _categories(path)
    seen = IdSet()
    for entry in stream_objects(path, "annotations", "id", "image_id", "category_id", shape):
        number = entry["id"]
        if not isinstance(number, int):
            problems.broken("annotation whose id is no whole number", number)
            continue
        if only is not None and number not in only:
            continue
        picture, category = pictures.find(entry["image_id"]), entry["category_id"]
        if not seen.add(number):
            problems.broken("annotation id that stands twice", number)
        elif entry.get("iscrowd") and not crowds:
            problems.by_rule("crowd", number)
        elif picture is None:
            problems.broken("annotation of an unknown picture id", f"{number}: {entry['image_id']}")
        elif not isinstance(category, int) or category not in categories:
            problems.broken("annotation of an unknown category id", f"{number}: {category}")
        else:
            yield Annotation(entry, picture, categories[category])


def _categories(path: Path) -> dict[int, str]:
    """Names by id."""
    names = {}
    for entry in stream_objects(path, "categories", "id", "name"):
        if not isinstance(entry["id"], int):
            raise ValueError(f"{path} has a category whose id is {entry['id']!r}; it must be a whole number")
        names[entry["id"]] = str(entry["name"])
    return names
