"""A user's own folder, as `sam_uniref.data.folder` reads it: its pictures as one data set, its clips as another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.folder import (
    SENTENCES_FILE,
    MaskedPicture,
    Sentences,
    class_pictures,
    clip_folders,
    clip_pictures,
    named_pictures,
    pictures_of,
    read_expressions,
    single_pictures,
)
from sam_uniref.data.formats.files import in_units, missing_layout, sound_mask, sound_picture
from sam_uniref.data.formats.video_listing import VIDEOS_A_UNIT, ListedVideo, NamedObject
from sam_uniref.data.formats.video_masks import MaskedVideos
from sam_uniref.data.prepared.masks import encode_mask
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import ImageRow, TableKind, VideoRow
from sam_uniref.images import IMAGE_SUFFIXES, load_id_map

_PICTURES_A_UNIT = 200
_LICENCE = "the user's own"
_UNUSED = "sentence about nothing that has a mask"

# Size and time of change of a file: what a user changes is read again.
Stamp = tuple[int, int]


@dataclass(frozen=True)
class FolderPicture:
    """A picture to be read.

    Attributes:
        image: Relative to the root.
        mask: Relative to the root.
        category: Its class; empty if it is of none.
        sentences: About its objects.
        stamps: Of both files.
    """

    image: str
    mask: str
    category: str
    sentences: tuple[tuple[int, str], ...]
    stamps: tuple[Stamp, Stamp]


class FolderImages:
    """Pictures of ``classes`` and ``images``, and others that sentences are about; a row an object of a mask."""

    name: ClassVar[str] = "folder_images"
    title: ClassVar[str] = "Own folder, pictures"
    table: ClassVar[TableKind] = "images"
    homepage: ClassVar[str] = ""
    licence: ClassVar[str] = _LICENCE
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {}

    def splits(self, root: Path) -> tuple[str, ...]:
        """``train`` is all."""
        if next(_pictures(root, _sentences(root), Problems()), None) is None:
            raise missing_layout(
                root, ["classes/<name>/<stem>.jpg with <stem>.png", "images/<stem>.jpg with masks/<stem>.png"]
            )
        return ("train",)

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[list[FolderPicture]]:
        """Lists of pictures."""
        yield from in_units(_pictures(root, _sentences(root), problems), _PICTURES_A_UNIT)

    def read(self, root: Path, split: str, unit: Sequence[FolderPicture], problems: Problems) -> Iterator[ImageRow]:
        """The rows of a unit; what can't be used is counted in ``problems`` and left out."""
        for picture in unit:
            size = sound_picture(root, picture.image, problems)
            ids = _ids(root, picture, size, problems) if size is not None else None
            if size is None or ids is None:
                continue
            found = [number for number in np.unique(ids).tolist() if number > 0]
            for number, text in picture.sentences:
                if number not in found:
                    problems.broken(_UNUSED, f"{picture.image} object {number}: {text}")
            for number in found:
                encoded = encode_mask(ids == number)
                sentences = tuple(text for about, text in picture.sentences if about == number)
                target = f"{picture.image}/{number}"
                yield ImageRow(picture.image, *size, target, picture.category, encoded.counts, encoded.box, sentences)


class FolderVideos(MaskedVideos):
    """Clips of ``clips``, with the sentences about them; a clip without masks is left out."""

    name: ClassVar[str] = "folder_videos"
    title: ClassVar[str] = "Own folder, clips"
    homepage: ClassVar[str] = ""
    licence: ClassVar[str] = _LICENCE
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {}

    def splits(self, root: Path) -> tuple[str, ...]:
        """``train`` is all."""
        if next(clip_pictures(root), None) is None:
            raise missing_layout(root, ["clips/<name>/images/<stem>.jpg with clips/<name>/masks/<stem>.png"])
        return ("train",)

    def units(
        self, root: Path, split: str, problems: Problems
    ) -> Iterator[list[tuple[ListedVideo, tuple[Stamp, ...]]]]:
        """Lists of clips with their files."""
        sentences = _sentences(root)
        clips = {folder.name for folder in clip_folders(root)}
        for key, number in sentences:
            if key not in clips and PurePosixPath(key).suffix.lower() not in IMAGE_SUFFIXES:
                problems.broken(_UNUSED, f"{key} object {number}")
        yield from in_units(_clips(root, sentences), VIDEOS_A_UNIT)

    def read(self, root: Path, split: str, unit: Sequence[Any], problems: Problems) -> Iterator[VideoRow]:
        """The rows of a unit; what can't be used is counted in ``problems`` and left out."""
        yield from super().read(root, split, [video for video, _ in unit], problems)

    def load_ids(self, path: Path) -> NDArray[Any]:
        """As `sam_uniref.data.folder` reads masks."""
        return load_id_map(path)


def _sentences(root: Path) -> Sentences:
    """Of the file in the folder; none if there is no such file."""
    path = root / SENTENCES_FILE
    return read_expressions(path) if path.is_file() else {}


def _pictures(root: Path, sentences: Sentences, problems: Problems) -> Iterator[FolderPicture]:
    """Pictures with masks, each once; one that a sentence is about and that is not there is counted."""
    seen: set[Path] = set()

    def told(picture: MaskedPicture) -> FolderPicture:
        seen.add(picture.image)
        image = picture.image.relative_to(root).as_posix()
        texts = tuple((number, text) for (key, number), said in sentences.items() if key == image for text in said)
        category = "" if "{id}" in picture.group else picture.group
        stamps = (_stamp(picture.image), _stamp(picture.mask))
        return FolderPicture(image, picture.mask.relative_to(root).as_posix(), category, texts, stamps)

    for picture in (*class_pictures(root), *single_pictures(root)):
        if picture.image not in seen:
            yield told(picture)
    for image, named in named_pictures(root, sentences, seen):
        if named is None:
            problems.broken("missing picture or mask that a sentence is about", image.relative_to(root).as_posix())
        else:
            yield told(named)


def _clips(root: Path, sentences: Sentences) -> Iterator[tuple[ListedVideo, tuple[Stamp, ...]]]:
    """Clips that have a mask."""
    for folder in clip_folders(root):
        images, masks = ({p.stem: p for p in pictures_of(folder / kind)} for kind in ("images", "masks"))
        if not masks:
            continue
        place = folder.relative_to(root).as_posix()
        frames = {stem: f"{place}/images/{path.name}" for stem, path in images.items()}
        missing = {stem: f"{place}/images/{stem}.jpg" for stem in masks if stem not in images}
        objects = tuple(
            NamedObject(number, sentences=tuple(texts))
            for (key, number), texts in sorted(sentences.items())
            if key == folder.name
        )
        listed = {stem: f"{place}/masks/{path.name}" for stem, path in masks.items()}
        stamps = tuple(_stamp(path) for path in (*images.values(), *masks.values()))
        yield ListedVideo(folder.name, frames | missing, listed, objects), stamps


def _ids(root: Path, picture: FolderPicture, size: tuple[int, int], problems: Problems) -> NDArray[Any] | None:
    return sound_mask(lambda: load_id_map(root / picture.mask), size, picture.mask, problems)


def _stamp(path: Path) -> Stamp:
    state = path.stat()
    return state.st_size, state.st_mtime_ns
