"""RVOS with all objects of a video asked together, as Ref-DAVIS17 has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.batch import Task
from sam_uniref.data.prepared import decode_mask
from sam_uniref.eval.cases import Clip, Source
from sam_uniref.eval.methods import Method
from sam_uniref.eval.predictions import Prediction
from sam_uniref.eval.proposals import score_proposals, unsupervised_objects
from sam_uniref.eval.protocols.base import MaskFile
from sam_uniref.eval.protocols.tracks import Track, Tracks, TrackScore, encoded
from sam_uniref.eval.protocols.video_objects import id_maps
from sam_uniref.images import Mask
from sam_uniref.transforms import Size

Match = Literal["best", "id"]
MATCHES: tuple[Match, ...] = ("best", "id")


class MergedSentences(Tracks):
    """Objects compete for pixels, as Ref-DAVIS17 has it: a run asks for the k-th sentence of every object together.

    There are as many runs as an object has sentences at most; metrics are averaged over them. All annotated frames are
    scored.

    Args:
        source: Of the videos.
        match: What an object is scored by. ``best``: the answer that fits it best over the whole video, no two the
            same (DAVIS's unsupervised protocol, by which Ref-DAVIS17 is published); objects with an id above those
            of the first annotated frame are not scored. ``id``: the answer to its own sentence.

    Raises:
        ValueError: If there is no such way to match.
    """

    task: ClassVar[Task] = "rvos"
    counted = "objects and then over runs"

    def __init__(self, source: Source[Clip], match: Match = "best") -> None:
        if match not in MATCHES:
            raise ValueError(f"match must be one of {MATCHES}, got {match!r}")
        super().__init__(source)
        self._match = match
        self.options = {"merge": True}

    @property
    def conventions(self) -> list[str]:
        """What the metrics mean, in sentences."""
        told = (
            "The k-th sentences of all objects of a video are asked together, and objects compete for pixels: run k. "
            "All annotated frames are scored. "
        )
        matched = {
            "best": "Each object is scored by the answer that fits it best over the video, no two the same, as in "
            "DAVIS's unsupervised protocol; void pixels, which prepared sets do not know, count as background.",
            "id": "Each object is scored by the answer to its own sentence (Ref-DAVIS17 is published otherwise).",
        }[self._match]
        return [told + matched, *super().conventions]

    def tracks(self, case: Clip) -> list[Track]:
        """An object a run; where the best answer counts, those above the first frame's ids have no frames."""
        objects = sorted(case.objects, key=lambda item: item.id)
        counted = len(objects)
        if self._match == "best":
            first = set(case.annotated[:1])
            counted = max(
                (place for place, item in enumerate(objects, start=1) if first & item.masks.keys()), default=0
            )
        return [
            Track(f"{run}/{item.id}", item, case.annotated if place <= counted else (), run, text)
            for place, item in enumerate(objects, start=1)
            for run, text in enumerate(item.sentences.values())
        ]

    def judge(self, case: Clip, prediction: Prediction) -> list[TrackScore]:
        """A score an object and run."""
        if self._match == "id":
            return super().judge(case, prediction)
        prediction.check(case.name, case.size, self.answers(case))
        return [score for tracks in self._runs(case).values() for score in best_matches(case, tracks, prediction)]

    def _runs(self, case: Clip) -> dict[int, list[Track]]:
        """The tracks of each run."""
        runs: dict[int, list[Track]] = {}
        for track in self.tracks(case):
            runs.setdefault(track.run, []).append(track)
        return runs

    def ask(self, method: Method, case: Clip) -> Prediction:
        """The runs take turns, a frame of each."""
        frames = case.frames()
        runs = [{track.item.id: track.sentence for track in tracks} for tracks in self._runs(case).values()]
        in_step = zip(*(method.track(frames, texts=texts) for texts in runs), strict=True)
        masks = ({f"{run}/{i}": m for run, r in enumerate(results) for i, m in r.masks.items()} for results in in_step)
        return encoded(case, self.answers(case), masks)

    def files(self, case: Clip) -> list[MaskFile]:
        """``anno_<run>/<video>/<frame's stem>.png``, a map of ids, as ReferFormer and UniRef name the four runs."""
        runs = self._runs(case)
        return [file for run, tracks in runs.items() for file in id_maps(case, f"anno_{run}/{case.name}", tracks)]


def best_matches(case: Clip, tracks: Sequence[Track], prediction: Prediction) -> list[TrackScore]:
    """J and F of the tracks of a run, each object by the answer that fits it best; see `unsupervised_objects`.

    Args:
        case: The video.
        tracks: By rising id of their objects; those without frames are answers, and no objects.
        prediction: Of the video.
    """
    scored = [track for track in tracks if track.frames]
    frames = []
    for frame in case.annotated:
        predicted = _id_map([prediction.mask(track.answer, frame) for track in tracks], case.size)
        known = [track.item.masks.get(frame) for track in scored]
        truth = [np.zeros(case.size, bool) if mask is None else decode_mask(mask) for mask in known]
        frames.append(score_proposals(predicted, _id_map(truth, case.size)))
    if not frames or frames[0].j.shape[1] < 2:  # no object but the absent one
        return []
    values = unsupervised_objects(frames)
    return [
        TrackScore(case.name, track.answer, track.item.id, track.frames, track.run, track.sentence, values[place])
        for place, track in enumerate(scored, start=1)
        if place in values
    ]


def _id_map(masks: Sequence[Mask], size: Size) -> NDArray[np.int64]:
    """``(H, W)``: mask k as id k + 1."""
    ids = np.zeros(size, np.int64)
    for place, mask in enumerate(masks, start=1):
        ids[mask] = place
    return ids
