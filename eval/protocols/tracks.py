"""What VOS and RVOS share: J and F of tracked objects, frame by frame, and their means."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sam_uniref.data.prepared import EncodedMask, decode_mask, encode_mask
from sam_uniref.eval.boundaries import boundary_accuracy, region_similarity
from sam_uniref.eval.cases import Clip, ClipObject
from sam_uniref.eval.davis import ObjectScores
from sam_uniref.eval.measures import Metric
from sam_uniref.eval.predictions import Prediction
from sam_uniref.eval.protocols.base import Row, TaskProtocol, at_least_one, mean
from sam_uniref.eval.video_measures import measure_runs
from sam_uniref.images import Mask
from sam_uniref.transforms import Size

FrameRule = Literal["davis", "after-first"]
FRAME_RULES: tuple[FrameRule, ...] = ("davis", "after-first")

_CONVENTION = (
    "J is the IoU of a frame's masks and F the accuracy of their boundaries, as DAVIS defines them; a frame in which "
    "an object is not to be seen scores 1 if nothing is predicted and 0 otherwise. An object's value is the mean over "
    "its scored frames, and a metric the mean over {what}, not over videos. Recall is the share of frames above 0.5, "
    "decay the mean of the first quarter of frames less that of the last: the lower the better, and it may be negative."
)


@dataclass(frozen=True)
class Track:
    """One answer that is scored.

    Attributes:
        answer: What the prediction calls it.
        item: The object that is meant.
        frames: Numbers of the frames that are scored, rising.
        run: Several runs are averaged.
        sentence: That was asked (RVOS).
    """

    answer: str
    item: ClipObject
    frames: tuple[int, ...]
    run: int = 0
    sentence: str = ""


@dataclass(frozen=True)
class TrackScore:
    """J and F of one answer.

    Attributes:
        case: Name of the video.
        answer: What the prediction calls it.
        object_id: The object that is meant.
        frames: Numbers of the frames that were scored.
        run: Several runs are averaged.
        sentence: That was asked (RVOS).
        values: Of the track's frames.
    """

    case: str
    answer: str
    object_id: int
    frames: tuple[int, ...]
    run: int
    sentence: str
    values: ObjectScores

    @property
    def j_and_f(self) -> float:
        """The mean of the means of J and F."""
        return (float(self.values.j.mean()) + float(self.values.f.mean())) / 2


class Tracks(TaskProtocol[Clip, TrackScore]):
    """A video task.

    Attributes:
        counted: What a metric is the mean over, to people.
    """

    counted = "objects"

    @property
    def conventions(self) -> list[str]:
        """What the metrics mean, in sentences."""
        return [_CONVENTION.format(what=self.counted)]

    @abstractmethod
    def tracks(self, case: Clip) -> list[Track]:
        """The answers of a case, with the frames in which each counts; some may have none."""

    def answers(self, case: Clip) -> dict[str, int]:
        """A mask a frame for each track."""
        return {track.answer: len(case.stems) for track in self.tracks(case)}

    def counts(self, case: Clip) -> bool:
        """Whether a track has a frame that is scored."""
        return any(track.frames for track in self.tracks(case))

    def judge(self, case: Clip, prediction: Prediction) -> list[TrackScore]:
        """A score a track that counts in a frame."""
        prediction.check(case.name, case.size, self.answers(case))
        return judge_tracks(case, [track for track in self.tracks(case) if track.frames], prediction)

    def measure(self, scores: Sequence[TrackScore]) -> dict[str, Metric]:
        """J&F, and mean, recall and decay of J and F; several runs are averaged. Videos are the units."""
        at_least_one(scores, self.task)
        videos, runs, values = zip(*((score.case, score.run, score.values) for score in scores), strict=True)
        return measure_runs(videos, runs, values)

    def tables(self, scores: Sequence[TrackScore]) -> dict[str, list[Row]]:
        """``<task>``: a row a track; ``<task>_videos``: a row a video, the mean of its tracks."""
        rows: list[Row] = [
            {
                "video": score.case,
                "answer": score.answer,
                "object": score.object_id,
                "sentence": score.sentence,
                "frames": len(score.frames),
                "J&F": score.j_and_f,
                "J": float(score.values.j.mean()),
                "F": float(score.values.f.mean()),
            }
            for score in scores
        ]
        videos: dict[str, list[Row]] = {}
        for row in rows:
            videos.setdefault(row["video"], []).append(row)
        means: list[Row] = [
            {"video": name, "answers": len(given)} | {key: mean(row[key] for row in given) for key in ("J&F", "J", "F")}
            for name, given in videos.items()
        ]
        return {self.task: rows, f"{self.task}_videos": means}

    def distributions(self, scores: Sequence[TrackScore]) -> dict[str, list[float]]:
        """J&F of the tracks."""
        return {"J&F": [score.j_and_f for score in scores]}


def judge_tracks(case: Clip, tracks: Sequence[Track], prediction: Prediction) -> list[TrackScore]:
    """J and F of tracks in their frames; all tracks of a frame are compared in one pass.

    Args:
        case: The video.
        tracks: Each with a frame at least.
        prediction: Of the video.
    """
    j: dict[str, list[float]] = {track.answer: [] for track in tracks}
    f: dict[str, list[float]] = {track.answer: [] for track in tracks}
    for frame in sorted({frame for track in tracks for frame in track.frames}):
        here = [track for track in tracks if frame in track.frames]
        predicted = np.stack([prediction.mask(track.answer, frame) for track in here])
        truth = np.stack([_true_mask(track.item, frame, case.size) for track in here])
        similarity, accuracy = region_similarity(predicted, truth), boundary_accuracy(predicted, truth)
        for place, track in enumerate(here):
            j[track.answer].append(float(similarity[place]))
            f[track.answer].append(float(accuracy[place]))
    return [
        TrackScore(
            case.name,
            track.answer,
            track.item.id,
            track.frames,
            track.run,
            track.sentence,
            ObjectScores(np.array(j[track.answer]), np.array(f[track.answer])),
        )
        for track in tracks
    ]


def encoded(case: Clip, answers: Iterable[str], frames: Iterable[Mapping[str, Mask]]) -> Prediction:
    """A prediction, each frame's masks encoded as soon as they are there.

    Args:
        case: The video.
        answers: All of them.
        frames: For each frame ``(H, W)`` bool masks by answer; an answer without one has an empty mask there.

    Raises:
        ValueError: If there is not a result for every frame.
    """
    nothing = encode_mask(np.zeros(case.size, bool))
    masks: dict[str, list[EncodedMask]] = {answer: [] for answer in answers}
    count = 0
    for given in frames:
        for answer, found in masks.items():
            found.append(encode_mask(given[answer]) if answer in given else nothing)
        count += 1
    if count != len(case.stems):
        raise ValueError(f"{case.name} has {len(case.stems)} frames, the method answered {count}")
    return Prediction(case.size, masks)


def over_time(scores: Sequence[TrackScore], parts: int = 20) -> list[float]:
    """J&F by the place in the video: the mean over all tracks' frames in each of so many equal parts of their time.

    A part in which no track has a frame is left out.
    """
    sums, counts = np.zeros(parts), np.zeros(parts)
    for score in scores:
        frames = (score.values.j + score.values.f) / 2
        place = np.arange(len(frames)) * parts // len(frames)
        sums += np.bincount(place, frames, minlength=parts)
        counts += np.bincount(place, minlength=parts)
    told: list[float] = (sums[counts > 0] / counts[counts > 0]).tolist()
    return told


def _true_mask(item: ClipObject, frame: int, size: Size) -> Mask:
    """``(H, W)`` bool; empty where the object is not seen."""
    encoded = item.masks.get(frame)
    return np.zeros(size, bool) if encoded is None else decode_mask(encoded)
