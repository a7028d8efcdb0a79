"""YouTube-VOS: which frames its ``meta.json`` lists for each object, and its categories.

G is `sam_uniref.eval.seen_unseen.seen_and_unseen(...).overall`. The server keeps its program to itself; what is known
is that the frames listed in ``meta.json`` count, after the first of an object, whose mask is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sam_uniref.data.formats.video_listing import read_videos, value_of, whole_number
from sam_uniref.eval.conventions import Convention, ObjectKey, VideoFrames
from sam_uniref.eval.davis import ObjectScores, object_scores
from sam_uniref.eval.id_maps import ScoredFrame, score_frame


@dataclass(frozen=True)
class ListedObject:
    """What ``meta.json`` says of an object.

    Attributes:
        category: Empty where it is not told.
        stems: Of its frames, in order.
    """

    category: str
    stems: tuple[str, ...]


def read_objects(meta: Path) -> dict[ObjectKey, ListedObject]:
    """All objects of a ``meta.json``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is broken, or another release's.
    """
    found = {}
    for name, entry in read_videos(meta).items():
        where = f"{meta} video {name}"
        for key, value in value_of(entry, "objects", dict, where).items():
            stems = tuple(sorted(str(stem) for stem in value_of(value, "frames", list, f"{where} object {key}")))
            found[name, whole_number(key, where)] = ListedObject(str(value.get("category") or ""), stems)
    return found


def youtube_vos(listed: Mapping[ObjectKey, ListedObject]) -> Convention[ScoredFrame]:
    """Each listed object in its listed frames after its first; one that is listed once is not scored.

    Ids that are not listed are left out, and so are videos that are not.

    Args:
        listed: From `read_objects`.
    """

    def objects(video: VideoFrames[ScoredFrame]) -> dict[int, ObjectScores]:
        scores = {}
        for (name, object_id), item in listed.items():
            if name == video.name and len(item.stems) > 1:
                frames = listed_frames(video, item.stems[1:], object_id)
                scores[object_id] = object_scores(frames, object_id)
        return scores

    return Convention("YouTube-VOS", score_frame, objects)


def listed_frames(video: VideoFrames[ScoredFrame], stems: tuple[str, ...], object_id: int) -> list[ScoredFrame]:
    """The frames of a video in which an object is to be scored.

    Raises:
        ValueError: If the truth lacks one, or has the object in none of the video's frames, so that finding nothing
            would be right everywhere: the list is of another release.
    """
    missing = [stem for stem in stems if stem not in video.frames]
    if missing:
        raise ValueError(f"object {object_id} is to be scored in frame {missing[0]}, of which there is no true mask")
    if not any(object_id in frame.truth for frame in video.frames.values()):
        raise ValueError(f"object {object_id} is listed, and no true mask has it")
    return [video.frames[stem] for stem in stems]
