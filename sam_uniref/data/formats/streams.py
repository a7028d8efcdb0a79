"""JSON files of gigabytes, read as a stream: what stands in memory is one object of an array at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ijson

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def stream_objects(path: Path, array: str, *keys: str) -> Iterator[dict[str, Any]]:
    """Objects of an array, one by one. Whole numbers are int, others float.

    Args:
        path: The file.
        array: The key of the array in the file's object; empty if the file is the array.
        keys: That each object must have.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no whole JSON file, has no such array or an empty one, or an object lacks a key, as
            another release's would.
    """
    what = array or "list"
    number = -1
    for number, item in enumerate(_parsed(path, f"{array}.item" if array else "item", ijson.items)):
        missing = [key for key in keys if not isinstance(item, dict) or key not in item]
        if missing or not isinstance(item, dict):
            raise ValueError(
                f"{path}: number {number} of its {what} lacks {missing}: it is another release's, or another data set's"
            )
        yield item
    if number < 0:
        raise ValueError(f"{path} has nothing in its {what}: it is another release's, or another data set's")


def has_objects(path: Path, array: str) -> bool:
    """Whether an array of the file's object has something in it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no whole JSON file as far as it was read.
    """
    return next(_parsed(path, f"{array}.item", ijson.items), None) is not None


def stream_entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Keys and values of the file's object, one by one; a key that stands twice comes twice.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no whole JSON file.
    """
    return _parsed(path, "", ijson.kvitems)


def _parsed(path: Path, prefix: str, parse: Callable[..., Iterator[Any]]) -> Iterator[Any]:
    """What a parser gives at a prefix."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    with path.open("rb") as file:
        if file.read(len(_BYTE_ORDER_MARK)) != _BYTE_ORDER_MARK:
            file.seek(0)
        try:
            yield from parse(file, prefix, use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{path} is no whole JSON file ({reason}); download it again") from error
