"""Files of a download, read with suspicion: paths that climb out, broken pictures, masks that do not fit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from sam_uniref.data.prepared.problems import Problems
from sam_uniref.images import MASK_SIZE_TOLERANCE, fit_to_image, image_size, load_image
from sam_uniref.palette import ids_of_colors

T = TypeVar("T")

VOID = 255
"""The value that stands for neither object nor background in palette masks."""

_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND\xaeB`\x82"
_TAIL = 64


def relative_path(*parts: str) -> str:
    """Path below a data set's root, with forward slashes.

    Raises:
        ValueError: If it is absolute or climbs out.
    """
    path = PurePosixPath(*(part.replace("\\", "/") for part in parts))
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"the path {str(path)!r} leaves the data set's folder")
    return path.as_posix()


def read_json(path: Path, *keys: str) -> Any:
    """A JSON file.

    Args:
        path: The file.
        keys: That its object must have; none for any content.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no JSON, or lacks a key, as another release's would.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is no whole JSON file ({error}); download it again") from error
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"{path} lacks {missing}: it is another release's, or another data set's")
    return content


def read_lines(path: Path) -> list[str]:
    """Names, one a line, of any system's line ends; empty lines are left out.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return [line for line in lines if line]


def in_units(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of so many items; the last may be shorter."""
    rest = iter(items)
    while unit := list(islice(rest, size)):
        yield unit


def sound_picture(
    root: Path, relative: str, problems: Problems, *, size: tuple[int, int] | None = None
) -> tuple[int, int] | None:
    """``(height, width)`` of a picture that is there and whole; otherwise None, and the reason in ``problems``.

    Args:
        root: Of the download.
        relative: From `relative_path`.
        problems: Takes the reason.
        size: ``(height, width)`` that it must have.
    """
    try:
        found = _stamped_size(root / relative)
    except FileNotFoundError:
        problems.broken("missing picture", relative)
        return None
    except ValueError:
        problems.broken("broken or cut-off picture", relative)
        return None
    if size is not None and found != tuple(size):
        problems.broken("picture of another size than annotated", f"{relative}: {found[1]}x{found[0]}")
        return None
    return found


def _stamped_size(path: Path) -> tuple[int, int]:
    """``(height, width)`` of a picture that is whole."""
    try:
        state = path.stat()
    except FileNotFoundError:
        raise
    except OSError as error:  # such as a name that is too long for the system
        raise ValueError(f"{path} can't be read ({error})") from error
    return _sound_size(str(path), state.st_size, state.st_mtime_ns)


# A picture with many objects is looked at once, unless it changes; so many are remembered by a process: more than COCO
# has, whose annotations are in no order of pictures.
@lru_cache(maxsize=200_000)
def _sound_size(path: str, length: int, changed: int) -> tuple[int, int]:
    """Size from the header, and whether the file goes on to its end; only if that is in doubt is it decoded."""
    size = image_size(path)
    with Path(path).open("rb") as file:
        file.seek(-min(_TAIL, length), os.SEEK_END)
        tail = file.read()
    if _JPEG_END not in tail and _PNG_END not in tail:
        load_image(path)
    return size


def sound_mask(
    load: Callable[[], NDArray[Any]], size: tuple[int, int], name: str, problems: Problems
) -> NDArray[Any] | None:
    """An id map at its picture's size; otherwise None, and the reason in ``problems``.

    Args:
        load: Gives ``(H, W)`` ids.
        size: ``(height, width)`` of the picture. A mask that is off by at most 2 pixels is resized by nearest.
        name: For messages.
        problems: Takes the reason.
    """
    try:
        ids = load()
    except FileNotFoundError:
        problems.broken("missing mask", name)
        return None
    except ValueError as error:
        problems.broken("broken mask, or one that is no id map", f"{name}: {error}")
        return None
    if ids.shape == tuple(size):
        return ids
    off = max(abs(ids.shape[0] - size[0]), abs(ids.shape[1] - size[1]))
    example = f"{name}: {ids.shape[1]}x{ids.shape[0]}, its picture {size[1]}x{size[0]}"
    if off > MASK_SIZE_TOLERANCE:
        problems.broken("mask of another size than its picture", example)
        return None
    problems.mended(f"mask off by at most {MASK_SIZE_TOLERANCE} pixels, resized by nearest", example)
    return fit_to_image(ids, size, name)


def load_palette_ids(path: Path, *, keep_void: bool = False) -> NDArray[np.uint8]:
    """The id map ``(H, W)`` of a video set's mask, 0 = background, void (255) = background.

    A palette or grey picture's values are the ids; a colour picture's colours are those of PASCAL-VOC's palette, in
    which these sets are shown. A picture of 0 and 255 alone has one object.

    Args:
        path: Of the picture.
        keep_void: Leave 255 as it is, also where there is nothing but 0 and 255.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is broken, or has colours that are no ids.
    """
    try:
        with PILImage.open(path) as picture:
            picture.load()
            values = _ids_of(picture)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no mask at {path}") from None
    except (OSError, SyntaxError, PILImage.DecompressionBombError) as error:
        raise ValueError(f"it is not a whole picture ({error})") from error
    if keep_void or values.max(initial=0) < VOID:  # the largest there is: the usual case is settled without sorting
        return values
    if set(np.unique(values).tolist()) <= {0, VOID}:
        return (values > 0).astype(np.uint8)
    return np.where(values == VOID, 0, values).astype(np.uint8)


def mask_size(path: Path) -> tuple[int, int]:
    """``(height, width)`` of what `load_palette_ids` will give, from the file's header alone.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no picture, or one of a mode that holds no ids.
    """
    try:
        with PILImage.open(path) as picture:
            _check_mode(picture)
            return picture.height, picture.width
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no mask at {path}") from None
    except (OSError, SyntaxError, PILImage.DecompressionBombError) as error:
        raise ValueError(f"it is not a whole picture ({error})") from error


def _check_mode(picture: PILImage.Image) -> None:
    """Refuse pictures that hold neither ids nor colours."""
    if picture.mode not in ("P", "L", "1", "RGB", "RGBA"):
        raise ValueError(f"a mask has ids or the palette's colours, got a picture of mode {picture.mode}")


def _ids_of(picture: PILImage.Image) -> NDArray[np.uint8]:
    """Pixel values as ids."""
    _check_mode(picture)
    if picture.mode in ("P", "L"):
        return np.array(picture)
    if picture.mode == "1":
        return np.array(picture).astype(np.uint8)
    return ids_of_colors(np.array(picture.convert("RGB")))


def missing_layout(root: Path, expected: Sequence[str]) -> FileNotFoundError:
    """What to say where nothing of a data set is found."""
    return FileNotFoundError(f"{root} does not hold the data set; expected in it: {', or '.join(expected)}")
