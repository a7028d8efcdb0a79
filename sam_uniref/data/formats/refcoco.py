"""RefCOCO, RefCOCO+ and RefCOCOg, in the partitions of their authors (unc, umd) and of Google."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from sam_uniref.data.formats.annotations import UNIT, FoundObject, mask_rows, picture_folder, sound_sentences
from sam_uniref.data.formats.coco_json import stream_annotations
from sam_uniref.data.formats.compact import IdSet
from sam_uniref.data.formats.files import in_units, missing_layout
from sam_uniref.data.formats.safe_pickle import load_plain_pickle
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import ImageRow, TableKind

_SPLITS = ("train", "val", "testA", "testB", "test")
_FOLDERS = ("images/mscoco/images/train2014", "images/train2014", "train2014")
_WHOLE_NUMBERS = ("ref_id", "ann_id", "image_id")


class RefCoco:
    """``refcoco/instances.json``, ``refcoco/refs(unc).p``, and pictures in ``images/mscoco/images/train2014``.

    A row is a referred object (a "ref") with all its sentences, in the cleaned form that papers use.

    Attributes:
        folder: Of the annotations, below the root.
        refs: Name of the file of refs in it.
    """

    name: ClassVar[str] = "refcoco"
    title: ClassVar[str] = "RefCOCO"
    table: ClassVar[TableKind] = "images"
    homepage: ClassVar[str] = "https://github.com/lichengunc/refer"
    licence: ClassVar[str] = "annotations: none stated; pictures under Flickr's terms of use"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "train": {"images": 16994, "targets": 42404, "sentences": 120624},
        "val": {"images": 1500, "targets": 3811, "sentences": 10834},
        "testA": {"images": 750, "targets": 1975, "sentences": 5657},
        "testB": {"images": 750, "targets": 1810, "sentences": 5095},
    }
    folder: ClassVar[str] = "refcoco"
    refs: ClassVar[str] = "refs(unc).p"

    def splits(self, root: Path) -> tuple[str, ...]:
        """See `DataFormat`."""
        if not (root / self.folder / self.refs).is_file():
            raise missing_layout(
                root, [f"{self.folder}/{self.refs}, {self.folder}/instances.json and {_FOLDERS[0]}/ with the pictures"]
            )
        there = {ref["split"] for ref in self._refs(root)}
        return tuple(split for split in _SPLITS if split in there)

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[list[FoundObject]]:
        """See `DataFormat`."""
        picture_folder(root, _FOLDERS)
        return in_units(self._objects(root, split, problems), UNIT)

    def _objects(self, root: Path, split: str, problems: Problems) -> Iterator[FoundObject]:
        """Refs joined with their objects, in the order of the objects."""
        refs: dict[int, list[dict[str, Any]]] = defaultdict(list)
        seen = IdSet()
        for ref in self._refs(root):
            if ref["split"] != split:
                continue
            if seen.add(ref["ref_id"]):
                refs[ref["ann_id"]].append(ref)
            else:
                problems.broken("ref id that stands twice", ref["ref_id"])
        path = root / self.folder / "instances.json"
        # A group that a sentence means is a target like any other here, as in the papers' evaluation.
        for annotation in stream_annotations(path, problems, "segmentation", only=set(refs), crowds=True):
            for ref in refs.pop(annotation.entry["id"], ()):
                said = (sentence["sent"] for sentence in ref["sentences"])
                sentences, picture = sound_sentences(said, ref["ref_id"], problems), annotation.picture.id
                if ref["image_id"] != picture:
                    problems.broken("ref and its object are of two pictures", ref["ref_id"])
                elif not sentences:
                    problems.broken("ref without a sentence", ref["ref_id"])
                else:
                    yield annotation.found("segmentation", target=ref["ref_id"], sentences=sentences, coco_id=picture)
        for lost in refs.values():
            for ref in lost:
                problems.broken("ref without a sound object in instances.json", ref["ref_id"])

    def read(self, root: Path, split: str, unit: list[FoundObject], problems: Problems) -> Iterator[ImageRow]:
        """See `DataFormat`."""
        folder = picture_folder(root, _FOLDERS)
        return mask_rows(root, unit, lambda name: (f"{folder}/{name}",), problems)

    def _refs(self, root: Path) -> list[dict[str, Any]]:
        """All refs, as they stand in the file, if they are what they should be."""
        path = root / self.folder / self.refs
        refs = load_plain_pickle(path)
        if not isinstance(refs, list) or not all(map(_is_ref, refs)):
            raise ValueError(
                f"{path} is no list of refs with {[*_WHOLE_NUMBERS, 'split', 'sentences']}, whose split is one of "
                f"{list(_SPLITS)}: it is another release's, or another data set's"
            )
        return refs


def _is_ref(ref: Any) -> bool:
    """Whether it has what is read of it."""
    return (
        isinstance(ref, dict)
        and all(isinstance(ref.get(key), int) for key in _WHOLE_NUMBERS)
        and ref.get("split") in _SPLITS
        and isinstance(ref.get("sentences"), list)
        and all(isinstance(said, dict) and isinstance(said.get("sent"), str) for said in ref["sentences"])
    )


class RefCocoPlus(RefCoco):
    """RefCOCO+: as RefCOCO, without words of place."""

    name = "refcoco+"
    title = "RefCOCO+"
    folder = "refcoco+"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "train": {"images": 16992, "targets": 42278, "sentences": 120191},
        "val": {"images": 1500, "targets": 3805, "sentences": 10758},
        "testA": {"images": 750, "targets": 1975, "sentences": 5726},
        "testB": {"images": 750, "targets": 1798, "sentences": 4889},
    }


class RefCocoG(RefCoco):
    """RefCOCOg in the partition umd."""

    name = "refcocog"
    title = "RefCOCOg (umd)"
    folder = "refcocog"
    refs = "refs(umd).p"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "train": {"images": 21899, "targets": 42226},
        "val": {"images": 1300, "targets": 2573},
        "test": {"images": 2600, "targets": 5023},
    }


class RefCocoGoogle(RefCoco):
    """RefCOCO in Google's partition."""

    name = "refcoco_google"
    title = "RefCOCO (google)"
    refs = "refs(google).p"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "train": {"images": 19213, "targets": 40000},
        "val": {"images": 4559, "targets": 5000},
        "test": {"images": 4527, "targets": 5000},
    }


class RefCocoGGoogle(RefCoco):
    """RefCOCOg in Google's partition, in which a picture can be in both splits; it has no test split."""

    name = "refcocog_google"
    title = "RefCOCOg (google)"
    folder = "refcocog"
    refs = "refs(google).p"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "train": {"images": 24698, "targets": 44822},
        "val": {"images": 4650, "targets": 5000},
    }
