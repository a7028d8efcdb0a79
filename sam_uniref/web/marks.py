"""What a visitor clicked and painted on a picture, between the page's JSON and arrays.

Coordinates on the page are shares of the picture's width and height, so that they hold at any size it is shown at.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image as PILImage

from sam_uniref.images import RGB, Mask
from sam_uniref.web.limits import RefusedError
from sam_uniref.web.uploads import PREVIEW_SIDE, small

_PNG = "data:image/png;base64,"
MOST_POINTS = 50
# Of a painted mask as PNG in base64, at the preview's size.
_LARGEST_MASK = 8 * 2**20


@dataclass(frozen=True)
class Marks:
    """What was marked on a picture of H x W pixels.

    Attributes:
        points: ``(x, y)`` in the picture's pixels.
        labels: A 1 or 0 for each point: on the object, or beside it.
        mask: ``(H, W)`` bool that was painted, not empty; or None.
    """

    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    mask: Mask | None = None

    def __bool__(self) -> bool:
        return bool(self.points) or self.mask is not None


def shown(
    picture: RGB, number: int, mask: Mask | None = None, points: list[list[float]] | None = None
) -> dict[str, Any]:
    """What the page needs to show a picture that can be marked.

    Args:
        picture: HWC uint8 RGB, at its own size.
        number: Tells this picture from the ones before it; `read_marks` wants it back.
        mask: ``(H, W)`` bool to begin with.
        points: ``[x, y, label]`` to begin with, x and y as shares in 0-1.
    """
    preview = small(picture)
    file = io.BytesIO()
    preview.save(file, format="JPEG", quality=90)
    value: dict[str, Any] = {
        "picture": "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(),
        "number": number,
        "points": points or [],
    }
    if mask is not None:
        painted = np.zeros((*mask.shape, 4), np.uint8)
        painted[mask] = 255
        file = io.BytesIO()
        PILImage.fromarray(painted).resize(preview.size, PILImage.Resampling.NEAREST).save(file, format="PNG")
        value["mask"] = _PNG + base64.b64encode(file.getvalue()).decode()
    return value


def read_marks(value: object, size: tuple[int, int], number: int) -> Marks:
    """What the page sent about a picture.

    Args:
        value: From the browser, so it may be anything.
        size: ``(height, width)`` of the picture.
        number: The picture's; marks on an earlier one don't count.

    Raises:
        RefusedError: If it is not what the page sends.
    """
    if not isinstance(value, dict) or value.get("number") != number:
        return Marks()
    points, labels = _points(value.get("points"), size)
    given = value.get("mask")
    return Marks(points, labels, None if given in (None, "") else _mask(given, size))


def _points(given: object, size: tuple[int, int]) -> tuple[list[tuple[float, float]], list[int]]:
    """Points in pixels, with their labels."""
    if given is None:
        return [], []
    if not isinstance(given, list) or len(given) > MOST_POINTS:
        raise RefusedError(f"At most {MOST_POINTS} points are taken.")
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    for entry in given:
        if not isinstance(entry, list) or len(entry) != 3 or entry[2] not in (0, 1) or not _are_shares(entry[:2]):
            raise RefusedError("The points can't be read; please mark the picture again.")
        points.append((float(entry[0]) * size[1], float(entry[1]) * size[0]))
        labels.append(int(entry[2]))
    return points, labels


def _are_shares(numbers: list[Any]) -> bool:
    """Whether all are numbers from 0 to 1."""
    return all(isinstance(n, int | float) and math.isfinite(n) and 0 <= n <= 1 for n in numbers)


def _mask(given: object, size: tuple[int, int]) -> Mask | None:
    """A painted mask at the picture's size: wherever the paint covers; None if that is nowhere."""
    wrong = RefusedError("The painted mask can't be read; please paint it again.")
    if not isinstance(given, str) or not given.startswith(_PNG) or len(given) > _LARGEST_MASK:
        raise wrong
    try:
        data = base64.b64decode(given[len(_PNG) :], validate=True)
        with PILImage.open(io.BytesIO(data), formats=("PNG",)) as image:
            if max(image.size) > PREVIEW_SIDE or image.mode not in ("RGBA", "LA"):
                raise wrong
            alpha = image.getchannel("A")
    except binascii.Error as error:
        raise wrong from error
    except RefusedError:
        raise
    except Exception as error:  # hostile bytes
        raise wrong from error
    full = np.asarray(alpha.resize((size[1], size[0]), PILImage.Resampling.BILINEAR)) > 127
    return full if full.any() else None
