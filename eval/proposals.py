"""DAVIS's unsupervised rules, by which Ref-DAVIS17 is scored too: ids mean nothing, the best assignment counts.

Notation: K objects, P proposals for them, T frames of H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sam_uniref.data.formats.files import VOID
from sam_uniref.eval.boundaries import Values, boundary_accuracy_of_all, region_similarity_of_all
from sam_uniref.eval.davis import IdMaps, ObjectScores, VideoScores, check_alike, mean_statistics
from sam_uniref.eval.id_maps import IdMap, check_sizes, ids_in

MOST_PROPOSALS = 20
REF_DAVIS_RUNS = 4


@dataclass(frozen=True)
class ScoredProposals:
    """One frame, every proposal against every true object. Row p is proposal p + 1, column k is object k + 1.

    Attributes:
        j: ``(P + 1, K + 1)`` in 0-1; the last row is of an empty proposal, the last column of an absent object.
        f: As ``j``.
    """

    j: Values
    f: Values

    def padded(self, proposals: int, objects: int) -> tuple[Values, Values]:
        """J and F of so many proposals for so many objects, ``(proposals, objects)`` each; what is not there is empty.

        Args:
            proposals: At least P.
            objects: Any number.
        """
        rows = np.minimum(np.arange(proposals), self.j.shape[0] - 1)
        columns = np.minimum(np.arange(objects), self.j.shape[1] - 1)
        return self.j[np.ix_(rows, columns)], self.f[np.ix_(rows, columns)]


def score_proposals(predicted: IdMap, truth: IdMap) -> ScoredProposals:
    """J and F of every proposal of one frame for every object. Void pixels of the truth count for neither.

    Args:
        predicted: ``(H, W)`` numbers of proposals, from 1 to 20.
        truth: ``(H, W)`` object ids, from 1; 255 = void.

    Raises:
        ValueError: If the sizes differ, or there is a proposal above 20.
    """
    check_sizes(predicted, truth)
    proposals, objects = (max(ids_in(ids), default=0) for ids in (predicted, truth))
    if proposals > MOST_PROPOSALS:
        raise ValueError(f"proposal {proposals} is predicted; at most {MOST_PROPOSALS} are allowed, from 1 on")
    # One more of each, which no pixel has.
    masks = np.stack([*(predicted == p for p in range(1, proposals + 1)), np.zeros(truth.shape, bool)])
    wanted = np.stack([*(truth == k for k in range(1, objects + 1)), np.zeros(truth.shape, bool)])
    void = truth == VOID
    j, f = (score(masks, wanted, void=void) for score in (region_similarity_of_all, boundary_accuracy_of_all))
    return ScoredProposals(j, f)


def unsupervised_objects(frames: Sequence[ScoredProposals]) -> dict[int, ObjectScores]:
    """One video by DAVIS's unsupervised rules, from all its frames in order.

    All frames are scored, the first and the last too. Objects are 1 to the highest id of the first true mask. Void
    pixels count for neither side. Every object gets one proposal, no two the same, such that the sum over objects of
    (mean J + mean F) / 2 is largest. Proposals are 1 to the highest id of the video, or as many as objects where that
    is more: those that are missing are empty.

    Returns:
        Per true object id the scores of T frames of its proposal. (The official program numbers its rows by proposal.)

    Raises:
        ValueError: If there is no frame, or no object in the first one.
    """
    # Imported here: it takes a while, and nothing else needs it.
    from scipy.optimize import linear_sum_assignment

    if not frames:
        raise ValueError("there is no frame to score")
    objects = frames[0].j.shape[1] - 1
    if not objects:
        raise ValueError("the first true mask has no object")
    proposals = max(objects, *(frame.j.shape[0] - 1 for frame in frames))
    padded = [frame.padded(proposals, objects) for frame in frames]
    j, f = (np.stack(values) for values in zip(*padded, strict=True))
    worth = (j.mean(axis=0) + f.mean(axis=0)) / 2
    chosen = zip(*linear_sum_assignment(worth, maximize=True), strict=True)
    by_object = {int(k) + 1: ObjectScores(j[:, p, k], f[:, p, k]) for p, k in chosen}
    return dict(sorted(by_object.items()))


def unsupervised(predicted: IdMaps, truth: IdMaps) -> dict[int, ObjectScores]:
    """`unsupervised_objects` of maps of ids.

    Args:
        predicted: ``(T, H, W)`` numbers of proposals, 0 = none.
        truth: ``(T, H, W)`` object ids, 255 = void.

    Raises:
        ValueError: If the shapes differ, and where `score_proposals` and `unsupervised_objects` do.
    """
    check_alike(predicted, truth)
    return unsupervised_objects([score_proposals(p, t) for p, t in zip(predicted, truth, strict=True)])


def mean_of_ref_davis_runs(runs: Sequence[VideoScores]) -> VideoScores:
    """Ref-DAVIS17: the mean of four runs, two annotators' sentences for the first frame and for the whole video.

    Args:
        runs: Each summarised over all objects by the unsupervised rules.

    Raises:
        ValueError: If there are not four.
    """
    if len(runs) != REF_DAVIS_RUNS:
        raise ValueError(f"Ref-DAVIS17 has {REF_DAVIS_RUNS} runs, a set of sentences each, got {len(runs)}")
    return VideoScores(mean_statistics([run.j for run in runs]), mean_statistics([run.f for run in runs]))
