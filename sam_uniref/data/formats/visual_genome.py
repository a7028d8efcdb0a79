"""Visual Genome: phrases for boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

from sam_uniref.data.formats.annotations import UNIT, FoundObject, box_rows
from sam_uniref.data.formats.compact import IdSet
from sam_uniref.data.formats.files import in_units, missing_layout
from sam_uniref.data.formats.streams import stream_objects
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import ImageRow, TableKind

_REGIONS, _PICTURES = "region_descriptions.json", "image_data.json"
_FOLDERS = ("VG_100K", "VG_100K_2")
_BOX = ("x", "y", "width", "height")


class _Picture(NamedTuple):
    """An entry of ``image_data.json``; its path has the folder that its url names."""

    path: str
    height: int
    width: int
    coco_id: int | None


class VisualGenome:
    """``region_descriptions.json``, ``image_data.json``, ``VG_100K`` and ``VG_100K_2``; it has no splits: all is train.

    Phrases describe their regions but not always them alone.
    """

    name: ClassVar[str] = "visual_genome"
    title: ClassVar[str] = "Visual Genome region descriptions"
    table: ClassVar[TableKind] = "images"
    homepage: ClassVar[str] = "https://homes.cs.washington.edu/~ranjay/visualgenome"
    licence: ClassVar[str] = "CC BY 4.0"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {}

    def splits(self, root: Path) -> tuple[str, ...]:
        """See `DataFormat`."""
        if not all((root / name).is_file() for name in (_REGIONS, _PICTURES)):
            raise missing_layout(root, [f"{_REGIONS}, {_PICTURES}, VG_100K/ and VG_100K_2/"])
        return ("train",)

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[list[FoundObject]]:
        """See `DataFormat`."""
        return in_units(_regions(root, problems), UNIT)

    def read(self, root: Path, split: str, unit: list[FoundObject], problems: Problems) -> Iterator[ImageRow]:
        """See `DataFormat`."""
        return box_rows(root, unit, lambda name: (name,), problems)


def _regions(root: Path, problems: Problems) -> Iterator[FoundObject]:
    """All regions, joined with their pictures."""
    pictures = _pictures(root / _PICTURES, problems)
    seen = IdSet()
    path = root / _REGIONS
    for entry in stream_objects(path, "", "id", "regions"):
        picture = pictures.get(_id_of(entry, "id", path))
        if not isinstance(entry["regions"], list):
            raise ValueError(f"{path}: the regions of picture {entry['id']} are no list: it is another release's")
        for region in entry["regions"]:
            number = _id_of(region, "region_id", path)
            phrase = region.get("phrase")
            if not seen.add(number):
                problems.broken("region id that stands twice", number)
            elif picture is None:
                problems.broken("region of an unknown picture id", f"{number}: {entry['id']}")
            elif not isinstance(phrase, str) or not phrase.strip():
                problems.broken("region without a phrase", number)
            else:
                box = [region.get(key) for key in _BOX]
                yield FoundObject(
                    str(number),
                    picture.path,
                    picture.height,
                    picture.width,
                    "",
                    box,
                    (phrase.strip(),),
                    picture.coco_id,
                )


def _pictures(path: Path, problems: Problems) -> dict[int, _Picture]:
    """All pictures by id."""
    pictures: dict[int, _Picture] = {}
    for entry in stream_objects(path, "", "url", "width", "height"):
        number, url = _id_of(entry, "image_id", path), PurePosixPath(str(entry["url"]))
        if number in pictures:
            problems.broken("picture id that stands twice", number)
        elif url.parent.name not in _FOLDERS:
            problems.broken(f"picture whose url names none of {', '.join(_FOLDERS)}", f"{number}: {url}")
        else:
            place = f"{url.parent.name}/{url.name}"
            coco_id = entry.get("coco_id")
            known = coco_id if isinstance(coco_id, int) else None
            pictures[number] = _Picture(place, entry["height"], entry["width"], known)
    return pictures


def _id_of(entry: Any, key: str, path: Path) -> int:
    """An entry's id, which older files call ``id``."""
    number = entry.get(key, entry.get("id")) if isinstance(entry, dict) else None
    if not isinstance(number, int):
        raise ValueError(
            f"{path} has an entry without a whole number as {key} or id: it is another release's, or another data set's"
        )
    return number
