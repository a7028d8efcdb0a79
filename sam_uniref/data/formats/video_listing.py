"""What a video is to be read from: its frames, its mask files, and what an annotation file says of its objects.

Frames and masks are listed where the units are told, so that a unit changes when files are added to a folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sam_uniref.data.formats.files import read_json, relative_path
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.images import IMAGE_SUFFIXES
from sam_uniref.video import by_number

VIDEOS_A_UNIT = 20
LEAVES_FOLDER = "path leaves the folder"

MASK_SUFFIXES = (".png",)


@dataclass(frozen=True)
class NamedObject:
    """What an annotation file says of an object.

    Attributes:
        id: Its value in the masks.
        category: Its class; empty where there are none.
        sentences: That mean it.
        sentence_ids: What results call these sentences.
        start: Stem of the frame whose mask a tracker is given; None for the first in which it is seen.
    """

    id: int
    category: str = ""
    sentences: tuple[str, ...] = ()
    sentence_ids: tuple[str, ...] = ()
    start: str | None = None


@dataclass(frozen=True)
class ListedVideo:
    """A video to be read.

    Attributes:
        name: In the data set.
        frames: Paths of its frames relative to the root, in order, by stem; of those too that should be there.
        masks: Paths of its masks relative to the root, by stem; each has a frame of the same stem.
        objects: That are named.
        closed: Whether ids that are not named are no objects.
    """

    name: str
    frames: Mapping[str, str]
    masks: Mapping[str, str] = field(default_factory=dict)
    objects: tuple[NamedObject, ...] = ()
    closed: bool = False


def list_video(
    root: Path,
    name: str,
    frames_folder: str,
    masks_folder: str | None,
    problems: Problems,
    *,
    named: Iterable[str] = (),
    masked: Sequence[str] | Literal["all", "first"] = (),
    objects: tuple[NamedObject, ...] = (),
    closed: bool = False,
) -> ListedVideo | None:
    """The files of a video; None if its folder is not there or lies elsewhere, and the reason in ``problems``.

    Args:
        root: Of the download.
        name: Of the video and its folders.
        frames_folder: Of all videos' frames, relative to the root.
        masks_folder: Of all videos' masks; None where there are none.
        problems: Takes the reason.
        named: Stems of frames that must be there.
        masked: Stems of frames that must have a mask; or ``all`` of those found, or the ``first`` of them.
        objects: As in `ListedVideo`.
        closed: As in `ListedVideo`.
    """
    try:
        frames_place = relative_path(frames_folder, name)
        masks_place = relative_path(masks_folder, name) if masks_folder is not None else None
        stems = [] if isinstance(masked, str) else list(masked)
        asked = {stem: relative_path(frames_place, f"{stem}.jpg") for stem in [*named, *stems]}
        masks = {stem: relative_path(masks_place, f"{stem}.png") for stem in stems if masks_place is not None}
    except ValueError as error:
        problems.broken(LEAVES_FOLDER, f"{name}: {error}")
        return None
    if not (root / frames_place).is_dir():
        problems.broken("missing folder of frames", frames_place)
        return None
    masks |= pictures_by_stem(root, masks_place, problems, MASK_SUFFIXES) if masks_place else {}
    # What is there has its own suffix; what should be there is looked for, and missed, as a JPEG.
    frames = {stem: f"{frames_place}/{stem}.jpg" for stem in masks} | asked
    frames |= pictures_by_stem(root, frames_place, problems)
    order = sorted(frames, key=lambda stem: by_number(Path(f"{stem}.")))
    if isinstance(masked, str):
        masks = {stem: f"{masks_place}/{stem}.png" for stem in order[: None if masked == "all" else 1]} | masks
    return ListedVideo(name, {stem: frames[stem] for stem in order}, masks, objects, closed)


def pictures_by_stem(
    root: Path, folder: str, problems: Problems, suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> dict[str, str]:
    """Paths relative to the root, of a folder's pictures, by stem; empty if there is no such folder.

    Args:
        root: Of the download.
        folder: Relative to it.
        problems: Takes a second picture of one stem.
        suffixes: In lower case.
    """
    found: dict[str, str] = {}
    place = root / folder
    # Hidden files are an operating system's notes about pictures (._00000.jpg), not pictures.
    names = sorted(p.name for p in place.iterdir() if p.name[0] != ".") if place.is_dir() else []
    for name in names:
        path = Path(name)
        if path.suffix.lower() not in suffixes:
            continue
        if path.stem in found:
            problems.broken("second picture of one frame", f"{folder}/{name}")
            continue
        found[path.stem] = f"{folder}/{name}"
    return found


def once_each(names: Iterable[str], problems: Problems) -> Iterator[str]:
    """Names of videos in their order; a second of the same name is counted and left out."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            problems.broken("video that is listed twice", name)
            continue
        seen.add(name)
        yield name


# ---- Annotation files ----


def first_file(root: Path, *places: str) -> Path | None:
    """The first of several places, relative to the root, that has a file."""
    return next((root / place for place in places if (root / place).is_file()), None)


def read_videos(path: Path) -> dict[str, Mapping[str, Any]]:
    """``videos`` of an annotation file, by name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is broken, or has no videos by name.
    """
    videos = read_json(path, "videos")["videos"]
    if not isinstance(videos, dict) or not all(isinstance(entry, dict) for entry in videos.values()):
        raise ValueError(f"{path}: 'videos' must hold an object for each name; it is another release's")
    return videos


def value_of(entry: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A value of an annotation file.

    Args:
        entry: That must have it.
        key: Its name.
        kind: Type that it must have.
        where: The file and the entry, for messages.

    Raises:
        ValueError: If it is missing or of another type.
    """
    if not isinstance(entry, Mapping) or key not in entry:
        raise ValueError(f"{where} lacks {key!r}: it is another release's, or another data set's")
    if not isinstance(entry[key], kind):
        raise ValueError(f"{where} has a {type(entry[key]).__name__} as {key!r}: it is another release's")
    return entry[key]


def whole_number(text: Any, where: str) -> int:
    """An object's id.

    Raises:
        ValueError: If it is no whole number above 0.
    """
    try:
        number = int(text)
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise ValueError(f"{where}: an object's id must be a whole number above 0, got {text!r}")
    return number


def without_twins(objects: Iterable[NamedObject], video: str, problems: Problems) -> tuple[NamedObject, ...]:
    """Objects by id; a second one of the same id is counted and left out."""
    found: dict[int, NamedObject] = {}
    for item in objects:
        if item.id in found:
            problems.broken("object id that stands twice", f"{video}: {item.id}")
            continue
        found[item.id] = item
    return tuple(found[number] for number in sorted(found))
