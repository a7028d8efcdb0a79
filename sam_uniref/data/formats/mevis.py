"""MeViS: ``{train,valid_u,valid}/`` with ``JPEGImages``, ``meta_expressions.json`` and ``mask_dict.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sam_uniref.data.formats.expressions import Expression, expression_objects, read_expressions
from sam_uniref.data.formats.files import in_units, missing_layout, relative_path
from sam_uniref.data.formats.segmentation_lists import (
    frame_keys,
    masked_frames,
    pack,
    read_lists,
    unpack,
)
from sam_uniref.data.formats.streams import stream_entries
from sam_uniref.data.formats.video_frames import sound_frames
from sam_uniref.data.formats.video_listing import LEAVES_FOLDER, VIDEOS_A_UNIT, read_videos, value_of
from sam_uniref.data.formats.video_masks import Track, video_row
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import TableKind, VideoRow

_SPLITS = ("train", "valid_u", "valid")
_MASKS = "mask_dict.json"


@dataclass(frozen=True)
class MevisVideo:
    """A video and what is said of it.

    Attributes:
        name: In the data set.
        frames: Paths relative to the root.
        expressions: In the file's order.
        masks: Packed lists of segmentations by the ids that expressions name; None where no masks are published.
    """

    name: str
    frames: tuple[str, ...]
    expressions: tuple[Expression, ...]
    masks: Mapping[str, bytes] | None


class Mevis:
    """Each expression is an object of its own: the union of all that it means.

    Its id is its place among its video's expressions, from 1. An expression that means nothing in its video (the
    later release has such) is an object without a mask in annotated frames: one that is never seen. In ``valid`` no
    masks are published: ids are 0.
    """

    name: ClassVar[str] = "mevis"
    title: ClassVar[str] = "MeViS"
    table: ClassVar[TableKind] = "videos"
    homepage: ClassVar[str] = "https://henghuiding.github.io/MeViS"
    licence: ClassVar[str] = "CC BY-NC-SA 4.0; the data for non-commercial research only"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "train": {"videos": 1662},
        "valid_u": {"videos": 50},
        "valid": {"videos": 140},
    }

    def splits(self, root: Path) -> tuple[str, ...]:
        """Splits that have expressions."""
        found = tuple(split for split in _SPLITS if (root / split / "meta_expressions.json").is_file())
        if not found:
            raise missing_layout(root, [f"{split}/meta_expressions.json" for split in _SPLITS])
        return found

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[list[MevisVideo]]:
        """Lists of videos, each with its own masks alone."""
        path = root / split / "meta_expressions.json"
        videos = read_videos(path)
        masks = None if split == "valid" else _masks(root / split / _MASKS, problems)
        listed = (_video(root, split, name, entry, path, masks, problems) for name, entry in videos.items())
        yield from in_units((video for video in listed if video is not None), VIDEOS_A_UNIT)

    def read(self, root: Path, split: str, unit: Sequence[MevisVideo], problems: Problems) -> Iterator[VideoRow]:
        """The rows of a unit; what can't be used is counted in ``problems`` and left out."""
        for video in unit:
            row = _read(root, video, problems)
            if row is not None:
                yield row


def _masks(path: Path, problems: Problems) -> dict[str, bytes]:
    """All lists of segmentations, packed, by id."""
    masks: dict[str, bytes] = {}
    for key, value in stream_entries(path):
        if key in masks:
            problems.broken("annotation id that stands twice", key)
            continue
        masks[key] = pack(value)
    return masks


def _video(
    root: Path,
    split: str,
    name: str,
    entry: Mapping[str, Any],
    path: Path,
    masks: Mapping[str, bytes] | None,
    problems: Problems,
) -> MevisVideo | None:
    """A video with what it needs; None if a path leaves the folder or there is no folder."""
    stems, expressions = read_expressions(entry, name, f"{path} video {name}", problems)
    try:
        folder = relative_path(f"{split}/JPEGImages", name)
        frames = tuple(relative_path(folder, f"{stem}.jpg") for stem in stems)
    except ValueError as error:
        problems.broken(LEAVES_FOLDER, f"{name}: {error}")
        return None
    if not (root / folder).is_dir():
        problems.broken("missing folder of frames", folder)
        return None
    if masks is None:
        return MevisVideo(name, frames, tuple(expressions), None)
    ids = {key for item in expressions for key in _annotations(item, f"{path} video {name} expression {item.key}")}
    return MevisVideo(name, frames, tuple(expressions), {key: masks[key] for key in sorted(ids) if key in masks})


def _annotations(expression: Expression, where: str = "") -> list[str]:
    """Ids of the mask lists of an expression."""
    return [str(key) for key in value_of(expression.entry, "anno_id", list, where)]


def _read(root: Path, video: MevisVideo, problems: Problems) -> VideoRow | None:
    """A row; None if the video can't be used."""
    length = len(video.frames)
    lists = {key: unpack(packed) for key, packed in (video.masks or {}).items()}
    masked = masked_frames(list(lists.values()), length)
    frames = sound_frames(root, frame_keys(video.frames), masked, video.name, problems)
    if frames is None:
        return None
    if video.masks is None:
        return video_row(video.name, frames, (), expression_objects(video.expressions, None))
    tracks: dict[str, Track] = {}
    for item in video.expressions:
        ids = _annotations(item)
        missing = [key for key in ids if key not in lists]
        if missing:
            problems.broken(f"expression whose masks {_MASKS} lacks", f"{video.name} expression {item.key}: {missing}")
            continue
        named = {f"{video.name} annotation {key}": lists[key] for key in ids}
        track = read_lists(named, length, frames, problems)
        if track is None:
            continue
        if ids and not track.frames:
            problems.broken("expression without a mask", f"{video.name}: {item.key}")
            continue
        tracks[item.key] = track
    objects = expression_objects(video.expressions, tracks)
    if not objects:
        problems.broken("video without an object", video.name)
        return None
    return video_row(video.name, frames, tuple(frames.numbers.values()), objects)
