"""What is reported of the objects of videos, with 95 % intervals: videos are the units that are drawn again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from sam_uniref.eval.conventions import ObjectKey
from sam_uniref.eval.davis import ObjectScores, frame_statistics, summarise
from sam_uniref.eval.lvos import LvosScores, stability
from sam_uniref.eval.measures import Metric, Units, Values, mean_of_known_ratios
from sam_uniref.eval.seen_unseen import SeenUnseenScores

_UNIT = "video"


def measure_runs(videos: Sequence[str], runs: Sequence[int], values: Sequence[ObjectScores]) -> dict[str, Metric]:
    """J&F, and mean, recall and decay of J and F: of each run the mean over its objects, then the mean over the runs.

    Args:
        videos: Of each object of each run, the video that it is in.
        runs: The run.
        values: Its scores.

    Raises:
        ValueError: If there is no object, or one without a frame.
    """
    units = Units(videos, _UNIT)
    of_run = {run: np.array([one == run for one in runs], np.float64) for run in sorted({*runs})}
    of_runs = [summarise([scores for scores, one in zip(values, runs, strict=True) if one == run]) for run in of_run]

    def metric(told: Sequence[float], *samples: Values) -> Metric:
        ratios = ((numbers * member, member) for numbers in samples for member in of_run.values())
        return units.metric(sum(told) / len(told), *ratios)

    j, f = (_statistics(scores.j for scores in values), _statistics(scores.f for scores in values))
    metrics = {"J&F": metric([run.j_and_f for run in of_runs], j["mean"], f["mean"])}
    for statistic, ending in (("mean", ""), ("recall", "_recall"), ("decay", "_decay")):
        metrics[f"J{ending}"] = metric([getattr(run.j, statistic) for run in of_runs], j[statistic])
        metrics[f"F{ending}"] = metric([getattr(run.f, statistic) for run in of_runs], f[statistic])
    return metrics


def measure_groups(
    scores: SeenUnseenScores, objects: Mapping[ObjectKey, ObjectScores], unseen: Collection[ObjectKey], overall: str
) -> dict[str, Metric]:
    """The mean of J and F over both groups, then J and F, of LVOS also V: of both groups and of each.

    A video may have objects of both groups. In a draw without an object of one of them the other's mean counts, as it
    does in the metric itself; a group's own number is drawn from the videos that have such objects.

    Args:
        scores: Summary of the objects.
        objects: Scores of each.
        unseen: Which are.
        overall: What the benchmark calls the first number.
    """
    videos = [video for video, _ in objects]
    member = np.array([key in unseen for key in objects])
    units, weights = Units(videos, _UNIT), {"seen": (~member).astype(np.float64), "unseen": member.astype(np.float64)}

    def metric(value: float, *samples: Values) -> Metric:
        ratios = ((numbers * weight, weight) for numbers in samples for weight in weights.values())
        return units.metric(value, *ratios, statistic=mean_of_known_ratios)

    j, f = (np.array([getattr(scores, which).mean() for scores in objects.values()]) for which in ("j", "f"))
    quantities = {"J": (scores.j, j), "F": (scores.f, f)}
    if isinstance(scores, LvosScores):
        quantities["V"] = (scores.v, np.array([stability(scores) for scores in objects.values()]))
    metrics = {overall: metric(scores.overall, j, f)}
    for name, (means, numbers) in quantities.items():
        metrics[name] = metric(means.mean, numbers)
        for group, value in (("seen", means.seen), ("unseen", means.unseen)):
            if value is not None:
                here = weights[group] > 0
                alone = Units([video for video, there in zip(videos, here, strict=True) if there], _UNIT)
                metrics[f"{name}_{group}"] = alone.metric(value, (numbers[here], weights[group][here]))
    return metrics


def _statistics(objects: Iterable[Values]) -> dict[str, Values]:
    """Mean, recall and decay of each object's frames, ``(objects,)`` each."""
    told = [frame_statistics(values) for values in objects]
    return {name: np.array([getattr(one, name) for one in told]) for name in ("mean", "recall", "decay")}
