"""RefShapes scenes as the entries of a COCO-shaped file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.refshapes.dataset import NamedScene
from sam_uniref.data.refshapes.polygons import mask_polygons
from sam_uniref.data.refshapes.scene import Scene
from sam_uniref.data.refshapes.shapes import SEEN_SHAPES


class CocoEntries:
    """The content of one file; ids of pictures and of objects run from 1, or on from where another file ended."""

    def __init__(self, description: str, *, after: CocoEntries | None = None) -> None:
        self.description = description
        self._image_ids: Iterator[int] = after._image_ids if after else count(1)
        self._annotation_ids: Iterator[int] = after._annotation_ids if after else count(1)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, scene: Scene, named: NamedScene, prefix: str = "") -> tuple[str, list[dict[str, Any]]]:
        """Add a scene.

        Args:
            scene: Its objects.
            named: Its picture and ids.
            prefix: Of its picture's name.

        Returns:
            Its picture's file name, and the annotations of its objects in order.
        """
        image_id = next(self._image_ids)
        name = f"{prefix}{image_id:012d}.jpg"
        height, width = named.ids.shape
        urls = {"coco_url": "", "flickr_url": ""}
        self._images.append({"id": image_id, "file_name": name, "height": height, "width": width, "license": 0, **urls})
        annotations = [
            _annotation(next(self._annotation_ids), image_id, SEEN_SHAPES.index(item.shape) + 1, named.ids == number)
            for number, item in enumerate(scene.objects, start=1)
        ]
        self._annotations += annotations
        return name, annotations

    def content(self) -> dict[str, Any]:
        """The file's object."""
        categories = [{"id": k, "name": name, "supercategory": "shape"} for k, name in enumerate(SEEN_SHAPES, start=1)]
        return {
            "info": {"description": self.description},
            "licenses": [],
            "images": self._images,
            "annotations": self._annotations,
            "categories": categories,
        }


def _annotation(number: int, image_id: int, category: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
    """An object; what hides it may cut it into several polygons."""
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
