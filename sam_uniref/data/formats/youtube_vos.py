"""YouTube-VOS of 2018 and 2019: ``{train,valid}/{JPEGImages,Annotations}/<video>/`` and ``meta.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from sam_uniref.data.formats.files import in_units, missing_layout
from sam_uniref.data.formats.video_listing import (
    VIDEOS_A_UNIT,
    ListedVideo,
    NamedObject,
    list_video,
    read_videos,
    value_of,
    whole_number,
    without_twins,
)
from sam_uniref.data.formats.video_masks import MaskedVideos
from sam_uniref.data.prepared.problems import Problems

HOMEPAGE = "https://youtube-vos.org"
LICENCE = "annotations CC BY 4.0; the videos for non-commercial research only"


class YoutubeVos2018(MaskedVideos):
    """The release of 2018, and what both releases share.

    In ``valid`` an object has one mask, where it is first seen. A later mask names its new objects alone: of the
    others it says nothing, although its frame is among the annotated ones.
    """

    name: ClassVar[str] = "youtube_vos_2018"
    title: ClassVar[str] = "YouTube-VOS 2018"
    homepage: ClassVar[str] = HOMEPAGE
    licence: ClassVar[str] = LICENCE
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "train": {"videos": 3471, "objects": 5945},
        "valid": {"videos": 474, "objects": 894},
    }

    def splits(self, root: Path) -> tuple[str, ...]:
        """Splits that have a ``meta.json``."""
        found = tuple(split for split in ("train", "valid") if (root / split / "meta.json").is_file())
        if not found:
            raise missing_layout(root, ["train/meta.json", "valid/meta.json"])
        return found

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[list[ListedVideo]]:
        """Lists of videos with their files and objects."""
        path = root / split / "meta.json"
        listed = (
            self._list(root, split, name, entry, f"{path} video {name}", problems)
            for name, entry in read_videos(path).items()
        )
        yield from in_units((video for video in listed if video is not None), VIDEOS_A_UNIT)

    def _list(
        self, root: Path, split: str, name: str, entry: Mapping[str, Any], where: str, problems: Problems
    ) -> ListedVideo | None:
        """A video of `meta.json`: in train its frames are those with the object, in valid those to be answered."""
        objects = meta_objects(entry, where)
        stems = {str(stem) for value in entry["objects"].values() for stem in value.get("frames", ())}
        return list_video(
            root,
            name,
            f"{split}/JPEGImages",
            f"{split}/Annotations",
            problems,
            named=sorted(stems),
            masked=sorted(stems) if split == "train" else (),
            objects=without_twins(objects, name, problems),
            closed=True,
        )


class YoutubeVos2019(YoutubeVos2018):
    """The release of 2019: more objects in the same videos of train, and more videos in valid."""

    name: ClassVar[str] = "youtube_vos_2019"
    title: ClassVar[str] = "YouTube-VOS 2019"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "train": {"videos": 3471, "objects": 6459},
        "valid": {"videos": 507, "objects": 1063},
    }


def meta_objects(entry: Mapping[str, Any], where: str) -> list[NamedObject]:
    """Objects of a video of ``meta.json``, without sentences.

    Args:
        entry: Of the video.
        where: The file and the video, for messages.

    Raises:
        ValueError: If it is of another release.
    """
    objects = value_of(entry, "objects", dict, where)
    for key, value in objects.items():
        value_of(objects, key, dict, where)
        if "frames" in value:
            value_of(value, "frames", list, f"{where} object {key}")
    return [NamedObject(whole_number(key, where), str(value.get("category") or "")) for key, value in objects.items()]
