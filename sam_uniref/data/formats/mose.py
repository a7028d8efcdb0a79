"""MOSE: ``{train,valid}/{JPEGImages,Annotations}/<video>/``, and, where it was downloaded, ``meta_<split>.json``."""

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


class Mose(MaskedVideos):
    """Without a meta file the videos are the folders, and the objects are the ids of the masks."""

    name: ClassVar[str] = "mose"
    title: ClassVar[str] = "MOSE"
    homepage: ClassVar[str] = "https://henghuiding.github.io/MOSE"
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {}

    def splits(self, root: Path) -> tuple[str, ...]:
        """Splits that have frames."""
        found = tuple(split for split in ("train", "valid") if (root / split / "JPEGImages").is_dir())
        if not found:
            raise missing_layout(root, ["train/JPEGImages", "valid/JPEGImages"])
        return found

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[list[ListedVideo]]:
        """Lists of videos with their files and objects."""
        meta = first_file(root, f"{split}/meta_{split}.json", f"meta_{split}.json")
        if meta is None:
            folders = (p for p in (root / split / "JPEGImages").iterdir() if p.is_dir() and p.name[0] != ".")
            listed = (self._list(root, split, name, None, problems) for name in sorted(p.name for p in folders))
        else:
            listed = (
                self._list(root, split, name, _named(entry, f"{meta} video {name}", name, problems), problems)
                for name, entry in read_videos(meta).items()
            )
        yield from in_units((video for video in listed if video is not None), VIDEOS_A_UNIT)

    def _list(
        self, root: Path, split: str, name: str, objects: tuple[NamedObject, ...] | None, problems: Problems
    ) -> ListedVideo | None:
        """A video: every frame of train has a mask, of valid the first."""
        return list_video(
            root,
            name,
            f"{split}/JPEGImages",
            f"{split}/Annotations",
            problems,
            masked="all" if split == "train" else "first",
            objects=objects or (),
            closed=objects is not None,
        )


def _named(entry: Mapping[str, Any], where: str, video: str, problems: Problems) -> tuple[NamedObject, ...]:
    """Objects of a meta file: a list of ids, or an object by id."""
    objects = value_of(entry, "objects", (list, dict), where)
    values = objects if isinstance(objects, dict) else {}
    found = (NamedObject(whole_number(key, where), _category(values.get(key))) for key in objects)
    return without_twins(found, video, problems)


def _category(value: Any) -> str:
    return str(value.get("category") or "") if isinstance(value, Mapping) else ""
