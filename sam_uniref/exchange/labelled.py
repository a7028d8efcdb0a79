"""What all formats hold: named masks of one picture. Sizes are checked before anything of that size is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam_uniref.images import Mask
from sam_uniref.segmentation import bounding_box
from sam_uniref.transforms import Size

# As many as Pillow takes before it calls a picture a decompression bomb.
LARGEST_PICTURE = 178_956_970
# Of all masks of one picture together: as many bytes are held at once.
LARGEST_SET = 8 * LARGEST_PICTURE
DEFAULT_LABEL = "object"


@dataclass(frozen=True)
class LabelledMask:
    """One object.

    Attributes:
        mask: ``(H, W)`` bool.
        label: What it is called.
        score: In 0-1; None where somebody drew it.

    Raises:
        ValueError: If the mask is no such array, or the label is empty or has a line break.
        TypeError: If the label is no string.
    """

    mask: Mask
    label: str = DEFAULT_LABEL
    score: float | None = None

    def __post_init__(self) -> None:
        check_mask(self.mask)
        if not isinstance(self.label, str):
            raise TypeError(f"a label must be a string, got {type(self.label).__name__}")
        if not self.label.strip() or len(self.label.splitlines()) > 1:
            raise ValueError(f"a label is one line with something in it, got {self.label!r}")

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """``(x0, y0, x1, y1)`` in pixels, x1 and y1 exclusive; None for an empty mask."""
        return bounding_box(self.mask)


@dataclass(frozen=True)
class LabelledPicture:
    """A picture's name and what was found in it.

    Attributes:
        file_name: Its name, with forward slashes; as it stands in the file where it was read, and not to be trusted.
        size: ``(height, width)`` in pixels.
        objects: Each of this size; none where nothing was found.

    Raises:
        ValueError: If the size is none, or an object is of another.
    """

    file_name: str
    size: Size
    objects: tuple[LabelledMask, ...] = ()

    def __post_init__(self) -> None:
        check_size(*self.size)
        for found in self.objects:
            if found.mask.shape != tuple(self.size):
                raise ValueError(
                    f"{self.file_name} is {self.size[1]}x{self.size[0]}, its mask of {found.label!r} "
                    f"{found.mask.shape[1]}x{found.mask.shape[0]} (width x height)"
                )

    @property
    def labels(self) -> list[str]:
        """All labels once, sorted."""
        return sorted({found.label for found in self.objects})


def all_labels(pictures: Sequence[LabelledPicture]) -> list[str]:
    """The labels of all pictures once, sorted."""
    return sorted({label for picture in pictures for label in picture.labels})


def check_mask(mask: Any) -> None:
    """Refuse what is not ``(H, W)`` bool with a pixel at least.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.ndim != 2 or 0 in mask.shape:
        got = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ValueError(f"a mask must be a numpy array (H, W) of bool, got {got}")


def check_size(height: Any, width: Any, masks: int = 1) -> Size:
    """A size that masks can have, as it stands in a file; checked before one is made.

    Args:
        height: In pixels.
        width: In pixels.
        masks: How many of this size are held at once.

    Raises:
        ValueError: If a side is no positive whole number, or there are more pixels than are ever held.
    """
    sides = []
    for side in (height, width):
        if isinstance(side, bool) or not isinstance(side, int | np.integer) or side < 1:
            raise ValueError(f"a picture's height and width are whole numbers from 1 on, got {side!r}")
        sides.append(int(side))
    if sides[0] * sides[1] > LARGEST_PICTURE:
        raise ValueError(f"a picture may have {LARGEST_PICTURE:,} pixels, got {sides[1]}x{sides[0]} (width x height)")
    if sides[0] * sides[1] * masks > LARGEST_SET:
        raise ValueError(
            f"{masks} masks of {sides[1]}x{sides[0]} (width x height) are more than the {LARGEST_SET:,} pixels that "
            "one picture's may have together"
        )
    return sides[0], sides[1]


def checked_score(score: Any) -> float | None:
    """A score as it stands in a file; None where there is none.

    Raises:
        ValueError: If it is no finite number.
    """
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float) or not np.isfinite(score):
        raise ValueError(f"a score is a finite number, got {score!r}")
    return float(score)
