"""Label Studio: tasks with masks as brushes to import as predictions, and its JSON export with brushes and polygons."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from sam_uniref.exchange.brush import decode_brush, encode_brush
from sam_uniref.exchange.labelled import DEFAULT_LABEL, LabelledMask, LabelledPicture, check_size, checked_score
from sam_uniref.exchange.polygons import fill_rings
from sam_uniref.images import IMAGE_SUFFIXES, Mask
from sam_uniref.transforms import Size

# What a labelling interface calls its tags; `label_config` does.
_BRUSH, _IMAGE = "brush", "image"
_PERCENT = 100


def label_config(labels: Sequence[str]) -> str:
    """The labelling interface (XML) of a project that shows what `encode_label_studio` writes."""
    entries = "".join(f"    <Label value={quoteattr(label)}/>\n" for label in labels)
    return (
        f'<View>\n  <Image name="{_IMAGE}" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="{_BRUSH}" toName="{_IMAGE}">\n{entries}  </BrushLabels>\n</View>\n'
    )


def encode_label_studio(
    pictures: Sequence[LabelledPicture], *, prefix: str = "", model_version: str = "sam_uniref"
) -> list[dict[str, Any]]:
    """Tasks with predictions, to import into a project; see `label_config`.

    Args:
        pictures: Empty masks are left out.
        prefix: Put before every file name, to make it a place that Label Studio serves, such as
            ``"/data/local-files/?d=photos/"`` or ``"https://example.org/photos/"``.
        model_version: What the predictions are listed under.
    """
    tasks = []
    for picture in pictures:
        found = [one for one in picture.objects if one.mask.any()]
        prediction: dict[str, Any] = {
            "model_version": model_version,
            "result": [_result(one, picture, place) for place, one in enumerate(found)],
        }
        scores = [float(one.score) for one in found if one.score is not None]
        if scores:
            prediction["score"] = min(scores)
        tasks.append({"data": {"image": prefix + picture.file_name}, "predictions": [prediction]})
    return tasks


def decode_label_studio(content: Any) -> Iterator[LabelledPicture]:
    """The pictures of an export, one after another; tasks without a brush or a polygon are passed over.

    Of a task the first annotation counts that was not cancelled, and without one the first prediction. Rectangles and
    whatever else there is in it are passed over.

    Args:
        content: What `json.load` gives: a list of tasks ("JSON" export, not "JSON-MIN").

    Raises:
        ValueError: If it is no such file, or a brush or polygon is broken; it says which.
    """
    if not isinstance(content, list) or not all(isinstance(task, Mapping) for task in content):
        raise ValueError("a Label Studio export is a list of tasks (its JSON format, not JSON-MIN), got something else")
    for place, task in enumerate(content):
        results = [result for result in _results(task) if _has_mask(result)]
        if results:
            try:
                yield _picture(task, results)
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"Label Studio task {task.get('id', place)!r}: {error}") from None


def _result(found: LabelledMask, picture: LabelledPicture, place: int) -> dict[str, Any]:
    """One region."""
    height, width = picture.size
    result = {
        # Of the same picture and place always the same, so that files can be compared.
        "id": hashlib.sha256(f"{picture.file_name}/{place}".encode()).hexdigest()[:10],
        "type": "brushlabels",
        "from_name": _BRUSH,
        "to_name": _IMAGE,
        "original_width": int(width),
        "original_height": int(height),
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(found.mask), "brushlabels": [found.label]},
    }
    return result if found.score is None else {**result, "score": float(found.score)}


def _results(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The regions of the annotation or prediction that counts."""
    for kind in ("annotations", "completions", "predictions"):
        given = task.get(kind)
        for annotation in given if isinstance(given, list) else []:
            if isinstance(annotation, Mapping) and not annotation.get("was_cancelled"):
                results = annotation.get("result")
                return [r for r in results if isinstance(r, Mapping)] if isinstance(results, list) else []
    return []


def _has_mask(result: Mapping[str, Any]) -> bool:
    """Whether a region is a brush or a polygon."""
    value = result.get("value")
    return isinstance(value, Mapping) and ("rle" in value or "points" in value)


def _picture(task: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> LabelledPicture:
    """One task's masks."""
    sizes = {(result.get("original_height"), result.get("original_width")) for result in results}
    if len(sizes) > 1:
        raise ValueError(f"its regions are of pictures of different sizes: {sorted(map(str, sizes))}")
    size = check_size(*sizes.pop(), len(results))
    objects = tuple(
        LabelledMask(_mask(r["value"], size), _label(r["value"]), checked_score(r.get("score"))) for r in results
    )
    return LabelledPicture(_image(task), size, objects)


def _mask(value: Mapping[str, Any], size: Size) -> Mask:
    """Of a brush, or of a polygon whose corners are in percent of the sides."""
    if "rle" in value:
        return decode_brush(value["rle"], size)
    try:
        corners = np.asarray(value["points"], np.float64)
    except (TypeError, ValueError):
        raise ValueError("a polygon's points are pairs of numbers, got something else") from None
    if corners.ndim != 2 or corners.shape[1] != 2:
        raise ValueError("a polygon's points are pairs of numbers, got something else")
    return fill_rings([corners * (size[1] / _PERCENT, size[0] / _PERCENT)], size)


def _label(value: Mapping[str, Any]) -> str:
    """The first label of a region."""
    for name, given in value.items():
        if name.endswith("labels") and isinstance(given, list) and given and isinstance(given[0], str):
            return given[0]
    return DEFAULT_LABEL


def _image(task: Mapping[str, Any]) -> str:
    """Where the task's picture is, as it stands there."""
    data = task.get("data")
    given = [text for text in data.values() if isinstance(text, str)] if isinstance(data, Mapping) else []
    named = data.get("image") if isinstance(data, Mapping) else None
    pictures = [text for text in given if text.lower().endswith(IMAGE_SUFFIXES)]
    if isinstance(named, str):
        return named
    if not pictures:
        raise ValueError("its data names no picture")
    return pictures[0]
