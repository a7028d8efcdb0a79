"""LVOS: every 5th frame from where an object starts to where it ends, seen and unseen videos, and the stability V."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam_uniref.data.formats.video_listing import read_videos, value_of, whole_number
from sam_uniref.eval.conventions import Convention, ObjectKey, VideoFrames
from sam_uniref.eval.davis import ObjectScores, object_scores
from sam_uniref.eval.id_maps import ScoredFrame, score_frame
from sam_uniref.eval.seen_unseen import GroupMeans, SeenUnseenScores, group_means, seen_and_unseen
from sam_uniref.eval.youtube_vos import listed_frames

FRAME_STEP = 5
# The official program rounds a variance to so many decimals before it takes the root.
_VARIANCE_DECIMALS = 4


@dataclass(frozen=True)
class LvosScores(SeenUnseenScores):
    """J, F and V by group.

    Attributes:
        v: `stability`; the lower the better.
    """

    v: GroupMeans


def stability(scores: ObjectScores, *, decimals: int | None = _VARIANCE_DECIMALS) -> float:
    """V of one object: how far (J + F) / 2 wanders from its own mean over the frames, as a root of the mean square.

    The lower the better; an object that is never found has 0.

    Args:
        scores: Of its frames.
        decimals: That the variance is rounded to, 4 in the official program; None: it is not rounded.

    Returns:
        In 0-0.5.

    Raises:
        ValueError: If there is no frame.
    """
    both = (scores.j + scores.f) / 2
    if not both.size:
        raise ValueError("there is no frame to take a mean over")
    variance = float(np.var(both))
    return math.sqrt(variance if decimals is None else np.round(variance, decimals))


def summarise_lvos(objects: Mapping[ObjectKey, ObjectScores], unseen: Collection[ObjectKey]) -> LvosScores:
    """J, F and V as LVOS reports them: the mean over each group's objects, then over the groups.

    Args:
        objects: Scores of each.
        unseen: Which are; `seen_unseen.in_videos` of the official list of videos.

    Raises:
        ValueError: If there is no object, or one without a frame.
    """
    scores = seen_and_unseen(objects, unseen)
    return LvosScores(scores.j, scores.f, group_means({key: stability(s) for key, s in objects.items()}, unseen))


def read_ranges(meta: Path) -> dict[ObjectKey, range]:
    """Frame numbers of each object in a ``*_meta.json``: from its start, the given frame too, to before its end.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is broken, another release's, or an object ends where it starts.
    """
    found = {}
    for name, entry in read_videos(meta).items():
        for key, value in value_of(entry, "objects", dict, f"{meta} video {name}").items():
            where = f"{meta} video {name} object {key}"
            span = value_of(value, "frame_range", dict, where)
            start, end = (_frame_number(span, side, where) for side in ("start", "end"))
            if start >= end:
                raise ValueError(f"{where}: it starts in frame {start} and ends in {end}")
            found[name, whole_number(key, where)] = range(start, end, FRAME_STEP)
    return found


def lvos(ranges: Mapping[ObjectKey, range]) -> Convention[ScoredFrame]:
    """Each object in its frames. Void counts as background; ids and videos that are not listed are left out.

    Args:
        ranges: From `read_ranges`.
    """

    def objects(video: VideoFrames[ScoredFrame]) -> dict[int, ObjectScores]:
        stems = {int(stem): stem for stem in video.frames if stem.isdecimal()}
        scores = {}
        for (name, object_id), numbers in ranges.items():
            if name == video.name:
                wanted = tuple(stems.get(number, f"{number:08d}") for number in numbers)
                scores[object_id] = object_scores(listed_frames(video, wanted, object_id), object_id)
        return scores

    return Convention("LVOS", score_frame, objects)


def _frame_number(span: Mapping[str, Any], side: str, where: str) -> int:
    """A side of a ``frame_range``, which is written with leading zeros in a string."""
    written = str(value_of(span, side, (str, int), where))
    if not written.isdecimal():
        raise ValueError(f"{where}: frame_range {side} must be a frame's number, got {written!r}")
    return int(written)
