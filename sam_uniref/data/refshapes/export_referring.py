"""RefShapes scenes as RefCOCO (``instances.json``, ``refs(unc).p``, COCO's train2014 pictures) and as COCO 2017."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sam_uniref.data.refshapes.coco_entries import CocoEntries
from sam_uniref.data.refshapes.dataset import SPLITS, RefShapesDataset
from sam_uniref.data.refshapes.files import write_jpeg, write_json, write_pickle

# What the published sets call the two splits.
_PUBLISHED = {"train": "train", "validation": "val"}


def write_refcoco(root: Path, dataset: RefShapesDataset, count: int) -> Path:
    """``data/refcoco`` and ``data/images`` as the official repository lays them out; splits train and val."""
    folder = root / "data"
    entries = CocoEntries("RefShapes in the layout of RefCOCO")
    refs: list[dict[str, Any]] = []
    for split in SPLITS:
        for index in range(count):
            named = dataset.scene_sentences(index, split)
            name, annotations = entries.add(dataset.scene(index, split), named, "COCO_train2014_")
            write_jpeg(folder / "images" / "mscoco" / "images" / "train2014" / name, named.image)
            for number, annotation in enumerate(annotations, start=1):
                said = [text for target, text in named.sentences if target == number]
                if said:
                    sentence_id = sum(len(ref["sentences"]) for ref in refs)
                    refs.append(_ref(len(refs) + 1, annotation, said, sentence_id, _PUBLISHED[split]))
    write_json(folder / "refcoco" / "instances.json", entries.content())
    write_pickle(folder / "refcoco" / "refs(unc).p", refs)
    return folder


def write_coco(root: Path, dataset: RefShapesDataset, count: int) -> Path:
    """``annotations/instances_{train,val}2017.json`` and ``{train,val}2017``; the scenes of `write_refcoco`."""
    folder = root / "coco"
    entries = None
    for split in SPLITS:
        entries = CocoEntries("RefShapes in the layout of COCO 2017", after=entries)
        for index in range(count):
            named = dataset.scene_sentences(index, split)
            name, _ = entries.add(dataset.scene(index, split), named)
            write_jpeg(folder / f"{_PUBLISHED[split]}2017" / name, named.image)
        write_json(folder / "annotations" / f"instances_{_PUBLISHED[split]}2017.json", entries.content())
    return folder


def _ref(number: int, annotation: dict[str, Any], said: list[str], sentence_id: int, split: str) -> dict[str, Any]:
    """An object that is spoken of."""
    ids = list(range(sentence_id, sentence_id + len(said)))
    return {
        "ref_id": number,
        "ann_id": annotation["id"],
        "category_id": annotation["category_id"],
        "image_id": annotation["image_id"],
        # As in the original, not the name of a picture: a suffix that readers must not trust.
        "file_name": f"COCO_train2014_{annotation['image_id']:012d}_{number}.jpg",
        "split": split,
        "sent_ids": ids,
        "sentences": [
            {"sent_id": k, "raw": text, "sent": text, "tokens": text.split()} for k, text in zip(ids, said, strict=True)
        ],
    }
