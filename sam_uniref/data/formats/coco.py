"""COCO 2017 instances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from sam_uniref.data.formats.annotations import UNIT, FoundObject, mask_rows, picture_folder
from sam_uniref.data.formats.coco_json import stream_annotations
from sam_uniref.data.formats.files import in_units, missing_layout
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import ImageRow, TableKind


class Coco:
    """``annotations/instances_{train,val}2017.json``, and pictures in ``{train,val}2017`` or ``images/...`` of it."""

    name: ClassVar[str] = "coco"
    title: ClassVar[str] = "COCO 2017"
    table: ClassVar[TableKind] = "images"
    homepage: ClassVar[str] = "https://cocodataset.org"
    licence: ClassVar[str] = "annotations CC BY 4.0; pictures under Flickr's terms of use"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {}

    def splits(self, root: Path) -> tuple[str, ...]:
        """See `DataFormat`."""
        found = tuple(split for split in ("train", "val") if _annotations(root, split).is_file())
        if not found:
            raise missing_layout(root, ["annotations/instances_{train,val}2017.json and {train,val}2017/"])
        return found

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[list[FoundObject]]:
        """See `DataFormat`."""
        picture_folder(root, _folders(split))
        return in_units(self._objects(root, split, problems), UNIT)

    def _objects(self, root: Path, split: str, problems: Problems) -> Iterator[FoundObject]:
        for annotation in stream_annotations(_annotations(root, split), problems, "segmentation"):
            yield annotation.found("segmentation", coco_id=annotation.picture.id)

    def read(self, root: Path, split: str, unit: list[FoundObject], problems: Problems) -> Iterator[ImageRow]:
        """See `DataFormat`."""
        folder = picture_folder(root, _folders(split))
        return mask_rows(root, unit, lambda name: (f"{folder}/{name}",), problems)


def _annotations(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}2017.json"


def _folders(split: str) -> tuple[str, str]:
    return f"{split}2017", f"images/{split}2017"
