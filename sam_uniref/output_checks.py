"""Whether results can be written where they are asked for; checked before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def check_output_folder(out: Path, *, read: Sequence[Path] = ()) -> None:
    """Refuse a folder that is a file, that can't be written in, or that holds something that is read.

    Raises:
        ValueError: If it is a file, or one of the files ``read`` is in it.
        PermissionError: If nothing may be written there.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a folder, and {out} is a file")
    beside = [file for file in read if file.resolve().parent == out.resolve()]
    if beside:
        raise ValueError(f"--out {out} is where {beside[0]} is read from; give another folder")
    _check_permission(out)


def check_output_file(file: Path, *, read: Sequence[Path] = ()) -> None:
    """Refuse a file that is a folder, that can't be written, or that is read.

    Raises:
        ValueError: If it is a folder, or one of the files ``read``.
        PermissionError: If nothing may be written there.
    """
    if file.is_dir():
        raise ValueError(f"{file} is a folder; name a file in it")
    if file.resolve() in [other.resolve() for other in read]:
        raise ValueError(f"{file} is read from; write to another file")
    _check_permission(file.parent)


def _check_permission(folder: Path) -> None:
    """Refuse a folder that can't be made or written in."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"{folder} cannot be a folder: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"there is no permission to write in {there}; give another place for the results")
