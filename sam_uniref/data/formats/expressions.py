"""``meta_expressions.json``: what is said of each video, as Ref-YouTube-VOS and MeViS write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sam_uniref.data.formats.video_listing import value_of
from sam_uniref.data.formats.video_masks import Track
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import VideoObject


@dataclass(frozen=True)
class Expression:
    """One sentence.

    Attributes:
        key: What results call it.
        text: The sentence.
        entry: All that the file says of it.
    """

    key: str
    text: str
    entry: Mapping[str, Any]


def read_expressions(
    entry: Mapping[str, Any], video: str, where: str, problems: Problems
) -> tuple[list[str], list[Expression]]:
    """A video's stems of frames, and its sentences in the file's order; an empty sentence is counted.

    Args:
        entry: Of the video: ``{"expressions": {key: {"exp": ...}}, "frames": [...]}``.
        video: Its name.
        where: The file and the video, for messages.
        problems: Takes what can't be used.

    Raises:
        ValueError: If it is of another release.
    """
    frames = [str(stem) for stem in value_of(entry, "frames", list, where)]
    expressions = []
    for key, value in value_of(entry, "expressions", dict, where).items():
        text = str(value_of(value, "exp", str, f"{where} expression {key}")).strip()
        if text:
            expressions.append(Expression(key, text, value))
        else:
            problems.broken("empty sentence", f"{video}: {key}")
    return frames, expressions


def expression_objects(
    expressions: Sequence[Expression], tracks: Mapping[str, Track] | None
) -> tuple[VideoObject, ...]:
    """An object an expression.

    Args:
        expressions: Of a video.
        tracks: Masks by the expressions' keys; without them objects have the id 0 and no masks. With them the ids
            are running numbers from 1; an expression without a track is left out, its number stays free.
    """
    if tracks is None:
        return tuple(VideoObject(0, "", -1, (), (), (item.text,), (item.key,)) for item in expressions)
    objects = []
    for number, item in enumerate(expressions, start=1):
        track = tracks.get(item.key)
        if track is None:
            continue
        first = track.frames[0] if track.frames else -1
        sentence = ((item.text,), (item.key,))
        objects.append(VideoObject(number, "", first, tuple(track.frames), tuple(track.rles), *sentence))
    return tuple(objects)
