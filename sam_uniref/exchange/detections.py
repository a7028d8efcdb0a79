"""`supervision.Detections`, both ways. supervision is needed for the way there only (``pip install supervision``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sam_uniref.exchange.labelled import DEFAULT_LABEL, LabelledMask, check_mask, checked_score

if TYPE_CHECKING:
    from sam_uniref.transforms import Size

_NAMES = "class_name"


def encode_detections(objects: Sequence[LabelledMask], size: Size, classes: Sequence[str] | None = None) -> Any:
    """Objects of one picture as `supervision.Detections`: ``xyxy``, ``mask``, ``confidence``, ``class_id``.

    Their labels are ``data["class_name"]`` too. An object without a score has the confidence NaN, an empty mask the box
    (0, 0, 0, 0).

    Args:
        objects: Each of the picture's size.
        size: ``(height, width)`` of the picture.
        classes: Labels in the order of their ids; by default those of the objects, sorted.

    Raises:
        ImportError: If supervision is not installed.
        ValueError: If a label is no class, or a mask is of another size.
    """
    try:
        from supervision import Detections
    except ImportError as error:
        raise ImportError("supervision.Detections needs supervision: pip install supervision") from error
    names = sorted({found.label for found in objects}) if classes is None else list(classes)
    for found in objects:
        if found.label not in names:
            raise ValueError(f"{found.label!r} is no class, these are: {names}")
        if found.mask.shape != tuple(size):
            raise ValueError(f"the mask of {found.label!r} is {found.mask.shape}, the picture {tuple(size)}")
    return Detections(
        xyxy=np.array([found.box or (0, 0, 0, 0) for found in objects], np.float32).reshape(-1, 4),
        mask=np.array([found.mask for found in objects], bool).reshape(-1, *size),
        confidence=np.array([np.nan if found.score is None else found.score for found in objects], np.float32),
        class_id=np.array([names.index(found.label) for found in objects], int),
        data={_NAMES: np.array([found.label for found in objects], dtype=str)},
    )


def decode_detections(detections: Any, classes: Sequence[str] | None = None) -> list[LabelledMask]:
    """The objects of `supervision.Detections`.

    Args:
        detections: With masks.
        classes: Labels by ``class_id``; by default ``data["class_name"]``, else the number itself.

    Raises:
        ValueError: If there are no masks, or a class id has no label.
    """
    if detections.mask is None:
        raise ValueError("these detections have boxes only; masks are needed")
    objects = []
    for place in range(len(detections)):
        mask = np.asarray(detections.mask[place]).astype(bool)
        check_mask(mask)
        score = None if detections.confidence is None else float(detections.confidence[place])
        known = None if score is None or np.isnan(score) else checked_score(score)
        objects.append(LabelledMask(mask, _label(detections, place, classes), known))
    return objects


def _label(detections: Any, place: int, classes: Sequence[str] | None) -> str:
    """What one is called."""
    number = None if detections.class_id is None else int(detections.class_id[place])
    if classes is not None and number is not None:
        if not 0 <= number < len(classes):
            raise ValueError(f"class_id {number} has no label, these are: {list(classes)}")
        return classes[number]
    if _NAMES in detections.data:
        return str(detections.data[_NAMES][place])
    return DEFAULT_LABEL if number is None else str(number)
