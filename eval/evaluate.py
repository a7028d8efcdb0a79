"""Evaluate a model on one task, several or all four, on RefShapes or on a prepared split.

    python eval/evaluate.py --model runs/folder/model --data refshapes --task all --out results/mine
    python eval/evaluate.py --model runs/folder/model --data data/refcoco --split testA --task ris --out results/testA
    python eval/evaluate.py --model runs/folder/model --data data/davis2017 --split val --task vos --out results/davis
    # PerSAM on the same SAM, and on a released one
    python eval/evaluate.py --method persam --model runs/folder/model --task fss --out results/persam
    python eval/evaluate.py --method persam --model vit_b --checkpoint sam_vit_b_01ec64.pth --task fss --out results/b
    # the paper's ablation: sentences without the masks predicted so far
    python eval/evaluate.py --model runs/folder/model --task rvos --frame-references none --out results/language
    # several processes share the cases, and give the same numbers
    accelerate launch --num_processes 4 eval/evaluate.py --model runs/folder/model --task all --out results/mine
    # score again what was predicted, or a folder of PNGs by anyone
    python eval/evaluate.py --metrics-only --task all --out results/mine
    python eval/evaluate.py --predictions their/masks --data data/davis2017 --split val --task vos --out results/theirs

Predictions are stored case by case in FOLDER/predictions; run again, the command goes on where it was stopped. Then
they are scored: FOLDER/results.json, {task: {metric: {"value", "low", "high", "n", "unit"}}} with 95 % intervals,
FOLDER/settings.json, what was evaluated and by which conventions, a CSV of samples, objects and videos, and
FOLDER/report/index.html, all of the tasks of the last command. A split whose masks are not public is predicted and not
scored. What the metrics mean stands in the report.

A folder of PNGs has <sample>.png (ris: the sentence's name, fss: the query's), <video>/<frame>.png with ids (vos),
<video>/<sentence's name>/<frame>.png (rvos), or with --merge anno_<run>/<video>/<frame>.png with ids. --write-masks
writes one: eval/submit.py makes archives for servers of it, and eval/score.py scores it against a folder of true masks
by a benchmark's own convention (YouTube-VOS, LVOS, MOSE, ...), without a prepared data set.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from accelerate import PartialState
from rich.console import Console

from sam_uniref.data.batch import TASKS, Task
from sam_uniref.data.episodes import Supports
from sam_uniref.data.refshapes import STYLES
from sam_uniref.eval.asked_data import REFSHAPES, Protocols, asked_tasks, open_protocols
from sam_uniref.eval.commands import OneLineParser
from sam_uniref.eval.compared_methods import METHODS, OURS, LoadedMethod, load_method
from sam_uniref.eval.measures import reported
from sam_uniref.eval.predictions import PredictionStore
from sam_uniref.eval.predictor_method import TrackingOptions
from sam_uniref.eval.protocols import FRAME_RULES, MATCHES
from sam_uniref.eval.report import TaskReport, check_place, write_report
from sam_uniref.eval.result_folder import ResultFolder
from sam_uniref.eval.results import Results, results_table, write_rows
from sam_uniref.eval.running import (
    Predictions,
    StoredPredictions,
    check_countable,
    check_predictions,
    check_stored,
    judge,
    predict,
    write_all_masks,
)
from sam_uniref.loading import named_device
from sam_uniref.state import write_json
from sam_uniref.tracked_object import FRAME_REFERENCES

# Options that mean something to some tasks only, and to one kind of data only.
_OPTIONS_OF: dict[str, tuple[Task, ...]] = {
    "shots": ("fss",),
    "supports": ("fss",),
    "hsnet_size": ("fss",),
    "frames": ("vos",),
    "merge": ("rvos",),
    "match": ("rvos",),
    "frame_references": ("vos", "rvos"),
    "score_threshold": ("vos", "rvos"),
}
_OF_REFSHAPES, _OF_PREPARED = ("style",), ("split", "download", "supports")
OF_CASES = tuple(f"--{name.replace('_', '-')}" for name in (*_OPTIONS_OF, *_OF_REFSHAPES, "download"))
"""Options of a task's cases and of how they are asked: what a comparison gives a task of its own."""
# What only the scores depend on, and not what is predicted.
_OF_SCORING = ("episodes", "frames", "hsnet_size", "match")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        help="folder that save_pretrained wrote, or a packaged model's name; "
        "of a baseline also a released SAM: its name (vit_b, sam_hq_vit_b, ...), its file or its folder",
    )
    parser.add_argument(
        "--method",
        choices=sorted(METHODS),
        default="samref",
        help="what MODEL is asked as: itself (samref by default, or samref_careful: slower, in pictures right more "
        "often; uniref; refsam), or a baseline on its frozen SAM",
    )
    parser.add_argument("--checkpoint", help="the base SAM's file, if it is not found by its name")
    parser.add_argument("--image-size", type=int, help="side of the input square in pixels; the model's own by default")
    parser.add_argument("--task", nargs="+", choices=[*TASKS, "all"], default=["all"], help="what is asked")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the results go")
    parser.add_argument("--metrics-only", action="store_true", help="score the predictions that are in FOLDER")
    parser.add_argument("--predictions", type=Path, metavar="PNGS", help="score a folder of masks instead of a model")
    parser.add_argument("--write-masks", type=Path, metavar="PNGS", help="also write the predictions as PNGs")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; the best there is by default")
    data = parser.add_argument_group("data")
    data.add_argument("--data", default=REFSHAPES, help="refshapes, or a folder that `sam-uniref data prepare` wrote")
    data.add_argument("--split", help="of the prepared set")
    data.add_argument("--download", metavar="FOLDER", help="of the prepared set's pictures, if they were moved")
    data.add_argument("--episodes", type=int, help="the first so many cases; 200 of refshapes, all that are prepared")
    data.add_argument("--style", choices=STYLES, help="refshapes; plain: unlike anything trained on")
    options = parser.add_argument_group("protocols")
    options.add_argument("--shots", type=int, nargs="+", help="fss: numbers of annotated pictures; 1 and 5 by default")
    options.add_argument(
        "--supports", choices=get_args(Supports), help="fss: which; fixed, the first by name (UniRef), or drawn (HSNet)"
    )
    options.add_argument(
        "--hsnet-size", action="store_const", const=True, help="fss: compare masks at 400x400 pixels, as HSNet"
    )
    options.add_argument(
        "--frames", choices=FRAME_RULES, help="vos: scored frames; davis on DAVIS-2017, else after-first, by default"
    )
    options.add_argument(
        "--merge",
        action="store_const",
        const=True,
        help="rvos: ask the k-th sentences of all objects together, and average the runs (Ref-DAVIS17)",
    )
    options.add_argument(
        "--match",
        choices=MATCHES,
        help="rvos --merge: score an object by the answer that fits it best (default, as published), or by its id",
    )
    options.add_argument(
        "--frame-references",
        choices=FRAME_REFERENCES,
        help="vos, rvos: frames of the clip whose masks an object is found by; both by default, as published",
    )
    options.add_argument(
        "--score-threshold",
        type=float,
        help="vos, rvos: below it an object counts as not visible; the paper's 0.4 for vos and 0.3 for rvos by default",
    )
    return parser.parse_args(arguments)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse what can be refused before data and model are looked at.

    Raises:
        ValueError: With what to change.
    """
    tasks = asked_tasks(arguments)
    given = {name for name, value in vars(arguments).items() if value is not None}
    if arguments.write_masks is not None and (len(tasks) > 1 or arguments.predictions is not None):
        raise ValueError("--write-masks is of one --task, and of what a model predicts")
    if arguments.predictions is None and not arguments.metrics_only and arguments.model is None:
        raise ValueError("--model is needed; only --metrics-only and --predictions do without")
    if arguments.predictions is not None and (len(tasks) > 1 or arguments.model is not None):
        raise ValueError("--predictions takes a model's place, and is of one --task")
    if arguments.episodes is not None and arguments.episodes < 1:
        raise ValueError(f"--episodes must be at least 1, got {arguments.episodes}")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out must be a folder, and {arguments.out} is a file")
    unasked = [task for task in tasks if task not in METHODS[arguments.method]]
    if unasked:
        raise ValueError(f"{arguments.method} can be asked {METHODS[arguments.method]}, got --task {unasked[0]}")
    if arguments.method not in OURS and {"frame_references", "score_threshold"} & given:
        raise ValueError(
            f"--frame-references and --score-threshold are of {' and '.join(OURS)}, not of {arguments.method}"
        )
    foreign = _OF_PREPARED if arguments.data == REFSHAPES else _OF_REFSHAPES
    for name in sorted(given.intersection(foreign)):
        raise ValueError(f"{_option(name)} means nothing to --data {arguments.data}; leave it out")
    for name, of in _OPTIONS_OF.items():
        if name in given and not set(of) & set(tasks):
            raise ValueError(f"{_option(name)} is of {' and '.join(of)}, not of {arguments.task}; leave it out")
    if arguments.match is not None and not arguments.merge:
        raise ValueError("--match is of --merge; leave it out")
    if arguments.frame_references == "none" and "vos" in tasks:
        raise ValueError("--frame-references none has nothing to follow a first frame's mask by; use --task rvos")
    # JSON has no infinity, and no score reaches NaN.
    if arguments.score_threshold is not None and not math.isfinite(arguments.score_threshold):
        raise ValueError(f"--score-threshold must be finite, got {arguments.score_threshold}; -999 lets all through")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def tracking_options(arguments: argparse.Namespace) -> TrackingOptions:
    """How objects are followed in the video tasks."""
    return TrackingOptions(arguments.frame_references or "both", arguments.score_threshold)


def choose_device(name: str | None, state: PartialState) -> torch.device:
    """The named device, which must be there, or this process's own.

    Raises:
        ValueError: If it is not there, or several processes would meet on it.
    """
    if name is None:
        return state.device
    device = named_device(name)
    if state.num_processes > 1 and device.type != "cpu":
        raise ValueError(f"{state.num_processes} processes have a device each; leave --device {name} out")
    return device


def run(arguments: argparse.Namespace, state: PartialState) -> None:
    """Ask what is not answered yet, score, write, show."""
    check_arguments(arguments)
    check_place(arguments.out / "report")
    protocols = open_protocols(arguments)
    for protocol in protocols.values():
        check_countable(protocol)
        protocol.source.check_pictures()  # the report shows them, whoever predicted
        if arguments.write_masks is not None:
            protocol.files(protocol.source[0])  # refuses what no such folder holds
    if arguments.predictions is not None:
        predictions = _their_predictions(arguments.predictions, protocols, state)
    else:
        predictions = _own_predictions(arguments, protocols, state)
    for task, protocol in protocols.items():
        if arguments.write_masks is not None:
            write_all_masks(arguments.write_masks, protocol, predictions[task], state)
    reports = []
    for task, protocol in protocols.items():
        if protocol.source.scored:
            scores = judge(protocol, predictions[task], state)
            if state.is_main_process:
                metrics = reported(protocol.measure(scores))
                reports.append(TaskReport(protocol, predictions[task], scores, metrics))
    if state.is_main_process:
        _write(arguments, protocols, reports)


def _own_predictions(
    arguments: argparse.Namespace, protocols: Protocols, state: PartialState
) -> dict[Task, Predictions[Any]]:
    """Those that are stored, after asking for what is missing."""
    if arguments.metrics_only:
        stores = _stores(arguments.out, protocols, None)
        for task, protocol in protocols.items():
            check_stored(protocol, stores[task])
    else:
        device = choose_device(arguments.device, state)
        place = {"checkpoint": arguments.checkpoint, "image_size": arguments.image_size}
        loaded = load_method(arguments.method, arguments.model, device, **place)
        loaded = loaded.following(tracking_options(arguments))
        stores = _stores(arguments.out, protocols, loaded)
        for task, protocol in protocols.items():
            predict(loaded.method, protocol, stores[task], state)
    return {task: StoredPredictions(store) for task, store in stores.items()}


def _stores(out: Path, protocols: Protocols, loaded: LoadedMethod | None) -> dict[Task, PredictionStore]:
    """The tasks' stores; one that was made of something else is refused before anything long begins."""
    stores = {}
    for task, protocol in protocols.items():
        made_by = {} if loaded is None else loaded.settings(task)
        settings = {**protocol.source.made_of, **protocol.options, **made_by}
        stores[task] = PredictionStore(out / "predictions" / task, settings)
    return stores


def _their_predictions(folder: Path, protocols: Protocols, state: PartialState) -> dict[Task, Predictions[Any]]:
    """A folder of masks, which is read once before it is scored."""
    folders: dict[Task, Predictions[Any]] = {}
    for task, protocol in protocols.items():
        if not protocol.source.scored:
            raise ValueError(f"{protocol.source.title}: its masks are not known here, so {folder} can't be scored")
        folders[task] = ResultFolder(folder, protocol)
        check_predictions(protocol, folders[task], state)
    return folders


def _write(arguments: argparse.Namespace, protocols: Protocols, reports: Sequence[TaskReport]) -> None:
    """All files, and the table."""
    out, console = arguments.out, Console()
    results: Results = {report.protocol.task: report.metrics for report in reports}
    write_json(out / "settings.json", _settings(arguments, protocols))
    for report in reports:
        for name, rows in report.protocol.tables(report.scores).items():
            write_rows(out / f"{name}.csv", rows)
    title = next(iter(protocols.values())).source.title
    write_json(out / "results.json", results)
    if reports:
        by = arguments.model or arguments.predictions or f"predictions of {out}"
        page = write_report(out / "report", f"{by}, on {title}", reports)
        console.print(results_table(results, title))
        console.print(f"Report: {page}", soft_wrap=True)
    for task in protocols.keys() - results.keys():
        console.print(f"{title}: its masks are not known here; {task} is predicted in {out}, not scored.")


def _settings(arguments: argparse.Namespace, protocols: Protocols) -> Mapping[str, Any]:
    """What was evaluated, for people: the command line, and what it stands for."""
    given = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    given["cases"] = {task: len(protocol.source) for task, protocol in protocols.items()}
    given["conventions"] = {task: protocol.conventions for task, protocol in protocols.items()}
    if {"vos", "rvos"} & protocols.keys():
        given["frame_references"] = arguments.frame_references or "both"
    path = arguments.out / "settings.json"
    if arguments.metrics_only and path.is_file():
        before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return before | {name: given[name] for name in ("task", "cases", "conventions", *_OF_SCORING)}
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    given = parse_arguments(arguments)
    # Said outright, processes on a machine without accelerators find each other through gloo.
    available = torch.cuda.is_available() or torch.backends.mps.is_available()
    state = PartialState(cpu=given.device == "cpu" or not available)
    try:
        run(given, state)
    except (ValueError, OSError) as error:
        who = "" if state.is_main_process else f"process {state.process_index}: "
        sys.stderr.write(" ".join(f"error: {who}{error}".split()) + "\n")
        return 2
    state.wait_for_everyone()  # one that leaves early breaks the others' connections
    state.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
