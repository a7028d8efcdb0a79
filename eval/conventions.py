"""Which frames and objects of a video count: the conventions of benchmarks whose masks are PNGs of object ids.

| convention | frames | objects | ids that the truth lacks |
|---|---|---|---|
| DAVIS, semi-supervised | all but the first and the last | 1 to the highest id of the first true mask | refused |
| DAVIS, unsupervised | all | the same, each with the best proposal of at most 20 | are proposals |
| vos-benchmark | all but the first and the last, or all; of an object from the first on in which either map has it | ids of the true masks of these frames | left out |
| MOSE | all but the first and the last | ids of the first true mask | left out |
| Ref-YouTube-VOS | all | one a sentence, in binary masks | - |

YouTube-VOS and LVOS go by a list: `sam_uniref.eval.youtube_vos`, `sam_uniref.eval.lvos`. A frame in which neither map
has the object counts 1 by all of them, one in which only one map has it counts 0. The mean is over objects (or
sentences), not over videos: `sam_uniref.eval.davis.summarise`.
"""  # noqa: E501 - a table's row is one line

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sam_uniref.eval.davis import ObjectScores, frames_between, object_scores, semi_supervised_objects
from sam_uniref.eval.id_maps import IdMap, ScoredFrame, score_frame
from sam_uniref.eval.proposals import ScoredProposals, score_proposals, unsupervised_objects

Frame = TypeVar("Frame", ScoredFrame, ScoredProposals)

ObjectKey = tuple[str, int]
"""A video's name and an object's id in it."""


@dataclass(frozen=True)
class VideoFrames(Generic[Frame]):
    """A video's scored frames.

    Attributes:
        name: Of the video.
        frames: By stem, in order.
    """

    name: str
    frames: Mapping[str, Frame]

    @property
    def in_order(self) -> list[Frame]:
        """Without their stems."""
        return list(self.frames.values())


@dataclass(frozen=True)
class Convention(Generic[Frame]):
    """How a video is scored.

    Attributes:
        name: For people.
        score: Scores a frame's predicted and true map, in whatever process.
        objects: From all frames of a video to the scores of each object.
        binary: Whether a mask is of one object, and every value above 0 is it; else 255 in the truth is void.
    """

    name: str
    score: Callable[[IdMap, IdMap], Frame]
    objects: Callable[[VideoFrames[Frame]], dict[int, ObjectScores]]
    binary: bool = False


def vos_benchmark_objects(
    frames: Sequence[ScoredFrame], *, skip_first_and_last: bool = True
) -> dict[int, ObjectScores]:
    """One video as PyPI's vos-benchmark counts: an object from the first frame on that has its id in either map.

    Frames that are skipped are not looked at: an object is one if the truth has it in the others. Void counts as
    background; vos-benchmark takes 255 for an object.

    Args:
        frames: All of the video, in order.
        skip_first_and_last: As vos-benchmark does by default.

    Returns:
        Per object id the scores of the frames that count; nothing if the truth has no object in them.
    """
    frames = frames[1:-1] if skip_first_and_last else frames
    scores = {}
    for object_id in sorted(frozenset[int]().union(*(frame.truth for frame in frames))):
        start = next(t for t, frame in enumerate(frames) if object_id in frame.scores)
        scores[object_id] = object_scores(frames[start:], object_id)
    return scores


def mose_objects(frames: Sequence[ScoredFrame]) -> dict[int, ObjectScores]:
    """One video as MOSE is scored: the ids of the first true mask, which need not be 1, 2, 3.

    MOSE's server keeps its program to itself. That the first and the last frame do not count is DAVIS's rule, and what
    people do who score MOSE-like videos themselves.

    Raises:
        ValueError: If there are fewer than 3 frames, or no object in the first one.
    """
    scored = frames_between(frames)
    return {object_id: object_scores(scored, object_id) for object_id in sorted(frames[0].truth)}


DAVIS = Convention[ScoredFrame](
    "DAVIS, semi-supervised",
    score_frame,
    lambda video: semi_supervised_objects(video.in_order, [f"{stem}.png" for stem in video.frames]),
)

DAVIS_UNSUPERVISED = Convention[ScoredProposals](
    "DAVIS, unsupervised", score_proposals, lambda video: unsupervised_objects(video.in_order)
)

VOS_BENCHMARK = Convention[ScoredFrame](
    "vos-benchmark", score_frame, lambda video: vos_benchmark_objects(video.in_order)
)

VOS_BENCHMARK_ALL_FRAMES = Convention[ScoredFrame](
    "vos-benchmark, all frames",
    score_frame,
    lambda video: vos_benchmark_objects(video.in_order, skip_first_and_last=False),
)

MOSE = Convention[ScoredFrame]("MOSE", score_frame, lambda video: mose_objects(video.in_order))

REF_YOUTUBE_VOS = Convention[ScoredFrame](
    "Ref-YouTube-VOS",
    score_frame,
    lambda video: {1: object_scores(video.in_order, 1)},
    binary=True,
)
