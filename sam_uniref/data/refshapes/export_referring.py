"""RefShapes scenes as RefCOCO: ``instances.json``, ``refs(unc).p`` and COCO's train2014 pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.refshapes.dataset import SPLITS, RefShapesDataset
from sam_uniref.data.refshapes.files import write_jpeg, write_json, write_pickle
from sam_uniref.data.refshapes.polygons import mask_polygons
from sam_uniref.data.refshapes.shapes import SEEN_SHAPES


def write_refcoco(root: Path, dataset: RefShapesDataset, count: int) -> Path:
    """``data/refcoco`` and ``data/images`` as the official repository lays them out; splits train and val."""
    folder = root / "data"
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    refs: list[dict[str, Any]] = []
    for split in SPLITS:
        for index in range(count):
            named = dataset.scene_sentences(index, split)
            scene = dataset.scene(index, split)
            image_id = len(images) + 1
            name = f"COCO_train2014_{image_id:012d}.jpg"
            write_jpeg(folder / "images" / "mscoco" / "images" / "train2014" / name, named.image)
            images.append(_image_entry(image_id, name, dataset.side))
            for number, item in enumerate(scene.objects, start=1):
                category = SEEN_SHAPES.index(item.shape) + 1
                annotations.append(_annotation(len(annotations) + 1, image_id, category, named.ids == number))
                said = [text for target, text in named.sentences if target == number]
                if said:
                    sentence_id = sum(len(ref["sentences"]) for ref in refs)
                    refs.append(_ref(len(refs) + 1, annotations[-1], said, sentence_id, split))
    categories = [{"id": k, "name": shape, "supercategory": "shape"} for k, shape in enumerate(SEEN_SHAPES, start=1)]
    instances = {
        "info": {"description": "RefShapes in the layout of RefCOCO"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    write_json(folder / "refcoco" / "instances.json", instances)
    write_pickle(folder / "refcoco" / "refs(unc).p", refs)
    return folder


def _image_entry(image_id: int, name: str, side: int) -> dict[str, Any]:
    """A picture of ``instances.json``."""
    urls = {"coco_url": "", "flickr_url": ""}
    return {"id": image_id, "file_name": name, "height": side, "width": side, "license": 0, **urls}


def _annotation(number: int, image_id: int, category: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
    """An object of ``instances.json``; what hides it may cut it into several polygons."""
    rows, columns = np.nonzero(mask)
    left, top = int(columns.min()), int(rows.min())
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category,
        "bbox": [float(left), float(top), float(columns.max() - left + 1), float(rows.max() - top + 1)],
        "area": float(mask.sum()),
        "iscrowd": 0,
        "segmentation": mask_polygons(mask),
    }


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
        "split": "train" if split == "train" else "val",
        "sent_ids": ids,
        "sentences": [
            {"sent_id": k, "raw": text, "sent": text, "tokens": text.split()} for k, text in zip(ids, said, strict=True)
        ],
    }
