"""The files that ``sam-uniref segment`` writes; each is whole or not there.

A picture called NAME gives, by format:

| format | file | content |
|---|---|---|
| png | NAME.mask.png | 255 on the object, 0 elsewhere |
| palette | NAME.ids.png | palette PNG, 1 on the object |
| rle | masks.rle.json | all pictures' masks as COCO run-length encodings |
| coco | masks.coco.json | all pictures in one COCO file |
| label-studio | masks.label-studio.json | all pictures as Label Studio predictions, to import |
| yolo | labels/NAME.txt, classes.txt | a line of polygon a piece, in shares of the picture |

and with ``overlay`` NAME.overlay.png. Files of all pictures are written at the end, whatever ended it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image as PILImage

from sam_uniref.commands.pictures import NamedPicture
from sam_uniref.images import RGB
from sam_uniref.nearest import did_you_mean
from sam_uniref.segmentation import Segmentation
from sam_uniref.state import whole_file, write_json
from sam_uniref.track_files import save_palette


class _Writer(ABC):
    """One format.

    Args:
        out: Folder of the results.
        label: What the object is called.
    """

    def __init__(self, out: Path, label: str) -> None:
        self.out, self.label = out, label

    @abstractmethod
    def write(self, picture: NamedPicture, found: Segmentation) -> Path:
        """Add a picture's mask; the file that has it, or will have it."""

    def finish(self) -> None:
        """Write what is of all pictures."""


class _Png(_Writer):
    def write(self, picture: NamedPicture, found: Segmentation) -> Path:
        path = self.out / f"{picture.name}.mask.png"
        _save_png(PILImage.fromarray(found.mask.astype("uint8") * 255), path)
        return path


class _Palette(_Writer):
    def write(self, picture: NamedPicture, found: Segmentation) -> Path:
        path = self.out / f"{picture.name}.ids.png"
        save_palette(found.mask.astype("uint8"), path)
        return path


class _Rle(_Writer):
    def __init__(self, out: Path, label: str) -> None:
        super().__init__(out, label)
        self._entries: list[dict[str, Any]] = []

    def write(self, picture: NamedPicture, found: Segmentation) -> Path:
        entry = {"image": str(picture.path), "label": self.label, "score": found.score, "box": found.box}
        self._entries.append({**entry, "segmentation": found.to_rle()})
        return self.out / "masks.rle.json"

    def finish(self) -> None:
        if self._entries:
            write_json(self.out / "masks.rle.json", self._entries)


_WRITERS: dict[str, type[_Writer]] = {"png": _Png, "palette": _Palette, "rle": _Rle}
# What the JSON of a picture calls a format's file.
_KEYS = {"png": "mask"}


def checked_formats(given: Sequence[str]) -> list[str]:
    """The formats, each once.

    Raises:
        ValueError: If one is not known.
    """
    for name in given:
        if name not in _WRITERS:
            raise ValueError(
                f"--format must be one of {', '.join(_WRITERS)}, got {name!r}{did_you_mean(name, _WRITERS)}"
            )
    return list(dict.fromkeys(given))


class MaskFiles:
    """Write pictures' masks in some formats.

    Args:
        out: Folder of the results.
        formats: Of `checked_formats`.
        label: What the object is called in them.
        overlay: Also the picture with the mask painted on.
    """

    def __init__(self, out: Path, formats: Sequence[str], label: str, *, overlay: bool) -> None:
        self._out, self._overlay = out, overlay
        self._writers = {name: _WRITERS[name](out, label) for name in formats}

    def write(self, picture: NamedPicture, image: RGB, found: Segmentation) -> dict[str, Path]:
        """Add a picture.

        Returns:
            The files, by the names that JSON calls them.

        Raises:
            OSError: If one cannot be written.
        """
        written = {_KEYS.get(name, name): writer.write(picture, found) for name, writer in self._writers.items()}
        if self._overlay:
            written["overlay"] = self._out / f"{picture.name}.overlay.png"
            _save_png(PILImage.fromarray(found.overlay(image)), written["overlay"])
        return written

    def __enter__(self) -> MaskFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with ExitStack() as stack:
            for writer in self._writers.values():
                stack.callback(writer.finish)


def _save_png(picture: PILImage.Image, path: Path) -> None:
    """Write a PNG; it is whole or not there."""
    with whole_file(path) as temporary:
        picture.save(temporary, format="PNG")
