"""VOS: objects whose masks are given in the frames where they appear."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from sam_uniref.data.batch import Task
from sam_uniref.data.prepared import decode_mask
from sam_uniref.eval.cases import Clip, Source
from sam_uniref.eval.methods import Method
from sam_uniref.eval.predictions import Prediction
from sam_uniref.eval.protocols.base import MaskFile
from sam_uniref.eval.protocols.tracks import FRAME_RULES, FrameRule, Track, Tracks, encoded
from sam_uniref.images import Mask
from sam_uniref.tracking import FrameResult

_BY_OTHER_CONVENTIONS = {
    "mose": "mose",
    "lvos_v1": "lvos",
    "lvos_v2": "lvos",
    "youtube_vos_2018": "youtube-vos",
    "youtube_vos_2019": "youtube-vos",
}
"""Prepared sets whose benchmarks count other frames or groups, and what `eval/score.py` calls these conventions."""


class VideoObjects(Tracks):
    """All objects of a video are tracked together and compete for pixels; one that appears later joins then.

    Args:
        source: Of the videos.
        frames: Which of the annotated frames are scored. ``davis``: all but the video's first and last, whenever an
            object appears. ``after-first``: those after the one in which the object's mask was given, to the last.

    Raises:
        ValueError: If there is no such rule.
    """

    task: ClassVar[Task] = "vos"

    def __init__(self, source: Source[Clip], frames: FrameRule = "after-first") -> None:
        if frames not in FRAME_RULES:
            raise ValueError(f"frames must be one of {FRAME_RULES}, got {frames!r}")
        super().__init__(source)
        self._rule = frames

    @property
    def conventions(self) -> list[str]:
        """What the metrics mean, in sentences."""
        rule = {
            "davis": "the annotated frames without the video's first and last are scored, as in DAVIS",
            "after-first": "the annotated frames after the one in which its mask was given are scored, to the last",
        }[self._rule]
        told = [f"Masks are given in the frames where objects appear; of an object {rule}.", *super().conventions]
        own = _BY_OTHER_CONVENTIONS.get(str(self.source.made_of["data"]))
        if own is not None:
            told.append(
                f"This is not the convention of the data set's own benchmark: write the masks (--write-masks), and "
                f"score them with eval/score.py --convention {own}."
            )
        return told

    def tracks(self, case: Clip) -> list[Track]:
        """An object each, by its id."""
        if self._rule == "davis":
            return [Track(str(item.id), item, case.annotated[1:-1]) for item in case.objects]
        return [
            Track(str(item.id), item, tuple(frame for frame in case.annotated if frame > item.first))
            for item in case.objects
        ]

    def ask(self, method: Method, case: Clip) -> Prediction:
        """All objects together."""
        return prediction_of(case, follow_objects(method, case))

    def files(self, case: Clip) -> list[MaskFile]:
        """``<video>/<frame's stem>.png``, a map of ids."""
        return id_maps(case, case.name, self.tracks(case))


def follow_objects(method: Method, case: Clip) -> Iterator[FrameResult]:
    """A method's results on a video whose objects' masks are given in their first frames."""
    joining: dict[int, dict[int, Mask]] = {}
    for item in case.objects:
        joining.setdefault(item.first, {})[item.id] = decode_mask(item.masks[item.first])
    return method.track(case.frames(), new_masks=joining)


def prediction_of(case: Clip, results: Iterable[FrameResult]) -> Prediction:
    """What `follow_objects` gave, by the objects' ids."""
    masks = ({str(i): mask for i, mask in result.masks.items()} for result in results)
    return encoded(case, [str(item.id) for item in case.objects], masks)


def id_maps(case: Clip, folder: str, tracks: list[Track]) -> list[MaskFile]:
    """A file a frame in which all tracks are, by their objects' ids; those are needed in which one is scored."""
    needed = {frame for track in tracks for frame in track.frames}
    answers = {track.item.id: track.answer for track in tracks}
    return [
        MaskFile(f"{folder}/{stem}.png", frame, answers, binary=False, needed=frame in needed)
        for frame, stem in enumerate(case.stems)
    ]
