"""Ref-YouTube-VOS.

```
train/{JPEGImages,Annotations}/<video>/00000.jpg, .png       and train/meta.json: as YouTube-VOS 2019
{valid,test}/JPEGImages/<video>/00000.jpg
meta_expressions/{train,valid,test}/meta_expressions.json    or {train,valid,test}/meta_expressions.json
valid/Annotations/<video>/<expression>/00000.png             a later release, with meta_expressions_challenge.json
```
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from sam_uniref.data.formats.expressions import Expression, expression_objects, read_expressions
from sam_uniref.data.formats.files import in_units, missing_layout, relative_path
from sam_uniref.data.formats.video_frames import SoundFrames, sound_frames
from sam_uniref.data.formats.video_listing import (
    LEAVES_FOLDER,
    MASK_SUFFIXES,
    VIDEOS_A_UNIT,
    ListedVideo,
    NamedObject,
    first_file,
    list_video,
    pictures_by_stem,
    read_videos,
    value_of,
    whole_number,
    without_twins,
)
from sam_uniref.data.formats.video_masks import MaskedVideos, Track, read_ids, video_row
from sam_uniref.data.formats.youtube_vos import HOMEPAGE, LICENCE, meta_objects
from sam_uniref.data.prepared.masks import encode_mask
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import VideoRow

# A video, its expressions, and by expression the mask files by stem; None where no masks are published.
SpokenVideo = tuple[ListedVideo, tuple[Expression, ...], Mapping[str, Mapping[str, str]] | None]


class RefYoutubeVos(MaskedVideos):
    """In train an object has all its sentences; elsewhere each expression is an object of its own.

    The expressions of ``valid`` are those of its file without the videos of the test file, which it lists too. Where
    no masks are published, an object has the id 0; with the later release's, a running number from 1.
    """

    name: ClassVar[str] = "ref_youtube_vos"
    title: ClassVar[str] = "Ref-YouTube-VOS"
    homepage: ClassVar[str] = f"{HOMEPAGE}/dataset/rvos"
    licence: ClassVar[str] = LICENCE
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {"train": {"videos": 3471}, "valid": {"videos": 202}}

    def splits(self, root: Path) -> tuple[str, ...]:
        """Splits that have frames and expressions."""
        found = tuple(
            split
            for split in ("train", "valid", "test")
            if (root / split / "JPEGImages").is_dir() and expressions_file(root, split) is not None
        )
        if not found:
            raise missing_layout(root, ["train/JPEGImages with meta_expressions/train/meta_expressions.json"])
        return found

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[list[ListedVideo] | list[SpokenVideo]]:
        """Lists of videos with their files and expressions."""
        path = expressions_file(root, split)
        if path is None:
            raise missing_layout(root, _places(split))
        videos = read_videos(path)
        if split == "train":
            yield from in_units(_train_videos(root, path, videos, problems), VIDEOS_A_UNIT)
            return
        tests = expressions_file(root, "test") if split == "valid" else None
        others = read_videos(tests).keys() if tests is not None else ()
        own = {name: entry for name, entry in videos.items() if name not in others}
        yield from in_units(_spoken_videos(root, split, path, own, problems), VIDEOS_A_UNIT)

    def read(self, root: Path, split: str, unit: Sequence[Any], problems: Problems) -> Iterator[VideoRow]:
        """The rows of a unit; what can't be used is counted in ``problems`` and left out."""
        if split == "train":
            yield from super().read(root, split, unit, problems)
            return
        for video, expressions, masks in unit:
            row = _read_spoken(root, video, expressions, masks, problems)
            if row is not None:
                yield row


def _places(split: str) -> list[str]:
    """Where the expressions of a split may lie, in order of preference."""
    folders = (f"meta_expressions/{split}", split)
    return [
        f"{folder}/{name}.json" for name in ("meta_expressions", "meta_expressions_challenge") for folder in folders
    ]


def expressions_file(root: Path, split: str) -> Path | None:
    """The file of a split's expressions, wherever a release has it; None: there is none."""
    return first_file(root, *_places(split))


# ---- train ----


def _train_videos(
    root: Path, path: Path, videos: Mapping[str, Mapping[str, Any]], problems: Problems
) -> Iterator[ListedVideo]:
    """Videos with the objects that are spoken of, and the others of ``meta.json``."""
    meta_file = root / "train" / "meta.json"
    meta = read_videos(meta_file) if meta_file.is_file() else {}
    for name, entry in videos.items():
        said: dict[int, list[Expression]] = defaultdict(list)
        frames, expressions = read_expressions(entry, name, f"{path} video {name}", problems)
        for expression in expressions:
            where = f"{path} video {name} expression {expression.key}"
            said[whole_number(value_of(expression.entry, "obj_id", (str, int), where), where)].append(expression)
        known = (
            without_twins(meta_objects(meta[name], f"{meta_file} video {name}"), name, problems) if name in meta else ()
        )
        objects = {item.id: item for item in known}
        for number, items in said.items():
            objects[number] = replace(
                objects.get(number, NamedObject(number)),
                sentences=tuple(item.text for item in items),
                sentence_ids=tuple(item.key for item in items),
            )
        video = list_video(
            root,
            name,
            "train/JPEGImages",
            "train/Annotations",
            problems,
            masked=frames,
            objects=tuple(objects[number] for number in sorted(objects)),
        )
        if video is not None:
            yield video


# ---- valid and test ----


def _spoken_videos(
    root: Path, split: str, path: Path, videos: Mapping[str, Mapping[str, Any]], problems: Problems
) -> Iterator[SpokenVideo]:
    """Videos with their expressions, and the masks of each where they are published."""
    masks_folder = f"{split}/Annotations"
    published = (root / masks_folder).is_dir()
    for name, entry in videos.items():
        frames, expressions = read_expressions(entry, name, f"{path} video {name}", problems)
        video = list_video(root, name, f"{split}/JPEGImages", None, problems, named=frames)
        if video is None:
            continue
        masks: dict[str, dict[str, str]] = {}
        for expression in expressions if published else ():
            try:
                folder = relative_path(masks_folder, name, expression.key)
            except ValueError as error:
                problems.broken(LEAVES_FOLDER, f"{name}: {error}")
                continue
            masks[expression.key] = pictures_by_stem(root, folder, problems, MASK_SUFFIXES)
        yield video, tuple(expressions), masks if published else None


def _read_spoken(
    root: Path,
    video: ListedVideo,
    expressions: Sequence[Expression],
    masks: Mapping[str, Mapping[str, str]] | None,
    problems: Problems,
) -> VideoRow | None:
    """A row with an object an expression; None if it can't be used."""
    masked = sorted({stem for files in (masks or {}).values() for stem in files})
    frames = sound_frames(root, video.frames, masked, video.name, problems)
    if frames is None:
        return None
    if masks is None:
        return video_row(video.name, frames, (), expression_objects(expressions, None))
    for stem in masked:
        if stem not in video.frames:
            problems.broken("mask without its frame", f"{video.name}: {stem}")
    annotated, tracks = _read_spoken_masks(root, frames, masked, masks, problems)
    for key in [item.key for item in expressions if item.key not in tracks]:
        problems.broken("expression without a mask", f"{video.name}: {key}")
    objects = expression_objects(expressions, tracks)
    if not objects:
        problems.broken("video without an object", video.name)
        return None
    return video_row(video.name, frames, annotated, objects)


def _read_spoken_masks(
    root: Path,
    frames: SoundFrames,
    masked: Sequence[str],
    masks: Mapping[str, Mapping[str, str]],
    problems: Problems,
) -> tuple[list[int], dict[str, Track]]:
    """Numbers of annotated frames, and the masks by expression of those that are seen.

    A frame in which the mask of one expression is missing is not annotated: it would say that it means nothing there.
    """
    annotated: list[int] = []
    tracks: dict[str, Track] = {}
    for stem in (stem for stem in frames.numbers if stem in masked):
        found = {
            key: read_ids(root, files.get(stem, f"expression {key}: {stem}.png"), frames.size, problems)
            for key, files in masks.items()
            if files
        }
        whole = {key: ids for key, ids in found.items() if ids is not None}
        if len(whole) < len(found):
            continue
        number = frames.numbers[stem]
        annotated.append(number)
        for key, ids in whole.items():
            if ids.any():
                tracks.setdefault(key, Track()).add(number, encode_mask(ids > 0).counts)
    return annotated, tracks
