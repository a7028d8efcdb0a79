"""J and F over whole videos, as the DAVIS-2017 program summarises them, and its semi-supervised rules.

Notation: T frames of H x W pixels. Scores are in 0-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam_uniref.eval.boundaries import Values
from sam_uniref.eval.id_maps import ScoredFrame, score_frame

RECALL_THRESHOLD = 0.5
_QUARTERS = 4

IdMaps = NDArray[np.integer]


@dataclass(frozen=True)
class FrameStatistics:
    """What is reported of the values of an object's frames, or the mean of such over objects.

    Attributes:
        mean: In 0-1.
        recall: Share of frames with a value above 0.5, in 0-1.
        decay: Mean of the first quarter less mean of the last, in [-1, 1]; the lower the better.
    """

    mean: float
    recall: float
    decay: float


@dataclass(frozen=True)
class ObjectScores:
    """Per-frame J and F of one object, ``(frames scored,)`` each, in 0-1."""

    j: Values
    f: Values


@dataclass(frozen=True)
class VideoScores:
    """Means over objects, not over videos.

    Attributes:
        j: Of region similarity.
        f: Of boundary accuracy.
    """

    j: FrameStatistics
    f: FrameStatistics

    @property
    def j_and_f(self) -> float:
        """J&F: the mean of the two means."""
        return (self.j.mean + self.f.mean) / 2


def frame_statistics(values: Sequence[float] | Values) -> FrameStatistics:
    """Mean, recall and decay of an object's frames.

    The quarters share the frames at their edges: for n frames these are round(linspace(1, n, 5)), halves up. The
    official program keeps them in a byte and is wrong beyond 256 frames; this is right.

    Raises:
        ValueError: If there is no frame.
    """
    frames = np.asarray(values, np.float64)
    if not frames.size:
        raise ValueError("there is no frame to take a mean over")
    edges = np.floor(np.linspace(1, len(frames), _QUARTERS + 1) + 0.5 + 1e-10).astype(np.int64) - 1
    first, last = frames[: edges[1] + 1], frames[edges[-2] :]
    recall = float((frames > RECALL_THRESHOLD).mean())
    return FrameStatistics(float(frames.mean()), recall, float(first.mean() - last.mean()))


def summarise(objects: Sequence[ObjectScores]) -> VideoScores:
    """The mean over objects of what is reported of each: DAVIS, MOSE, and Ref-YouTube-VOS over expressions.

    Raises:
        ValueError: If there is no object, or one without a frame.
    """
    if not objects:
        raise ValueError("there is no object to take a mean over")
    j, f = ([frame_statistics(v) for v in values] for values in zip(*((o.j, o.f) for o in objects), strict=True))
    return VideoScores(mean_statistics(j), mean_statistics(f))


def mean_statistics(statistics: Sequence[FrameStatistics]) -> FrameStatistics:
    """The mean over objects, or over runs."""
    means = np.array([(s.mean, s.recall, s.decay) for s in statistics]).mean(axis=0)
    return FrameStatistics(*means.tolist())


def object_scores(frames: Sequence[ScoredFrame], object_id: int) -> ObjectScores:
    """An object's J and F in every frame given; 1 where neither map has it."""
    scores = np.array([frame.of(object_id) for frame in frames], np.float64).reshape(-1, 2)
    return ObjectScores(scores[:, 0], scores[:, 1])


def frames_between(frames: Sequence[ScoredFrame]) -> Sequence[ScoredFrame]:
    """All but the first frame, whose mask is given, and the last.

    Raises:
        ValueError: If there are fewer than 3 frames, or no object in the first one.
    """
    if len(frames) < 3:
        raise ValueError(f"the first and the last frame are not scored; at least 3 are needed, got {len(frames)}")
    if not frames[0].truth:
        raise ValueError("the first true mask has no object")
    return frames[1:-1]


def semi_supervised_objects(frames: Sequence[ScoredFrame], names: Sequence[str] = ()) -> dict[int, ObjectScores]:
    """One video by DAVIS's semi-supervised rules, from all its frames in order.

    The first frame is given and the last is not scored. Objects are 1 to the highest id of the first true mask,
    whether they are in it or not. Void counts as background. A predicted id that is missing is an empty mask.

    Args:
        frames: Of the video.
        names: Of the frames, for messages; their numbers from 0 on by default.

    Returns:
        Per object id the scores of T - 2 frames.

    Raises:
        ValueError: If there are fewer than 3 frames or no object, or an id is predicted that the truth lacks.
    """
    scored, count = frames_between(frames), max(frames[0].truth)
    for name, frame in zip(names or map(str, range(len(frames))), frames, strict=True):
        most = max(frame.predicted, default=0)
        if most > count:
            raise ValueError(f"object {most} is predicted in frame {name}, but the truth has only the ids 1-{count}")
    return {object_id: object_scores(scored, object_id) for object_id in range(1, count + 1)}


def semi_supervised(predicted: IdMaps, truth: IdMaps) -> dict[int, ObjectScores]:
    """`semi_supervised_objects` of maps of ids.

    Args:
        predicted: ``(T, H, W)`` object ids, 0 = background.
        truth: ``(T, H, W)`` object ids, 255 = void.

    Raises:
        ValueError: If the shapes differ, and where `semi_supervised_objects` does.
    """
    check_alike(predicted, truth)
    return semi_supervised_objects([score_frame(p, t) for p, t in zip(predicted, truth, strict=True)])


def score_ids(predicted: IdMaps, truth: IdMaps, object_ids: Sequence[int]) -> dict[int, ObjectScores]:
    """Per-frame J and F of the objects of a video, in every frame given.

    Args:
        predicted: ``(T, H, W)`` object ids.
        truth: ``(T, H, W)`` object ids.
        object_ids: Which to score.

    Raises:
        ValueError: If the shapes differ.
    """
    check_alike(predicted, truth)
    frames = [score_frame(p, t) for p, t in zip(predicted, truth, strict=True)]
    return {object_id: object_scores(frames, object_id) for object_id in object_ids}


def check_alike(predicted: IdMaps, truth: IdMaps) -> None:
    """Refuse maps ``(T, H, W)`` of different shapes.

    Raises:
        ValueError: With both shapes.
    """
    if predicted.shape != truth.shape or truth.ndim != 3:
        raise ValueError(f"ids must be (T, H, W) and alike, got {predicted.shape} and {truth.shape}")
