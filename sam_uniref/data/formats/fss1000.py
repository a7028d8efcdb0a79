"""FSS-1000: ten pictures of one object each, of a thousand classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam_uniref.data.formats.files import (
    in_units,
    missing_layout,
    read_lines,
    relative_path,
    sound_mask,
    sound_picture,
)
from sam_uniref.data.prepared.masks import encode_mask
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import ImageRow, TableKind
from sam_uniref.images import load_image

_OWN_LISTS = {"train": "trn.txt", "val": "val.txt", "test": "test.txt"}
_PACKAGED_LISTS = Path(__file__).parent / "fss1000"
_FOLDERS = ("", "fewshot_data/", "FSS-1000/", "images/")
_PICTURES_A_CLASS = 10
_CLASSES_A_UNIT = 40
# Grey values from here on are the object.
_FOREGROUND = 128


class Fss1000:
    """``<class>/{1..10}.jpg`` and ``.png``; in the root, or in ``fewshot_data``, ``FSS-1000`` or ``images`` of it.

    Which classes a split has is told by ``trn.txt``, ``val.txt`` and ``test.txt`` beside the classes; without them by
    the lists in this package, which published numbers follow.
    """

    name: ClassVar[str] = "fss1000"
    title: ClassVar[str] = "FSS-1000"
    table: ClassVar[TableKind] = "images"
    homepage: ClassVar[str] = "https://github.com/HKUSTCV/FSS-1000"
    licence: ClassVar[str] = "not stated"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {
        split: {"images": 10 * classes, "targets": 10 * classes}
        for split, classes in (("train", 520), ("val", 240), ("test", 240))
    }

    def splits(self, root: Path) -> tuple[str, ...]:
        """See `DataFormat`."""
        return tuple(_lists(root, _folder(root)))

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[list[str]]:
        """See `DataFormat`."""
        names: dict[str, None] = {}
        for name in sorted(read_lines(_lists(root, _folder(root))[split])):
            if name in names:
                problems.broken("class that stands twice in its list", name)
            elif not _is_plain(name):
                problems.broken("path leaves the folder", name)
            else:
                names[name] = None
        return in_units(names, _CLASSES_A_UNIT)

    def read(self, root: Path, split: str, unit: list[str], problems: Problems) -> Iterator[ImageRow]:
        """See `DataFormat`."""
        folder = _folder(root)
        for name in unit:
            if not (root / folder / name).is_dir():
                problems.broken("missing class", name)
                continue
            for number in range(1, _PICTURES_A_CLASS + 1):
                if row := _row(root, folder, name, number, problems):
                    yield row


def _folder(root: Path) -> str:
    """The folder of the classes below the root, empty for the root.

    Raises:
        FileNotFoundError: If no folder has any class of the lists.
    """
    for folder in _FOLDERS:
        if _lists(root, folder):
            return folder
    raise missing_layout(root, [f"{folder}<class>/{{1..10}}.jpg and .png" for folder in _FOLDERS])


def _lists(root: Path, folder: str) -> dict[str, Path]:
    """The lists of classes by split: those beside the classes if there is one, else the package's.

    Those of which no class is in the folder are left out.
    """
    own = {split: root / folder / name for split, name in _OWN_LISTS.items()}
    lists = {split: path for split, path in own.items() if path.is_file()}
    lists = lists or {split: _PACKAGED_LISTS / f"{split}.txt" for split in _OWN_LISTS}
    return {
        split: path
        for split, path in lists.items()
        if any(_is_plain(name) and (root / folder / name).is_dir() for name in read_lines(path))
    }


def _is_plain(name: str) -> bool:
    """Whether a class is the name of a folder and no path to another place."""
    try:
        return relative_path(name) == name
    except ValueError:
        return False


def _row(root: Path, folder: str, name: str, number: int, problems: Problems) -> ImageRow | None:
    """One picture's; None, and the reason in ``problems``, if it or its mask is broken."""
    image = relative_path(folder, name, f"{number}.jpg")
    size = sound_picture(root, image, problems)
    if size is None:
        return None
    mask_path = relative_path(folder, name, f"{number}.png")
    grey = sound_mask(partial(_load_grey, root / mask_path), size, mask_path, problems)
    if grey is None:
        return None
    mask = encode_mask(grey >= _FOREGROUND)
    if not mask.area:
        problems.broken("empty mask", mask_path)
        return None
    return ImageRow(image, *size, f"{name}/{number}", name, mask.counts, mask.box)


def _load_grey(path: Path) -> NDArray[np.uint8]:
    """A picture of any mode as grey values ``(H, W)`` uint8: of a palette or colour picture, those of its colours."""
    return np.asarray(Image.fromarray(load_image(path)).convert("L"))
