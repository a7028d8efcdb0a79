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
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from rich.console import Console
from rich.markdown import Markdown

from sam_uniref.data.batch import Task
from sam_uniref.eval.commands import OneLineParser, say_error
from sam_uniref.eval.compared_cases import ComparedCases, open_cases
from sam_uniref.eval.compared_methods import LoadedMethod, load_method
from sam_uniref.eval.compared_runs import check_runs, seed_folder, train, train_all
from sam_uniref.eval.comparison import (
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
from sam_uniref.eval.predictions import PredictionStore
from sam_uniref.eval.published import TABLE_8
from sam_uniref.eval.running import StoredPredictions, judge, predict
from sam_uniref.eval.trained_runs import trained_model
from sam_uniref.loading import best_device
from sam_uniref.state import whole_file, write_json

# Cases that the time an answer is taken from.
_TIMED = 3


def ask(
    loaded: LoadedMethod, cases: Mapping[Task, ComparedCases], folder: Path, state: PartialState
) -> dict[Task, StoredPredictions]:
    """Ask what is not answered yet."""
    answers = {}
    for task, asked in cases.items():
        protocol, following = asked.protocol, loaded.following(asked.tracking)
        settings = {**protocol.source.made_of, **protocol.options, **following.settings(task)}
        store = PredictionStore(folder / "predictions" / task, settings)
        predict(following.method, protocol, store, state)
        answers[task] = StoredPredictions(store)
    return answers


def answer_seconds(loaded: LoadedMethod, cases: ComparedCases) -> float:
    """Median seconds an answer over the first cases: a mask of a picture, or of an object in a frame."""
    seconds = []
    protocol, method = cases.protocol, loaded.following(cases.tracking).method
    for index in range(min(_TIMED, len(protocol.source))):
        case = protocol.source[index]
        start = time.perf_counter()
        prediction = protocol.ask(method, case)
        answers = sum(len(masks) for masks in prediction.masks.values())
        seconds.append((time.perf_counter() - start) / answers)
    return statistics.median(seconds)


def measure_method(
    comparison: Comparison,
    method: ComparedMethod,
    cases: Mapping[Task, ComparedCases],
    place: tuple[Path, Path],
    state: PartialState,
) -> tuple[Outcome, dict[Task, StoredPredictions]]:
    """Train, ask and score one method.

    Args:
        comparison: That it is part of.
        method: The method.
        cases: All tasks'.
        place: Folder of the configurations, and of the results.
        state: The processes.

    Returns:
        What came of it, and the answers of its first run.
    """
    configs, out = place
    outcome, trainer = Outcome(), comparison.trainer(method)
    shown: dict[Task, StoredPredictions] = {}
    asked = {task: cases[task] for task in method.asked if task in cases}
    for seed in comparison.seeds if trainer is not None else comparison.seeds[:1]:
        model = comparison.sam
        if trainer is not None and trainer.train is not None:
            run = seed_folder(trainer, seed, out)
            seconds = train(configs / trainer.train, seed, run)
            outcome.training_seconds += [] if seconds is None else [seconds]
            model = str(trained_model(configs / trainer.train, run))
        loaded = load_method(method.method, model, best_device())
        answers = ask(loaded, asked, seed_folder(method, seed, out), state)
        for task, protocol in ((task, its.protocol) for task, its in asked.items()):
            scores = judge(protocol, answers[task], state)
            outcome.metrics.setdefault(task, []).append(protocol.measure(scores)[HEADLINES[task]])
        if not shown:
            shown = answers
            outcome.trained_parameters = loaded.trained_parameters
            outcome.answer_seconds = {task: answer_seconds(loaded, its) for task, its in asked.items()}
    return outcome, shown


def write(comparison: Comparison, outcomes: Mapping[str, Outcome], out: Path) -> str:
    """``results.json`` and ``compare.md``; the latter's text."""
    write_json(out / "results.json", as_json(comparison, outcomes))
    count = len(comparison.seeds)
    seeds = f"{count} seeds, whose lowest and highest are in parentheses" if count > 1 else "one seed"
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
    cases = open_cases(comparison.data)
    check_runs(comparison, (config.parent, out))
    train_all(comparison, (config.parent, out), together)
    outcomes: dict[str, Outcome] = {}
    answers: dict[str, Mapping[Task, StoredPredictions]] = {}
    for method in comparison.methods:
        sys.stderr.write(f"{method.name}:\n")
        outcomes[method.name], answers[method.name] = measure_method(
            comparison, method, cases, (config.parent, out), state
        )
    text = write(comparison, outcomes, out)
    write_grid(out / "grid.png", {task: its.protocol for task, its in cases.items()}, answers)
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
