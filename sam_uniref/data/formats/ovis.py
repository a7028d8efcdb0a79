"""OVIS: ``annotations_<split>.json`` and ``<split>/<video>/img_0000001.jpg``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sam_uniref.data.formats.files import in_units, missing_layout, relative_path
from sam_uniref.data.formats.segmentation_lists import (
    frame_keys,
    masked_frames,
    pack,
    read_lists,
    unpack,
)
from sam_uniref.data.formats.streams import has_objects, stream_objects
from sam_uniref.data.formats.video_frames import sound_frames
from sam_uniref.data.formats.video_listing import LEAVES_FOLDER, VIDEOS_A_UNIT, value_of
from sam_uniref.data.formats.video_masks import video_row
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import TableKind, VideoObject, VideoRow

_SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class OvisVideo:
    """A video of the annotation file.

    Attributes:
        name: The folder of its frames.
        size: ``(height, width)`` as annotated.
        frames: Paths relative to the root.
        objects: Packed lists of segmentations, in the file's order.
        crowds: Which of them are crowds.
    """

    name: str
    size: tuple[int, int]
    frames: tuple[str, ...]
    objects: tuple[bytes, ...]
    crowds: tuple[bool, ...]


class Ovis:
    """Class-agnostic: categories are left empty. An object's id is its place among its video's, from 1.

    Only splits with annotations are splits: as published, train.
    """

    name: ClassVar[str] = "ovis"
    title: ClassVar[str] = "OVIS"
    table: ClassVar[TableKind] = "videos"
    homepage: ClassVar[str] = "https://songbai.site/ovis"
    licence: ClassVar[str] = "not checked: see the homepage"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {}

    def splits(self, root: Path) -> tuple[str, ...]:
        """Splits whose file has annotations."""
        files = {split: root / f"annotations_{split}.json" for split in _SPLITS}
        found = tuple(s for s, path in files.items() if path.is_file() and has_objects(path, "annotations"))
        if not found:
            raise missing_layout(root, ["annotations_train.json with annotations"])
        return found

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[list[OvisVideo]]:
        """Lists of videos with their objects, in the file's order."""
        yield from in_units(_videos(root / f"annotations_{split}.json", split, problems), VIDEOS_A_UNIT)

    def read(self, root: Path, split: str, unit: Sequence[OvisVideo], problems: Problems) -> Iterator[VideoRow]:
        """The rows of a unit; what can't be used is counted in ``problems`` and left out."""
        for video in unit:
            row = _read(root, video, problems)
            if row is not None:
                yield row


def _videos(path: Path, split: str, problems: Problems) -> Iterator[OvisVideo]:
    """All videos; the file is read twice, so that neither its order nor its size matters."""
    objects: dict[int, list[tuple[bytes, bool]]] = defaultdict(list)
    seen: set[int] = set()
    for entry in stream_objects(path, "annotations", "id", "video_id", "segmentations"):
        number = value_of(entry, "id", int, f"{path} annotation")
        if number in seen:
            problems.broken("annotation id that stands twice", number)
            continue
        seen.add(number)
        masks = (pack(entry["segmentations"]), bool(entry.get("iscrowd", 0)))
        objects[value_of(entry, "video_id", int, f"{path} annotation {number}")].append(masks)
    known: set[int] = set()
    for entry in stream_objects(path, "videos", "id", "file_names", "height", "width"):
        number = value_of(entry, "id", int, f"{path} video")
        if number in known:
            problems.broken("video id that stands twice", number)
            continue
        known.add(number)
        video = _video(entry, split, objects.pop(number, []), f"{path} video {number}", problems)
        if video is not None:
            yield video
    for number, entries in objects.items():
        problems.broken("objects of a video that is not in the file", f"video {number}: {len(entries)}")


def _video(
    entry: Mapping[str, Any], split: str, objects: list[tuple[bytes, bool]], where: str, problems: Problems
) -> OvisVideo | None:
    """A video of the file; None if a path leaves the folder."""
    names = value_of(entry, "file_names", list, where)
    size = (value_of(entry, "height", int, where), value_of(entry, "width", int, where))
    try:
        frames = tuple(relative_path(split, str(name)) for name in names)
    except ValueError as error:
        problems.broken(LEAVES_FOLDER, error)
        return None
    name = Path(frames[0]).parent.name if frames else str(entry["id"])
    return OvisVideo(name, size, frames, tuple(packed for packed, _ in objects), tuple(crowd for _, crowd in objects))


def _read(root: Path, video: OvisVideo, problems: Problems) -> VideoRow | None:
    """A row; None if the video can't be used."""
    lists = [unpack(packed) for packed in video.objects]
    length = len(video.frames)
    masked = masked_frames(lists, length)
    frames = sound_frames(root, frame_keys(video.frames), masked, video.name, problems, size=video.size)
    if frames is None:
        return None
    objects = []
    for number, (segmentations, crowd) in enumerate(zip(lists, video.crowds, strict=True), start=1):
        name = f"{video.name}: {number}"
        if crowd:
            problems.by_rule("crowd", name)
            continue
        track = read_lists({name: segmentations}, length, frames, problems)
        if track is None:
            continue
        if not track.frames:
            problems.broken("object without a mask", name)
            continue
        objects.append(VideoObject(number, "", track.frames[0], tuple(track.frames), tuple(track.rles)))
    if not objects:
        problems.broken("video without an object", video.name)
        return None
    return video_row(video.name, frames, tuple(frames.numbers.values()), tuple(objects))
