"""The files that ``sam-uniref segment`` writes; each is whole or not there.

A picture called NAME gives, by format:

| format | file | content |
|---|---|---|
| png | NAME.mask.png | 255 on the object, 0 elsewhere |
| palette | NAME.ids.png | palette PNG, 1 on the object |
| yolo | labels/NAME.txt, classes.txt | a line of polygon, in shares of the picture; empty where nothing was found |
| coco | annotations.json | all pictures in one COCO file, masks run-length encoded |
| label-studio | tasks.json, label_config.xml | all pictures as Label Studio predictions, and the project's interface |
| rle | rle.json | all pictures' masks as COCO run-length encodings, with score and box |

and with ``overlay`` NAME.overlay.png. Files of all pictures are written at the end, whatever ended it; until then
masks are kept run-length encoded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, overload

from PIL import Image as PILImage

from sam_uniref.commands.pictures import NamedPicture
from sam_uniref.exchange import (
    LabelledMask,
    LabelledPicture,
    decode_rle,
    encode_coco,
    encode_label_studio,
    encode_palette_png,
    encode_rle,
    encode_yolo,
    label_config,
)
from sam_uniref.exchange.labelled import DEFAULT_LABEL
from sam_uniref.images import RGB
from sam_uniref.nearest import did_you_mean
from sam_uniref.segmentation import Segmentation
from sam_uniref.state import whole_file, write_json

# What the names of results beside each other end in; a file that is read and called so may be about to be replaced.
RESULT_ENDINGS = (".mask.png", ".ids.png", ".overlay.png")


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

    @abstractmethod
    def finish(self) -> None:
        """Write what is of all pictures, if there were any."""


class _Png(_Writer):
    def write(self, picture: NamedPicture, found: Segmentation) -> Path:
        path = self.out / f"{picture.name}.mask.png"
        _save_png(PILImage.fromarray(found.mask.astype("uint8") * 255), path)
        return path

    def finish(self) -> None:
        """Nothing is of all pictures."""


class _Palette(_Writer):
    def write(self, picture: NamedPicture, found: Segmentation) -> Path:
        path = self.out / f"{picture.name}.ids.png"
        height, width = found.mask.shape
        _save_bytes(encode_palette_png([LabelledMask(found.mask, self.label)], (height, width)), path)
        return path

    def finish(self) -> None:
        """Nothing is of all pictures."""


class _Yolo(_Writer):
    def __init__(self, out: Path, label: str) -> None:
        super().__init__(out, label)
        self._any = False

    def write(self, picture: NamedPicture, found: Segmentation) -> Path:
        path = self.out / "labels" / f"{picture.name}.txt"
        _save_bytes(encode_yolo([LabelledMask(found.mask, self.label)], [self.label]).encode(), path)
        self._any = True
        return path

    def finish(self) -> None:
        if self._any:
            _save_bytes(f"{self.label}\n".encode(), self.out / "classes.txt")


class _OneFile(_Writer):
    """One file of all pictures."""

    file_name: str

    def __init__(self, out: Path, label: str) -> None:
        super().__init__(out, label)
        self.packed = _PackedPictures(label)

    def write(self, picture: NamedPicture, found: Segmentation) -> Path:
        self.packed.add(picture, found)
        return self.out / self.file_name

    def finish(self) -> None:
        if self.packed:
            write_json(self.out / self.file_name, self.content())

    @abstractmethod
    def content(self) -> object:
        """What the file holds."""


class _Coco(_OneFile):
    file_name = "annotations.json"

    def content(self) -> object:
        return encode_coco(self.packed)


class _LabelStudio(_OneFile):
    file_name = "tasks.json"

    def content(self) -> object:
        return encode_label_studio(self.packed)

    def finish(self) -> None:
        super().finish()
        if self.packed:
            _save_bytes(label_config([self.label]).encode(), self.out / "label_config.xml")


class _Rle(_OneFile):
    file_name = "rle.json"

    def content(self) -> object:
        return self.packed.entries


class _PackedPictures(Sequence[LabelledPicture]):
    """Many pictures with a mask each, of which one at a time is unpacked.

    Attributes:
        entries: ``image``, ``label``, ``score``, ``box``, ``segmentation`` (run-length encoded) a picture.
    """

    def __init__(self, label: str) -> None:
        self.entries: list[dict[str, Any]] = []
        self._label = label

    def add(self, picture: NamedPicture, found: Segmentation) -> None:
        """Pack one."""
        name = f"{picture.name}{picture.path.suffix}"
        told = {"score": found.score, "box": found.box, "segmentation": encode_rle(found.mask)}
        self.entries.append({"image": name, "label": self._label, **told})

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> LabelledPicture: ...
    @overload
    def __getitem__(self, index: slice) -> list[LabelledPicture]: ...
    def __getitem__(self, index: int | slice) -> LabelledPicture | list[LabelledPicture]:
        """Unpacked."""
        if isinstance(index, slice):
            return [self._unpacked(entry) for entry in self.entries[index]]
        return self._unpacked(self.entries[index])

    def __iter__(self) -> Iterator[LabelledPicture]:
        return map(self._unpacked, self.entries)

    def _unpacked(self, entry: dict[str, Any]) -> LabelledPicture:
        mask = decode_rle(entry["segmentation"])
        height, width = mask.shape
        return LabelledPicture(entry["image"], (height, width), (LabelledMask(mask, self._label, entry["score"]),))


_WRITERS: dict[str, type[_Writer]] = {
    "png": _Png,
    "palette": _Palette,
    "yolo": _Yolo,
    "coco": _Coco,
    "label-studio": _LabelStudio,
    "rle": _Rle,
}
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
        label: What the object is called in them; whatever breaks its line becomes a space.
        overlay: Also the picture with the mask painted on.
    """

    def __init__(self, out: Path, formats: Sequence[str], label: str, *, overlay: bool) -> None:
        self._out, self._overlay = out, overlay
        line = " ".join(label.split()) or DEFAULT_LABEL
        self._writers = {name: _WRITERS[name](out, line) for name in formats}

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


def _save_bytes(content: bytes, path: Path) -> None:
    """Write a file; it is whole or not there."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
