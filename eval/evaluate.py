"""Evaluate a model on one task, several or all four.

    python eval/evaluate.py --model runs/folder/model --data refshapes --task all --out results/mine
    python eval/evaluate.py --model runs/folder/model --data refshapes --task ris --style plain --out results/plain
    # the paper's ablation: sentences without the masks predicted so far
    python eval/evaluate.py --model runs/folder/model --task rvos --frame-references none --out results/language
    # several processes share the episodes, and give the same numbers
    accelerate launch --num_processes 4 eval/evaluate.py --model runs/folder/model --task all --out results/mine

Writes FOLDER/results.json, {task: {metric: value}} with values in 0-1, and FOLDER/settings.json, what was evaluated;
both are whole or not there. What the metrics mean stands in `sam_uniref.eval.refshapes_protocol`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm

from sam_uniref.data.batch import TASKS, Task
from sam_uniref.data.refshapes import STYLES
from sam_uniref.eval.commands import OneLineParser
from sam_uniref.eval.refshapes_protocol import PROTOCOLS, RefShapesProtocol, TrackingOptions
from sam_uniref.loading import load_for_use, named_device
from sam_uniref.predictor import Predictor
from sam_uniref.state import write_json
from sam_uniref.tracked_object import FRAME_REFERENCES

Results = dict[Task, dict[str, float]]

# What settings.json tells of the command line.
RECORDED = ("model", "checkpoint", "image_size", "data", "style", "episodes")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder that save_pretrained wrote, or a packaged model's name")
    parser.add_argument("--checkpoint", help="the base SAM's file, if it is not found by its name")
    parser.add_argument("--image-size", type=int, help="side of the input square in pixels; the model's own by default")
    parser.add_argument("--data", choices=["refshapes"], default="refshapes", help="data set")
    parser.add_argument("--task", nargs="+", choices=[*TASKS, "all"], default=["all"], help="what is asked")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the results go")
    parser.add_argument("--episodes", type=int, default=200, help="scenes or clips of each task")
    parser.add_argument("--style", choices=STYLES, default="textured", help="plain: unlike anything trained on")
    parser.add_argument(
        "--frame-references",
        choices=FRAME_REFERENCES,
        help="vos, rvos: frames of the clip whose masks an object is found by; both by default, as published",
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        help="vos, rvos: below it an object counts as not visible; the paper's 0.4 for vos and 0.3 for rvos by default",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; the best there is by default")
    return parser.parse_args(arguments)


def asked_tasks(arguments: argparse.Namespace) -> tuple[Task, ...]:
    """What ``--task`` stands for, each once, in the order of :data:`TASKS`."""
    return tuple(task for task in TASKS if task in arguments.task or "all" in arguments.task)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse what can be refused before a model is loaded.

    Raises:
        ValueError: With what to change.
    """
    if arguments.episodes < 1:
        raise ValueError(f"--episodes must be at least 1, got {arguments.episodes}")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out must be a folder, and {arguments.out} is a file")
    if arguments.frame_references == "none" and "vos" in asked_tasks(arguments):
        raise ValueError("--frame-references none has nothing to follow a first frame's mask by; use --task rvos")
    if not {"vos", "rvos"} & {*asked_tasks(arguments)}:
        for name in ("frame_references", "score_threshold"):
            if getattr(arguments, name) is not None:
                raise ValueError(
                    f"--{name.replace('_', '-')} is of vos and rvos, not of {arguments.task}; leave it out"
                )
    # JSON has no infinity, and no score reaches NaN.
    if arguments.score_threshold is not None and not math.isfinite(arguments.score_threshold):
        raise ValueError(f"--score-threshold must be finite, got {arguments.score_threshold}; -999 lets all through")


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


def evaluate(model: Predictor, protocol: RefShapesProtocol[Any], state: PartialState) -> dict[str, float]:
    """Metrics of one task. Each process takes its share of the episodes; all of them return the same.

    Args:
        model: On this process's device.
        protocol: Of the task.
        state: The processes.
    """
    mine = range(state.process_index, protocol.data.episodes, state.num_processes)
    main = state.is_main_process
    with tqdm(mine, desc=protocol.task, unit="episode", disable=not main, mininterval=1.0) as progress:
        scored = [(index, protocol.score(model, index)) for index in progress]
    # In the order of the episodes, so that sums do not depend on the number of processes.
    everything = sorted(gather_object(scored), key=lambda pair: pair[0])
    return protocol.summarise([score for _, scores in everything for score in scores])


def write_results(out: Path, results: Results, settings: Mapping[str, Any]) -> None:
    """``results.json`` and ``settings.json``, each whole or not there."""
    for name, content in (("settings", settings), ("results", results)):
        write_json(out / f"{name}.json", content)


def results_table(results: Results, title: str) -> Table:
    """A row a metric."""
    table = Table("task", "metric", title=title)
    table.add_column("value", justify="right")
    for task, metrics in results.items():
        for metric, value in metrics.items():
            table.add_row(task, metric, f"{value:.4f}")
        table.add_section()
    return table


def run(arguments: argparse.Namespace, state: PartialState) -> None:
    """Load, ask, write, show."""
    check_arguments(arguments)
    device = choose_device(arguments.device, state)
    model = load_for_use(arguments.model, arguments.checkpoint, device, arguments.image_size)
    tracking = TrackingOptions(arguments.frame_references or "both", arguments.score_threshold)
    protocols = {
        task: PROTOCOLS[task](arguments.episodes, arguments.style, tracking) for task in asked_tasks(arguments)
    }
    results = {task: evaluate(model, protocol, state) for task, protocol in protocols.items()}
    if state.is_main_process:
        settings = {name: getattr(arguments, name) for name in RECORDED}
        settings |= asdict(tracking) if {"vos", "rvos"} & protocols.keys() else {}
        write_results(arguments.out, results, settings)
        title = f"RefShapes validation, {arguments.style}, {arguments.episodes} episodes a task"
        Console().print(results_table(results, title))


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
