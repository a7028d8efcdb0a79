"""Annotated pictures of a COCO file or a Label Studio export as examples to segment by."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from sam_uniref.exchange.coco import decode_coco
from sam_uniref.exchange.label_studio import decode_label_studio
from sam_uniref.exchange.labelled import LabelledPicture
from sam_uniref.reference import MaskReference

# What Label Studio puts before an uploaded file's own name.
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")


def read_examples(path: str | Path, images: str | Path | None = None, label: str | None = None) -> list[MaskReference]:
    """Every annotated object as an example.

    Args:
        path: A COCO annotation file, or Label Studio's JSON export (brushes and polygons).
        images: Folder of the pictures; by default the file's own. A picture is looked for there by the name in the
            file, then by its last part; never outside the folder.
        label: Only objects that are called so; by default all.

    Raises:
        FileNotFoundError: If the file or a picture is not there.
        ValueError: If the file is broken, or has no such object.
    """
    folder = Path(path).parent if images is None else Path(images)
    examples, labels = [], set()
    for picture in read_pictures(path):
        labels |= set(picture.labels)
        for found in picture.objects:
            if found.mask.any() and label in (None, found.label):
                examples.append(MaskReference(find_picture(picture.file_name, folder), found.mask))
    if not examples:
        wanted = "an object" if label is None else f"an object called {label!r}"
        raise ValueError(f"{path} has no mask of {wanted}; it has {', '.join(sorted(labels)) or 'none at all'}")
    return examples


def read_pictures(path: str | Path) -> Iterator[LabelledPicture]:
    """The pictures of a COCO annotation file or a Label Studio export, whichever it is.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is neither, or broken.
    """
    try:
        content: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no annotation file at {path}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file ({type(error).__name__})") from None
    try:
        yield from decode_label_studio(content) if isinstance(content, list) else decode_coco(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def find_picture(name: str, folder: Path) -> Path:
    """The file of a picture by its name in an annotation file, which is not trusted: it never leads out of the folder.

    Args:
        name: A file's name, a path, or an address as Label Studio has them.
        folder: Where pictures are.

    Raises:
        FileNotFoundError: If it is not there.
    """
    address = urlparse(name)
    plain = unquote(address.query.rpartition("d=")[2] or address.path).replace("\\", "/")
    last = plain.rpartition("/")[2]
    root = folder.resolve()
    for tried in (plain.lstrip("/"), last, _UPLOAD.sub("", last)):
        found = (folder / tried).resolve()
        if tried and found.is_file() and found.is_relative_to(root):
            return folder / tried
    raise FileNotFoundError(f"there is no picture {last!r} in {folder}; say where the pictures are")
