"""LVOS, versions 1 and 2.

```
{train,valid,test}/{JPEGImages,Annotations}/<video>/00000001.jpg, .png      "val" for "valid" in some downloads
train/train_meta.json                                                       or meta_jsons/train_meta.json
train/train_expression_meta.json                                            version 1: a sentence an object
```
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from sam_uniref.data.formats.files import in_units, missing_layout
from sam_uniref.data.formats.video_listing import (
    VIDEOS_A_UNIT,
    ListedVideo,
    NamedObject,
    first_file,
    list_video,
    read_videos,
    value_of,
    whole_number,
    without_twins,
)
from sam_uniref.data.formats.video_masks import MaskedVideos
from sam_uniref.data.prepared.problems import Problems

# What a split's folder and files may be called.
_NAMES = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}


class Lvos1(MaskedVideos):
    """Version 1, and what both versions share.

    A tracker is given an object's mask where its ``frame_range`` starts, although there are masks before and after.
    The file of sentences has all that the meta file has, so it alone is enough.
    """

    name: ClassVar[str] = "lvos_v1"
    title: ClassVar[str] = "LVOS v1"
    homepage: ClassVar[str] = "https://lingyihongfd.github.io/lvos.github.io"
    licence: ClassVar[str] = "annotations CC BY 4.0; the videos for non-commercial research only"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "train": {"videos": 120},
        "valid": {"videos": 50},
        "test": {"videos": 50},
    }

    def splits(self, root: Path) -> tuple[str, ...]:
        """Splits that have frames."""
        found = tuple(split for split in _NAMES if _folder(root, split) is not None)
        if not found:
            raise missing_layout(root, ["train/JPEGImages", "valid/JPEGImages", "val/JPEGImages", "test/JPEGImages"])
        return found

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[list[ListedVideo]]:
        """Lists of videos with their files, objects and sentences."""
        folder = _folder(root, split)
        if folder is None:
            raise missing_layout(root, [f"{name}/JPEGImages" for name in _NAMES[split]])
        expressions = first_file(root, *_places(split, "expression_meta.json"))
        meta = first_file(root, *_places(split, "meta.json")) or expressions
        meta = meta or first_file(root, *_places(split, "meta_attribute.json"))
        if meta is None:
            raise missing_layout(root, _places(split, "meta.json"))
        captions = _captions(expressions, problems) if expressions is not None else {}
        listed = (
            _list(root, folder, name, _objects(entry, f"{meta} video {name}", captions.get(name, {})), problems)
            for name, entry in read_videos(meta).items()
        )
        yield from in_units((video for video in listed if video is not None), VIDEOS_A_UNIT)


class Lvos2(Lvos1):
    """Version 2: more videos."""

    name: ClassVar[str] = "lvos_v2"
    title: ClassVar[str] = "LVOS v2"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "train": {"videos": 420},
        "valid": {"videos": 140},
        "test": {"videos": 160},
    }


def _folder(root: Path, split: str) -> str | None:
    """The split's folder that has frames."""
    return next((name for name in _NAMES[split] if (root / name / "JPEGImages").is_dir()), None)


def _places(split: str, ending: str) -> list[str]:
    """Where a split's annotation file may lie."""
    names = _NAMES[split]
    return [f"{folder}/{name}_{ending}" for folder in (*names, "meta_jsons") for name in names]


def _captions(path: Path, problems: Problems) -> dict[str, dict[int, str]]:
    """Sentences by video and object."""
    captions: dict[str, dict[int, str]] = {}
    for name, entry in read_videos(path).items():
        where = f"{path} video {name}"
        captions[name] = {}
        for key, value in value_of(entry, "objects", dict, where).items():
            text = str(value_of(value, "caption", str, f"{where} object {key}")).strip()
            if text:
                captions[name][whole_number(key, where)] = text
            else:
                problems.broken("empty sentence", f"{name}: {key}")
    return captions


def _objects(entry: Mapping[str, Any], where: str, captions: Mapping[int, str]) -> list[NamedObject]:
    """Objects of a video of the meta file."""
    found = []
    for key, value in value_of(entry, "objects", dict, where).items():
        span = value_of(value, "frame_range", dict, f"{where} object {key}")
        number = whole_number(key, where)
        start = _stem(value_of(span, "start", (str, int), f"{where} object {key} frame_range"))
        sentences = (captions[number],) if number in captions else ()
        found.append(NamedObject(number, "", sentences, start=start))
    return found


def _stem(start: str | int) -> str:
    """Eight digits, however the file writes the number."""
    return f"{int(start):08d}" if str(start).isascii() and str(start).isdigit() else str(start)


def _list(root: Path, folder: str, name: str, objects: list[NamedObject], problems: Problems) -> ListedVideo | None:
    """A video; the masks at the objects' starts must be there."""
    starts = sorted({item.start for item in objects if item.start is not None})
    return list_video(
        root,
        name,
        f"{folder}/JPEGImages",
        f"{folder}/Annotations",
        problems,
        masked=starts,
        objects=without_twins(objects, name, problems),
        closed=True,
    )
