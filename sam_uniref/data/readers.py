"""Data sets by name. A reader gives annotated objects; episodes of a task are drawn from them."""

from __future__ import annotations

from collections.abc import Callable

from sam_uniref.data.episodes import AnnotatedObject
from sam_uniref.data.folder import read_folder

READERS: dict[str, Callable[..., list[AnnotatedObject]]] = {"folder": read_folder}


def get_reader(name: str) -> Callable[..., list[AnnotatedObject]]:
    """The reader of a data set.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in READERS:
        raise ValueError(f"there is no reader {name!r}; known are {sorted(READERS)}")
    return READERS[name]
