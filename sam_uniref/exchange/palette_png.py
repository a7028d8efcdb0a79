"""Objects of one picture as a palette PNG of ids, as DAVIS and PASCAL VOC have them, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from sam_uniref.exchange.labelled import LabelledMask, check_size
from sam_uniref.images import load_id_map
from sam_uniref.track_files import palette_png
from sam_uniref.transforms import Size


def encode_palette_png(objects: Sequence[LabelledMask], size: Size) -> bytes:
    """A palette PNG: 0 is background, the first object 1, and so on. Where objects overlap the later one is seen.

    Args:
        objects: 254 at most, of one picture; their labels are not in it.
        size: ``(height, width)`` of the picture.

    Raises:
        ValueError: If there are more, or one is of another size.
    """
    ids: NDArray[np.int64] = np.zeros(check_size(*size), np.int64)
    for number, found in enumerate(objects, start=1):
        if found.mask.shape != ids.shape:
            raise ValueError(f"the mask of {found.label!r} is {found.mask.shape}, the picture {ids.shape}")
        ids[found.mask] = number
    if len(objects) > 254:
        raise ValueError(f"a palette PNG holds 254 objects, got {len(objects)}")
    return palette_png(ids)


def decode_palette_png(png: bytes | str | Path, labels: Mapping[int, str] | None = None) -> list[LabelledMask]:
    """The objects of a palette PNG in the order of their ids; see `load_id_map` for what else is read.

    Args:
        png: The file or its bytes.
        labels: What ids are called; by default by their number.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no whole picture, or its colours are no ids.
    """
    if isinstance(png, bytes):
        try:
            with PILImage.open(BytesIO(png)) as picture:
                check_size(picture.height, picture.width)
                picture.load()
                ids = load_id_map(picture)
        except (OSError, SyntaxError, PILImage.DecompressionBombError) as error:
            raise ValueError(f"these bytes are no whole picture ({error})") from error
    else:
        ids = load_id_map(png)
    numbers = [int(number) for number in np.unique(ids) if number != 0]
    height, width = ids.shape
    check_size(height, width, max(1, len(numbers)))
    return [LabelledMask(ids == number, (labels or {}).get(number, str(number))) for number in numbers]
