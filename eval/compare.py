"""Train, ask and score several methods on the same cases, and write one table with intervals.

    python eval/compare.py --config configs/compare_tiny.yaml --out runs/compare --together 2
    make compare                                             # the same, with as many trainings at a time as cores

What needs training is trained by `accelerate launch train/finetune.py` with each seed; what learns nothing is asked
once. Whatever is done is not done again, so a comparison that was stopped goes on. Writes FOLDER/compare.md (the table,
and how far ours is ahead of each by a paired bootstrap over the same units), FOLDER/results.json, FOLDER/grid.png (a
case a row, a method a column) and a folder a method. What the metrics mean stands in eval/evaluate.py's reports.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState
from rich.console import Console
from rich.markdown import Markdown
from tqdm.auto import tqdm

from sam_uniref.data.batch import TASKS, Task
from sam_uniref.eval.asked_data import open_protocols
from sam_uniref.eval.commands import OneLineParser, say_error
from sam_uniref.eval.compared_methods import LoadedMethod, load_method
from sam_uniref.eval.comparison import (
    AskedData,
    ComparedMethod,
    Comparison,
    Outcome,
    as_json,
    differences_table,
    read_comparison,
    results_table,
)
from sam_uniref.eval.comparison_grid import write_grid
from sam_uniref.eval.demo import HEADLINES
from sam_uniref.eval.evaluate import parse_arguments
from sam_uniref.eval.predictions import PredictionStore
from sam_uniref.eval.protocols import TaskProtocol
from sam_uniref.eval.published import TABLE_8
from sam_uniref.eval.running import StoredPredictions, judge, predict
from sam_uniref.eval.trained_runs import claim_folder, is_trained, train_run, trained_model
from sam_uniref.loading import best_device
from sam_uniref.state import whole_file, write_json

# Cases that the time a frame is taken from.
_TIMED = 3

AnyProtocol = TaskProtocol[Any, Any]


def open_cases(data: Mapping[str, AskedData]) -> dict[Task, AnyProtocol]:
    """A protocol a task, as `eval/evaluate.py` would open it.

    Raises:
        FileNotFoundError: If there is no such data set.
        ValueError: If it can't be asked the task.
    """
    protocols: dict[Task, AnyProtocol] = {}
    for task in (task for task in TASKS if task in data):
        asked = data[task]
        given = {"--split": asked.split, "--episodes": asked.episodes}
        options = [text for name, value in given.items() if value is not None for text in (name, str(value))]
        command = ["--task", task, "--out", "", "--data", asked.data, *options, *asked.options]
        protocols |= open_protocols(parse_arguments(command))
    return protocols


def train_all(comparison: Comparison, place: tuple[Path, Path], together: int) -> None:
    """Train what needs it, so many runs side by side. A run says in ``training.log`` of its folder how it fares.

    Args:
        comparison: What is compared.
        place: Folder of the configurations, and of the results.
        together: Runs at a time; each has a process of its own.

    Raises:
        ValueError: If a folder's run was made by another configuration.
        RuntimeError: If training fails.
    """
    configs, out = place
    with ThreadPoolExecutor(together) as pool:
        runs = [
            pool.submit(train, configs / method.train, seed, seed_folder(method, seed, out))
            for method in comparison.methods
            if method.train is not None
            for seed in comparison.seeds
        ]
        try:
            for run in tqdm(runs, desc="trained", unit="run", disable=all(run.done() for run in runs)):
                run.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # those that run are let end, no other begins
            raise


def train(config: Path, seed: int, folder: Path) -> float | None:
    """Train one run, or go on with it.

    Returns:
        Seconds that it took, all its parts together; None if a part was not measured.

    Raises:
        ValueError: If the folder's run was made by another configuration.
        RuntimeError: If training fails; what it said is in ``training.log``.
    """
    claim_folder(folder / "made_of.json", {"config": yaml.safe_load(config.read_text(encoding="utf-8")), "seed": seed})
    spent = folder / "training.json"
    began = (folder / "settings.yaml").is_file()
    before = json.loads(spent.read_text())["seconds"] if spent.is_file() else None if began else 0.0
    if is_trained(trained_model(config, folder)):
        return before
    start = time.monotonic()
    try:
        train_run(config, folder, seed, log=folder / "training.log")
    finally:
        seconds = None if before is None else before + time.monotonic() - start
        write_json(spent, {"seconds": seconds})
    return seconds


def seed_folder(method: ComparedMethod, seed: int, out: Path) -> Path:
    """Where a method's run with a seed is, and its answers."""
    return out / method.folder / f"seed_{seed}"


def ask(
    loaded: LoadedMethod, protocols: Mapping[Task, AnyProtocol], folder: Path, state: PartialState
) -> dict[Task, StoredPredictions]:
    """Ask what is not answered yet."""
    answers = {}
    for task, protocol in protocols.items():
        settings = {**protocol.source.made_of, **protocol.options, **loaded.made_of}
        store = PredictionStore(folder / "predictions" / task, settings)
        predict(loaded.method, protocol, store, state)
        answers[task] = StoredPredictions(store)
    return answers


def frame_seconds(loaded: LoadedMethod, protocol: AnyProtocol) -> float:
    """Median seconds a picture, or a frame of a clip, over the first cases."""
    seconds = []
    for index in range(min(_TIMED, len(protocol.source))):
        case = protocol.source[index]
        start = time.perf_counter()
        prediction = protocol.ask(loaded.method, case)
        frames = max(len(masks) for masks in prediction.masks.values())
        seconds.append((time.perf_counter() - start) / frames)
    return statistics.median(seconds)


def measure_method(
    comparison: Comparison,
    method: ComparedMethod,
    protocols: Mapping[Task, AnyProtocol],
    place: tuple[Path, Path],
    state: PartialState,
) -> tuple[Outcome, dict[Task, StoredPredictions]]:
    """Train, ask and score one method.

    Args:
        comparison: That it is part of.
        method: The method.
        protocols: All tasks'.
        place: Folder of the configurations, and of the results.
        state: The processes.

    Returns:
        What came of it, and the answers of its first run.
    """
    configs, out = place
    outcome, trainer = Outcome(), comparison.trainer(method)
    shown: dict[Task, StoredPredictions] = {}
    asked = {task: protocols[task] for task in method.asked if task in protocols}
    for seed in comparison.seeds if trainer is not None else comparison.seeds[:1]:
        model = comparison.sam
        if trainer is not None and trainer.train is not None:
            run = seed_folder(trainer, seed, out)
            seconds = train(configs / trainer.train, seed, run)
            outcome.training_seconds += [] if seconds is None else [seconds]
            model = str(trained_model(configs / trainer.train, run))
        loaded = load_method(method.method, model, best_device())
        answers = ask(loaded, asked, seed_folder(method, seed, out), state)
        for task, protocol in asked.items():
            scores = judge(protocol, answers[task], state)
            outcome.metrics.setdefault(task, []).append(protocol.measure(scores)[HEADLINES[task]])
        if not shown:
            shown = answers
            outcome.trained_parameters = loaded.trained_parameters
            outcome.frame_seconds = {task: frame_seconds(loaded, protocol) for task, protocol in asked.items()}
    return outcome, shown


def write(comparison: Comparison, outcomes: Mapping[str, Outcome], out: Path) -> str:
    """``results.json`` and ``compare.md``; the latter's text."""
    write_json(out / "results.json", as_json(comparison, outcomes))
    seeds = f"{len(comparison.seeds)} seeds" if len(comparison.seeds) > 1 else "one seed"
    differences = "\n".join(differences_table(ours, comparison, outcomes) for ours in comparison.ours)
    text = (
        f"Trained methods are means over {seeds}; in brackets 95 % intervals over the cases, by bootstrap.\n\n"
        f"{results_table(comparison, outcomes)}\n"
        f"Differences on the same cases, paired bootstrap, 95 %; bold where 0 is outside:\n\n{differences}\n{TABLE_8}"
    )
    with whole_file(out / "compare.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def run(config: Path, out: Path, together: int = 1) -> None:
    """All of it, with so many trainings at a time."""
    comparison = read_comparison(config)
    state = PartialState(cpu=not torch.cuda.is_available())
    protocols = open_cases(comparison.data)
    train_all(comparison, (config.parent, out), together)
    outcomes: dict[str, Outcome] = {}
    answers: dict[str, Mapping[Task, StoredPredictions]] = {}
    for method in comparison.methods:
        sys.stderr.write(f"{method.name}:\n")
        outcomes[method.name], answers[method.name] = measure_method(
            comparison, method, protocols, (config.parent, out), state
        )
    text = write(comparison, outcomes, out)
    write_grid(out / "grid.png", protocols, answers)
    Console(width=160).print(Markdown(text))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, type=Path, help="YAML file of the comparison")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where runs and results go")
    parser.add_argument("--together", type=int, default=1, metavar="N", help="trainings side by side, a core each")
    given = parser.parse_args(arguments)
    try:
        if given.together < 1:
            raise ValueError(f"--together must be at least 1, got {given.together}")
        run(given.config, given.out, given.together)
    except (ValueError, OSError, RuntimeError) as error:
        return say_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
