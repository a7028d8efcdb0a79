"""The pictures that files, folders and globs on a command line stand for."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sam_uniref.nearest import nearest_path
from sam_uniref.video import picture_files


@dataclass(frozen=True)
class NamedPicture:
    """A picture and what its results are called.

    Attributes:
        path: The file.
        name: Without suffix; for a glob's picture with the folders below the glob's fixed part, such as ``cats/001``.
    """

    path: Path
    name: str


def find_pictures(given: Sequence[Path]) -> list[NamedPicture]:
    """All pictures, each once, in the order in which they were given; a folder's by name.

    Raises:
        FileNotFoundError: If there is no such file, or a folder or glob has no picture.
        ValueError: If results of two pictures would have one name.
    """
    found: dict[Path, NamedPicture] = {}
    owners: dict[str, Path] = {}
    for source in given:
        for picture in _pictures_of(source):
            if picture.path.resolve() in found:
                continue
            found[picture.path.resolve()] = picture
            other = owners.setdefault(picture.name, picture.path)
            if other is not picture.path:
                raise ValueError(
                    f"the results of {other} and {picture.path} would both be called {picture.name}; ask for them "
                    "one after the other, or with a 'glob', which keeps folders apart"
                )
    return list(found.values())


def _pictures_of(source: Path) -> list[NamedPicture]:
    """Those of one argument."""
    files = picture_files(source)
    if files is None:
        if not source.is_file():
            raise FileNotFoundError(f"there is no image at {source}{nearest_path(source)}")
        return [NamedPicture(source, source.stem)]
    root = source if source.is_dir() else _fixed_part(source)
    return [NamedPicture(path, path.relative_to(root).with_suffix("").as_posix()) for path in files]


def _fixed_part(pattern: Path) -> Path:
    """The folders of a glob before its first wildcard."""
    parts = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)
