"""Small downloads made by hand, and what their readers make of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam_uniref.data.formats import named_format
from sam_uniref.data.prepared import EncodedMask, decode_mask, open_split, prepare

SIZE = (20, 30)
"""``(height, width)`` of all pictures."""


def write_picture(path: Path, size: tuple[int, int] = SIZE) -> None:
    """A picture of noise, big enough to be cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)).save(path)


def cut_off(path: Path) -> None:
    """Lose the second half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def square(x: float, y: float, side: float = 4) -> list[float]:
    """A polygon whose mask is ``[y : y + side, x : x + side]``."""
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def filled(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """The mask of boxes ``(x, y, width, height)``."""
    mask = np.zeros(SIZE, bool)
    for x, y, width, height in boxes:
        mask[y : y + height, x : x + width] = True
    return mask


def image_entry(number: int, name: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name or f"{number:012d}.jpg", "height": SIZE[0], "width": SIZE[1], **more}


def annotation(number: int, image_id: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    entry = {"id": number, "image_id": image_id, "category_id": 7, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0}
    return {**entry, "segmentation": segmentation, **more}


def coco_file(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """A COCO-shaped file; as in the official ones the categories come last."""
    categories = [{"id": 7, "name": "cat", "supercategory": "animal"}, {"id": 90, "name": "toothbrush"}]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def prepared(name: str, root: Path, split: str) -> tuple[list[dict[str, Any]], dict[tuple[str, str], int]]:
    """Rows of a split in order, and how often each ``(severity, reason)`` was met."""
    out = root.parent / f"{root.name}_prepared"
    info = prepare(named_format(name), root, out, splits=(split,), workers=0)
    entry = info.splits[split]
    rows = list(open_split(out / name, split)) if entry["rows"] else []
    return rows, {(p["severity"], p["reason"]): p["count"] for p in entry["problems"]}


def mask_of(row: dict[str, Any]) -> np.ndarray:
    return decode_mask(EncodedMask(row["rle"], (row["height"], row["width"])))
