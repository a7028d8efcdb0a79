"""Objects365, version 2: boxes of 365 classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

from sam_uniref.data.formats.annotations import UNIT, FoundObject, box_rows
from sam_uniref.data.formats.coco_json import stream_annotations
from sam_uniref.data.formats.files import in_units, missing_layout
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import ImageRow, TableKind


class Objects365:
    """``{train,val}/zhiyuan_objv2_{train,val}.json``, and pictures in patches, however they were unpacked."""

    name: ClassVar[str] = "objects365"
    title: ClassVar[str] = "Objects365 v2"
    table: ClassVar[TableKind] = "images"
    homepage: ClassVar[str] = "https://www.objects365.org"
    licence: ClassVar[str] = "see the homepage: what it allows is disputed"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {}

    def splits(self, root: Path) -> tuple[str, ...]:
        """See `DataFormat`."""
        found = tuple(split for split in ("train", "val") if _annotations(root, split).is_file())
        if not found:
            raise missing_layout(
                root, ["train/zhiyuan_objv2_train.json and train/patch0/...", "the same two in annotations/ or in it"]
            )
        return found

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[list[FoundObject]]:
        """See `DataFormat`."""
        return in_units(self._objects(root, split, problems), UNIT)

    def _objects(self, root: Path, split: str, problems: Problems) -> Iterator[FoundObject]:
        for annotation in stream_annotations(_annotations(root, split), problems, "bbox"):
            yield annotation.found("bbox")

    def read(self, root: Path, split: str, unit: list[FoundObject], problems: Problems) -> Iterator[ImageRow]:
        """See `DataFormat`."""
        return box_rows(root, unit, lambda name: _places(split, name), problems)


def _annotations(root: Path, split: str) -> Path:
    """The split's file, where it is."""
    name = f"zhiyuan_objv2_{split}.json"
    places = [root / folder / name for folder in (split, "annotations", "")]
    return next((place for place in places if place.is_file()), places[0])


def _places(split: str, name: str) -> tuple[str, ...]:
    """Where a picture may lie: ``file_name`` has folders of its own, of which the archives keep the patch alone."""
    path = PurePosixPath(name)
    patch = "/".join(path.parts[-2:])
    tails = dict.fromkeys((patch, name, path.name))
    heads = (split, f"images/{split}", f"{split}/images", "images", "")
    # The last is the one that messages name if there is none.
    places = [f"{head}/{tail}" if head else tail for tail in tails for head in heads]
    return (*places, f"{split}/{patch}")
