"""Videos whose masks are PNGs of object ids, a file a frame: from listed files to rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.formats.files import load_palette_ids, sound_mask
from sam_uniref.data.formats.video_frames import SoundFrames, sound_frames
from sam_uniref.data.formats.video_listing import ListedVideo, NamedObject
from sam_uniref.data.prepared.masks import encode_mask
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import TableKind, VideoObject, VideoRow

LoadIds = Callable[[Path], NDArray[Any]]


@dataclass
class Track:
    """An object's masks.

    Attributes:
        frames: Numbers of the frames in which it is seen, rising.
        rles: Its masks there (`EncodedMask.counts`).
    """

    frames: list[int] = field(default_factory=list)
    rles: list[bytes] = field(default_factory=list)

    def add(self, frame: int, rle: bytes) -> None:
        """One more mask."""
        self.frames.append(frame)
        self.rles.append(rle)


@dataclass(frozen=True)
class ReadMasks:
    """All masks of a video.

    Attributes:
        frames: That can be used.
        annotated: Numbers of frames with a mask that can be read, rising.
        tracks: By the objects' ids, rising.
    """

    frames: SoundFrames
    annotated: tuple[int, ...]
    tracks: Mapping[int, Track]


class MaskedVideos:
    """The half of a reader that all sets with PNG masks share; a unit is a list of `ListedVideo`.

    Attributes:
        splits_without_masks: Whose videos are rows without objects.
    """

    table: ClassVar[TableKind] = "videos"
    splits_without_masks: ClassVar[frozenset[str]] = frozenset()

    def read(self, root: Path, split: str, unit: Sequence[ListedVideo], problems: Problems) -> Iterator[VideoRow]:
        """The rows of a unit; what can't be used is counted in ``problems`` and left out."""
        for video in unit:
            masks = read_masks(root, video, problems, self.load_ids)
            if masks is None:
                continue
            named = self.chosen_objects(video, masks, problems)
            if named is None:
                continue
            objects = tuple(_objects(video, named, masks, problems))
            if objects or split in self.splits_without_masks:
                yield video_row(video.name, masks.frames, masks.annotated, objects)
            else:
                problems.broken("video without an object", video.name)

    def load_ids(self, path: Path) -> NDArray[Any]:
        """Ids ``(H, W)`` of a mask file, 0 = background; raises as `sound_mask` expects it."""
        return load_palette_ids(path)

    def chosen_objects(self, video: ListedVideo, masks: ReadMasks, problems: Problems) -> Iterable[NamedObject] | None:
        """Which ids are objects, and what is known of them; None to leave the video out."""
        named = {item.id: item for item in video.objects}
        for number in sorted(set(masks.tracks) - set(named)):
            if video.closed:
                problems.by_rule("id in masks that the annotation file does not name", f"{video.name}: {number}")
            else:
                named[number] = NamedObject(number)
        return [named[number] for number in sorted(named)]


def read_masks(
    root: Path, video: ListedVideo, problems: Problems, load: LoadIds = load_palette_ids
) -> ReadMasks | None:
    """Frames and masks of a video; None if no frame can be used.

    Args:
        root: Of the download.
        video: What to read.
        problems: Takes what can't be used.
        load: Gives the ids ``(H, W)`` of a mask file, and raises as `sound_mask` expects it.
    """
    frames = sound_frames(root, video.frames, video.masks.keys(), video.name, problems)
    if frames is None:
        return None
    annotated: list[int] = []
    tracks: dict[int, Track] = {}
    # A frame that can't be used is counted already; its mask goes with it.
    for stem, number in frames.numbers.items():
        if stem not in video.masks:
            continue
        ids = read_ids(root, video.masks[stem], frames.size, problems, load)
        if ids is None:
            continue
        annotated.append(number)
        for object_id in np.unique(ids).tolist():
            if object_id:
                tracks.setdefault(object_id, Track()).add(number, encode_mask(ids == object_id).counts)
    return ReadMasks(frames, tuple(annotated), {key: tracks[key] for key in sorted(tracks)})


def read_ids(
    root: Path, relative: str, size: tuple[int, int], problems: Problems, load: LoadIds = load_palette_ids
) -> NDArray[Any] | None:
    """Ids of a mask file at its frame's ``(height, width)``; None if it can't be used, the reason in ``problems``."""
    return sound_mask(lambda: load(root / relative), size, relative, problems)


def video_row(name: str, frames: SoundFrames, annotated: Sequence[int], objects: tuple[VideoObject, ...]) -> VideoRow:
    """A row of frames that can be used."""
    height, width = frames.size
    return VideoRow(name, height, width, frames.paths, tuple(annotated), objects)


def _objects(
    video: ListedVideo, named: Iterable[NamedObject], masks: ReadMasks, problems: Problems
) -> Iterator[VideoObject]:
    """Objects that have a mask; the others are counted."""
    for item in named:
        track = masks.tracks.get(item.id)
        first = _first(video, item, track, masks.frames, problems) if track is not None else None
        if track is None or first is None:
            problems.broken("object without a mask", f"{video.name}: {item.id}")
            continue
        yield VideoObject(
            item.id, item.category, first, tuple(track.frames), tuple(track.rles), item.sentences, item.sentence_ids
        )


def _first(video: ListedVideo, item: NamedObject, track: Track, frames: SoundFrames, problems: Problems) -> int | None:
    """Number of the frame whose mask a tracker is given: the told one, or the next in which the object is seen."""
    if item.start is None:
        return track.frames[0]
    told = frames.numbers.get(item.start)
    if told in track.frames:
        return told
    order = list(video.frames)
    after = {frames.numbers.get(stem) for stem in order[order.index(item.start) :]}
    later = next((number for number in track.frames if number in after), None)
    if later is not None:
        problems.mended("object not seen at its start, taken where it is seen next", f"{video.name}: {item.id}")
    return later
