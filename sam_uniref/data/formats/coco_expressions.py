"""Own data with sentences: COCO-shaped files that have ``expressions``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from sam_uniref.data.formats.annotations import UNIT, FoundObject, mask_rows, sound_sentences
from sam_uniref.data.formats.coco_json import stream_annotations
from sam_uniref.data.formats.compact import IdSet
from sam_uniref.data.formats.files import in_units, missing_layout
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import ImageRow, TableKind

# Such files number their pictures anew; COCO's of 2014 still tell their id in their names.
_COCO_2014 = re.compile(r"COCO_(?:train|val|test)2014_(\d{12})\.")


class CocoExpressions:
    """``<split>.json`` in the root or in ``annotations``, and pictures in ``images`` or in the root.

    ``expressions``, a list of sentences, stands in each annotation; or in the picture, which then is of one object.
    """

    name: ClassVar[str] = "coco_expressions"
    title: ClassVar[str] = "COCO-shaped file with expressions"
    table: ClassVar[TableKind] = "images"
    homepage: ClassVar[str] = "https://cocodataset.org/#format-data"
    licence: ClassVar[str] = "not stated"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {}

    def splits(self, root: Path) -> tuple[str, ...]:
        """See `DataFormat`."""
        files = _files(root)
        if not files:
            raise missing_layout(root, ["<split>.json and images/", "annotations/<split>.json and images/"])
        return tuple(files)

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[list[FoundObject]]:
        """See `DataFormat`."""
        return in_units(_objects(_files(root)[split], problems), UNIT)

    def read(self, root: Path, split: str, unit: list[FoundObject], problems: Problems) -> Iterator[ImageRow]:
        """See `DataFormat`."""
        return mask_rows(root, unit, lambda name: (f"images/{name}", name), problems)


def _files(root: Path) -> dict[str, Path]:
    """Files by split; of two of a name the root's counts."""
    files = {path.stem: path for folder in (root / "annotations", root) for path in folder.glob("*.json")}
    return dict(sorted(files.items()))


def _objects(path: Path, problems: Problems) -> Iterator[FoundObject]:
    """All objects that sentences mean."""
    of_pictures = IdSet()
    for annotation in stream_annotations(path, problems, "segmentation"):
        entry, picture = annotation.entry, annotation.picture
        number, said = entry["id"], entry.get("expressions", picture.expressions)
        if said is None:
            problems.by_rule("object without expressions", number)
        elif not isinstance(said, list) or not all(isinstance(text, str) for text in said):
            problems.broken("expressions that are no list of sentences", number)
        elif "expressions" not in entry and not of_pictures.add(picture.id):
            problems.broken("second object of a picture whose expressions mean one", number)
        elif not (sentences := sound_sentences(said, number, problems)):
            problems.by_rule("object without expressions", number)
        else:
            coco = _COCO_2014.search(picture.name)
            yield annotation.found("segmentation", sentences=sentences, coco_id=int(coco[1]) if coco else None)
