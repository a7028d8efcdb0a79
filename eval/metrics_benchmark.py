"""What J&F of folders of masks costs: ours in one process and in more, beside PyPI's vos-benchmark, and the floor.

All of them look at the same frames by the same convention, in turn, so that whatever else the machine does is shared
fairly. The first round starts processes and reads files anew; it is told apart. vos-benchmark is measured if it is
installed (the extra ``bench``); it runs on a copy of the predictions, since it writes into their folder.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from sam_uniref.eval.conventions import VOS_BENCHMARK, ObjectKey
from sam_uniref.eval.davis import ObjectScores
from sam_uniref.eval.score_videos import list_masks, load_pair, score_videos
from sam_uniref.state import write_json

# vos-benchmark's values are in percent.
_PERCENT = 100

Means = dict[ObjectKey, tuple[float, float]]
"""Mean J and F of each object, in 0-1."""


@dataclass(frozen=True)
class Cost:
    """One way to get J and F of all frames.

    Attributes:
        what: ``floor`` is reading the PNGs alone, in one process.
        processes: That work.
        seconds_first: Of the round before the runs, with all that is done once, such as starting processes.
        seconds_median: Of the runs.
        seconds_least: Of the runs.
        of_vos_benchmark: How many times as fast, by the medians; None without vos-benchmark.
    """

    what: str
    processes: int
    seconds_first: float
    seconds_median: float
    seconds_least: float
    of_vos_benchmark: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``benchmark.py metrics``."""
    parser.add_argument("--truth", type=Path, required=True, metavar="FOLDER", help="<video>/<stem>.png, maps of ids")
    parser.add_argument("--predictions", type=Path, required=True, metavar="FOLDER", help="the same, as predicted")
    parser.add_argument("--runs", type=int, default=3, help="of each, after one that is told apart")
    parser.add_argument("--workers", type=int, default=2, help="processes of the parallel run")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures")


def run(arguments: argparse.Namespace) -> None:
    """Measure, show, write.

    Raises:
        FileNotFoundError: If a mask is missing.
        ValueError: If a number is too small, or a mask does not fit.
    """
    for name, least in (("runs", 1), ("workers", 2)):
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name} must be at least {least}, got {getattr(arguments, name)}")
    theirs, why_not = _vos_benchmark()
    listed = list_masks(arguments.predictions, arguments.truth)
    frames = sum(len(pairs) for pairs in listed.values())
    with tempfile.TemporaryDirectory() as folder:
        copies = {name: Path(folder) / name for name in ("truth", "predictions")}
        for name, copy in copies.items():
            for video in listed:
                shutil.copytree(getattr(arguments, name) / video, copy / video)
        costs, difference = measure(copies["truth"], copies["predictions"], theirs, arguments.runs, arguments.workers)
    figures = {"cores": os.cpu_count(), "frames": frames, "runs": arguments.runs, "largest_difference": difference}
    if arguments.json is not None:
        write_json(arguments.json, {**figures, "rows": [asdict(cost) for cost in costs]})
    shown = Table(*asdict(costs[0]), title=f"J&F of {frames} frames, {arguments.runs} runs of each")
    for cost in costs:
        cells = (f"{value:.3f}" if isinstance(value, float) else str(value or "") for value in asdict(cost).values())
        shown.add_row(*cells)
    console = Console(width=110)
    console.print(shown)
    if difference is None:
        console.print(
            f"vos-benchmark was left out: {why_not}; pip install 'sam_uniref[bench]'", markup=False, soft_wrap=True
        )
    else:
        console.print(f"Largest difference from vos-benchmark's J and F: {difference:.1e}")


def measure(
    truth: Path, predictions: Path, theirs: ModuleType | None, runs: int, workers: int
) -> tuple[list[Cost], float | None]:
    """Time every way, in turn; also how far our values and vos-benchmark's are apart, None without it."""
    ways: dict[tuple[str, int], Callable[[], Any]] = {
        ("floor", 1): lambda: _read(predictions, truth),
        ("ours", 1): lambda: score_videos(predictions, truth, VOS_BENCHMARK, workers=0),
        ("ours", workers): lambda: score_videos(predictions, truth, VOS_BENCHMARK, workers=workers),
    }
    if theirs is not None:
        benchmark = theirs.benchmark
        ways["vos-benchmark", 1] = lambda: benchmark([str(truth)], [str(predictions)], num_processes=1, verbose=False)
    seconds: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
    results: dict[tuple[str, int], Any] = {}
    for _ in range(1 + runs):
        for way, work in ways.items():
            start = time.perf_counter()
            results[way] = work()
            seconds[way].append(time.perf_counter() - start)
    medians = {way: statistics.median(times[1:]) for way, times in seconds.items()}
    slow = medians.get(("vos-benchmark", 1))
    costs = [
        Cost(*way, times[0], medians[way], min(times[1:]), None if slow is None else slow / medians[way])
        for way, times in seconds.items()
    ]
    if theirs is None:
        return costs, None
    expected = _their_means(results["vos-benchmark", 1])
    return costs, max(_difference(_our_means(results["ours", count]), expected) for count in (1, workers))


def _vos_benchmark() -> tuple[ModuleType | None, str]:
    """Its module, or why it can't be imported: it may be there and lack a package of its own."""
    try:
        return importlib.import_module("vos_benchmark.benchmark"), ""
    except ImportError as error:
        return None, str(error)


def _read(predictions: Path, truth: Path) -> None:
    """Every PNG, and nothing else."""
    for pairs in list_masks(predictions, truth).values():
        for predicted, true in pairs:
            load_pair(predicted, true, binary=False)


def _our_means(scores: dict[ObjectKey, ObjectScores]) -> Means:
    """Of each object over its frames."""
    return {key: (float(s.j.mean()), float(s.f.mean())) for key, s in scores.items()}


def _their_means(result: tuple[Any, ...]) -> Means:
    """From what vos-benchmark returns for one data set."""
    return {
        (video, int(object_id)): (j[object_id] / _PERCENT, f[object_id] / _PERCENT)
        for video, (j, f) in result[3][0].items()
        for object_id in j
    }


def _difference(ours: Means, theirs: Means) -> float:
    """The largest of any object that both have; vos-benchmark also has void for one."""
    pairs = [(value, theirs[key]) for key, value in ours.items() if key in theirs]
    return max((abs(a - b) for mine, other in pairs for a, b in zip(mine, other, strict=True)), default=0.0)
