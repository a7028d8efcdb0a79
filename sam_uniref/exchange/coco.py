"""COCO: run-length encodings, annotation files (instances_*.json) and result files (lists of detections)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sam_uniref.data.prepared.masks import decode_mask, read_segmentation
from sam_uniref.exchange.labelled import LabelledMask, LabelledPicture, all_labels, check_size, checked_score
from sam_uniref.exchange.polygons import encode_polygons, join_rings
from sam_uniref.images import Mask
from sam_uniref.segmentation import encode_rle
from sam_uniref.transforms import Size

__all__ = [
    "annotation",
    "decode_coco",
    "decode_results",
    "decode_rle",
    "decode_segmentation",
    "encode_coco",
    "encode_results",
    "encode_rle",
    "encode_runs",
]


def encode_runs(mask: Mask) -> dict[str, Any]:
    """Uncompressed run-length encoding: ``{"size": [height, width], "counts": [int, ...]}``, background first."""
    values = np.concatenate([[False], mask.ravel(order="F"), [not mask[-1, -1]]])
    changes = np.flatnonzero(values[1:] != values[:-1])
    return {"size": [int(side) for side in mask.shape], "counts": np.diff(changes, prepend=0).tolist()}


def decode_rle(rle: Mapping[str, Any]) -> Mask:
    """Run-length encoding of either form to ``(H, W)`` bool.

    Args:
        rle: ``size`` and ``counts``, a list of runs or COCO's string of them.

    Raises:
        ValueError: If it is not such a mapping, the size is none, or the runs do not fill it.
    """
    size = rle.get("size") if isinstance(rle, Mapping) else None
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 2:
        raise ValueError("run-length encoding has a size [height, width] and counts, got something else")
    return decode_segmentation(rle, check_size(*size))


def decode_segmentation(segmentation: Any, size: Size) -> Mask:
    """A COCO ``segmentation`` to ``(H, W)`` bool: polygons, or run-length encoding of either form.

    Args:
        segmentation: As it stands in the JSON file.
        size: ``(height, width)`` of the picture.

    Raises:
        ValueError: If it is of another size, of no known form or broken.
    """
    checked = check_size(*size)
    if isinstance(segmentation, Mapping) and isinstance(segmentation.get("counts"), list):
        _check_runs(segmentation["counts"])
    encoded = read_segmentation(segmentation, checked)
    return np.zeros(checked, bool) if encoded is None else decode_mask(encoded)


def _check_runs(counts: list[Any]) -> None:
    """Refuse numbers that no array of whole numbers holds."""
    if not all(isinstance(count, int) and 0 <= count < 2**63 for count in counts):
        raise ValueError("the runs of a mask are whole numbers from 0 on, got something else")


def annotation(found: LabelledMask, *, polygons: bool = False, tolerance: float = 0.0) -> dict[str, Any]:
    """What COCO says of one object: ``segmentation``, ``bbox`` (x, y, width, height), ``area``, ``iscrowd``, ``score``.

    Args:
        found: The object. Without a score there is none.
        polygons: As polygons, a list of numbers a part; else as a compressed run-length encoding. A hole is joined
            with the outline around it by a bridge of no width, which pycocotools reads as a hole.
        tolerance: Of the polygons; see `encode_polygons`.
    """
    segmentation: Any = encode_rle(found.mask)
    if polygons:
        parts = encode_polygons(found.mask, tolerance=tolerance)
        segmentation = [join_rings([part]).ravel().tolist() for part in parts]
    x0, y0, x1, y1 = found.box or (0, 0, 0, 0)
    entry: dict[str, Any] = {
        "segmentation": segmentation,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(found.mask.sum()),
        "iscrowd": 0,
    }
    return entry if found.score is None else {**entry, "score": float(found.score)}


def encode_coco(
    pictures: Sequence[LabelledPicture], *, polygons: bool = False, tolerance: float = 0.0
) -> dict[str, Any]:
    """An annotation file: ``images``, ``annotations`` and ``categories``, each numbered from 1. pycocotools reads it.

    Args:
        pictures: In the order of their ids. Empty masks are left out: COCO's tools can't tell them from broken ones.
        polygons: See `annotation`.
        tolerance: See `encode_polygons`.
    """
    categories = {label: number for number, label in enumerate(all_labels(pictures), start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, picture in enumerate(pictures, start=1):
        height, width = picture.size
        images.append({"id": image_id, "file_name": picture.file_name, "width": int(width), "height": int(height)})
        for found in picture.objects:
            if found.mask.any():
                ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": categories[found.label]}
                annotations.append({**ids, **annotation(found, polygons=polygons, tolerance=tolerance)})
    named = [{"id": number, "name": label} for label, number in categories.items()]
    return {"images": images, "annotations": annotations, "categories": named}


def decode_coco(content: Any) -> Iterator[LabelledPicture]:
    """The pictures of an annotation file, one after another: no more than one picture's masks are held.

    Args:
        content: What `json.load` gives.

    Raises:
        ValueError: If it is no such file, names an unknown picture or category, or has a broken mask; it says which.
    """
    images = _entries(content, "images")
    names = {_number(c, "categories"): c.get("name") for c in _entries(content, "categories")}
    by_image: dict[int, list[Mapping[str, Any]]] = {_number(image, "images"): [] for image in images}
    if len(by_image) != len(images):
        raise ValueError("two images of the COCO file have the same id")
    for entry in _entries(content, "annotations"):
        image_id, category_id = entry.get("image_id"), entry.get("category_id")
        if not isinstance(image_id, int) or image_id not in by_image:
            raise ValueError(f"annotation {entry.get('id')!r} is of image {image_id!r}, which the COCO file has not")
        if not isinstance(category_id, int) or category_id not in names:
            raise ValueError(f"annotation {entry.get('id')!r} is of category {category_id!r}, which is not there")
        by_image[image_id].append(entry)
    for image in images:
        yield _picture(image, by_image[image["id"]], names)


def encode_results(found: Mapping[int, Sequence[LabelledMask]], categories: Mapping[str, int]) -> list[dict[str, Any]]:
    """A result file, for COCO's evaluation: a list of ``image_id, category_id, segmentation, score``.

    Args:
        found: By the data set's image id. An object without a score gets 1; empty masks are left out.
        categories: The data set's category ids by label.

    Raises:
        ValueError: If a label is no category.
    """
    results = []
    for image_id, objects in found.items():
        for one in objects:
            if one.label not in categories:
                raise ValueError(f"{one.label!r} is no category of the data set, which has {sorted(categories)}")
            if one.mask.any():
                kept = {key: value for key, value in annotation(one).items() if key in ("segmentation", "bbox")}
                score = 1.0 if one.score is None else float(one.score)
                results.append({"image_id": image_id, "category_id": categories[one.label], **kept, "score": score})
    return results


def decode_results(content: Any, categories: Mapping[int, str]) -> Iterator[tuple[int, LabelledMask]]:
    """The image ids and objects of a result file, one after another.

    Args:
        content: What `json.load` gives.
        categories: Labels by the data set's category ids.

    Raises:
        ValueError: If it is no such file, or names an unknown category, or has a broken mask.
    """
    for entry in _entries({"results": content}, "results"):
        image_id, category_id = entry.get("image_id"), entry.get("category_id")
        if not isinstance(image_id, int) or not isinstance(category_id, int) or category_id not in categories:
            raise ValueError(
                f"a result is of a numbered image and a known category, got image {image_id!r}, "
                f"category {category_id!r}"
            )
        mask = decode_rle(entry.get("segmentation", {}))
        yield image_id, LabelledMask(mask, categories[category_id], checked_score(entry.get("score")))


def _picture(
    image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], names: Mapping[int, Any]
) -> LabelledPicture:
    """One picture's masks."""
    if not isinstance(image.get("file_name"), str):
        raise ValueError(f"image {image['id']} of the COCO file has no file_name")
    size = check_size(image.get("height"), image.get("width"), max(1, len(annotations)))
    objects = []
    for entry in annotations:
        try:
            mask = decode_segmentation(entry.get("segmentation"), size)
            label = names[entry["category_id"]]
            objects.append(LabelledMask(mask, label, checked_score(entry.get("score"))))
        except (TypeError, ValueError) as error:
            raise ValueError(f"annotation {entry.get('id')!r}: {error}") from None
    return LabelledPicture(image["file_name"], size, tuple(objects))


def _entries(content: Any, name: str) -> list[Mapping[str, Any]]:
    """A list of objects of the file."""
    entries = content.get(name) if isinstance(content, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ValueError(f"a COCO file has a list of objects {name!r}, this has none")
    return entries


def _number(entry: Mapping[str, Any], where: str) -> int:
    """An entry's id."""
    if isinstance(entry.get("id"), bool) or not isinstance(entry.get("id"), int):
        raise ValueError(f"an entry of {where} has the id {entry.get('id')!r}, which is no number")
    return int(entry["id"])
