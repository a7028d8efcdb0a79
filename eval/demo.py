"""What the quickstart learned: the four tasks before and after its training, in one table and on a page of pictures.

    accelerate launch train/finetune.py --config configs/quickstart.yaml
    python eval/demo.py --model runs/quickstart/joint/model --out runs/quickstart/demo

"Before" is what that training started from: the packaged tiny SAM and text encoder with fresh adapters. Writes
FOLDER/results.json, {"before" and "after": {task: {metric: value}}} with values in 0-1, and FOLDER/gallery/index.html.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from rich.console import Console
from rich.table import Table

from sam_uniref.data.batch import TASKS, Task
from sam_uniref.eval.commands import OneLineParser, say_error
from sam_uniref.eval.gallery import check_place, write_gallery
from sam_uniref.eval.predictor_method import PredictorMethod
from sam_uniref.eval.refshapes_protocol import PROTOCOLS
from sam_uniref.eval.running import measure
from sam_uniref.loading import best_device, load_for_use
from sam_uniref.predictor import Predictor
from sam_uniref.samref import SamRef
from sam_uniref.state import write_json

Values = dict[Task, dict[str, float]]

# The one number that stands for a task in the mean over all four.
HEADLINES: dict[Task, str] = {"ris": "mIoU", "fss": "mIoU_1shot", "vos": "J&F", "rvos": "J&F"}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of the trained model")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the results go")
    parser.add_argument("--episodes", type=int, default=25, help="scenes or clips of each task")
    return parser.parse_args(arguments)


def untrained() -> SamRef:
    """The quickstart's model before its first step."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SamRef.from_sam("tiny", checkpoint="tiny", text_encoder="tiny").eval()


def evaluate_all(model: Predictor, episodes: int, state: PartialState) -> Values:
    """Metrics of the four tasks."""
    method = PredictorMethod(model)
    return {task: measure(method, PROTOCOLS[task](episodes), state) for task in TASKS}


def headline(results: Values) -> float:
    """The mean of the four tasks' main metrics, 0-1."""
    return sum(results[task][metric] for task, metric in HEADLINES.items()) / len(HEADLINES)


def comparison(results: Mapping[str, Values]) -> Table:
    """A row a metric, a column a model, the tasks' main metrics' mean below."""
    table = Table("task", "metric", title="RefShapes validation")
    for label in results:
        table.add_column(label, justify="right")
    first = next(iter(results.values()))
    for task, metrics in first.items():
        for metric in metrics:
            mark = "*" if HEADLINES[task] == metric else ""
            table.add_row(task, metric + mark, *(f"{given[task][metric]:.3f}" for given in results.values()))
        table.add_section()
    table.add_row("mean", "of those with *", *(f"{headline(given):.3f}" for given in results.values()))
    return table


def run(arguments: argparse.Namespace) -> None:
    """Evaluate both, show, write."""
    if arguments.episodes < 1:
        raise ValueError(f"--episodes must be at least 1, got {arguments.episodes}")
    check_place(arguments.out / "gallery")
    start = time.monotonic()
    device = best_device()
    state = PartialState(cpu=device.type == "cpu")
    models = {"before": untrained().to(device), "after": load_for_use(arguments.model, None, device)}
    results: dict[str, Values] = {}
    for label, model in models.items():
        sys.stderr.write(f"{label}:\n")
        results[label] = evaluate_all(model, arguments.episodes, state)
    write_json(arguments.out / "results.json", results)
    console = Console()
    console.print(comparison(results))
    page = write_gallery(models, arguments.out / "gallery")
    console.print(f"Evaluated and drawn in {(time.monotonic() - start) / 60:.1f} minutes.")
    console.print(f"Pictures and a video: {page}", soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    try:
        run(parse_arguments(arguments))
    except (ValueError, OSError) as error:
        return say_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
