"""Train and evaluate the rows of an ablation table, each with several seeds, and write the table.

    python eval/ablations.py configs/ablations/rows.yaml --out runs/ablations
    python eval/ablations.py configs/ablations/rows.yaml --out runs/ablations --only "1 head of 128"

Every run is one of `accelerate launch train/finetune.py` and one of `eval/evaluate.py`. What is done already is not
done again, so a table that was stopped goes on. Writes FOLDER/table.md, FOLDER/results.json and a folder a run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sam_uniref.config import build_dataclass
from sam_uniref.eval.commands import OneLineParser, say_error
from sam_uniref.eval.demo import HEADLINES
from sam_uniref.eval.results import read_values
from sam_uniref.eval.trained_runs import claim_folder, folder_name, is_trained, run_module, train_run, trained_model
from sam_uniref.state import whole_file, write_json

Values = dict[str, list[float]]


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: Of the row; unique.
        train: ``key=value`` over the base configuration.
        model: The row whose trained models are asked, in place of training.
        evaluate: Options of ``eval/evaluate.py``.
        tasks: That are evaluated.
    """

    name: str
    train: Sequence[str] = ()
    model: str | None = None
    evaluate: Sequence[str] = ()
    tasks: Sequence[str] = tuple(HEADLINES)

    @property
    def folder(self) -> str:
        """The name as a folder's."""
        return folder_name(self.name)


@dataclass(frozen=True)
class Ablations:
    """A table.

    Attributes:
        base: The configuration that all rows share, beside the table's file.
        rows: Of the table.
        seeds: Of each row's runs.
        episodes: ``{task: how many scenes or clips it is evaluated on}``.
    """

    base: str
    rows: list[Row] = field(default_factory=list)
    seeds: Sequence[int] = (0, 1, 2)
    episodes: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(HEADLINES, 60))

    def __post_init__(self) -> None:
        if self.episodes.keys() != HEADLINES.keys() or min(self.episodes.values()) < 1:
            raise ValueError(f"episodes must be {{task: at least 1}} for {list(HEADLINES)}, got {dict(self.episodes)}")
        trained = {row.name for row in self.rows if row.model is None}
        for row in self.rows:
            if row.model is not None and (row.model not in trained or row.train):
                raise ValueError(f"row {row.name!r}: model must be a row that trains, and train be left out")
            for name in ("train", "evaluate", "tasks"):
                if isinstance(getattr(row, name), str):
                    raise ValueError(f"row {row.name!r}: {name} must be a list, got {getattr(row, name)!r}")
            unknown = set(row.tasks) - HEADLINES.keys()
            if unknown:
                raise ValueError(f"row {row.name!r}: tasks must be of {list(HEADLINES)}, got {sorted(unknown)}")
        if len({row.folder for row in self.rows}) < len(self.rows):
            raise ValueError("rows need different names")


def read_table(path: Path) -> Ablations:
    """The table in a YAML file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a key is unknown, or rows don't fit together.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no table {path}")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    rows = values.pop("rows", []) if isinstance(values, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} must have the keys of {Ablations.__name__}, with a list of mappings as rows")
    return build_dataclass(Ablations, {**values, "rows": [build_dataclass(Row, row, "rows.") for row in rows]})


def run_row(table: Ablations, row: Row, seed: int, config: Path, out: Path) -> None:
    """Train (unless another row's model is asked) and evaluate one row with one seed.

    Raises:
        RuntimeError: If a command fails; its output is above.
    """
    owner = next(other for other in table.rows if other.name == (row.model or row.name))
    trained, results = out / owner.folder / f"seed_{seed}", out / row.folder / f"seed_{seed}"
    model = trained_model(config, trained, owner.train)
    if not is_trained(model):
        train_run(config, trained, seed, owner.train)
    for episodes in sorted({table.episodes[task] for task in row.tasks}):
        tasks = [task for task in row.tasks if table.episodes[task] == episodes]
        place = results / "_".join(tasks)
        if not (place / "results.json").is_file():
            asked = ["--task", *tasks, "--episodes", str(episodes), "--out", str(place), *row.evaluate]
            run_module(["sam_uniref.eval.evaluate", "--model", str(model), *asked])


def made_of(table: Ablations, row: Row, config: Path) -> dict[str, Any]:
    """What tells a row's runs from those of other settings."""
    return asdict(row) | {"base": yaml.safe_load(config.read_text()), "episodes": dict(table.episodes)}


def collect(table: Ablations, out: Path) -> dict[str, Values]:
    """The main metric of every task of every finished run: ``{row: {task: a value a seed}}``."""
    found: dict[str, Values] = {}
    for row in table.rows:
        measured = [_measured(out / row.folder / f"seed_{seed}", row) for seed in table.seeds]
        runs = [values for values in measured if values is not None]
        if runs:
            found[row.name] = {task: [values[task] for values in runs] for task in runs[0]}
    return found


def _measured(folder: Path, row: Row) -> dict[str, float] | None:
    """The main metric of each of the row's tasks; None if not all were evaluated."""
    results: dict[str, dict[str, float]] = {}
    for file in folder.glob("*/results.json"):
        results |= read_values(file)
    if not results.keys() >= set(row.tasks):
        return None
    return {task: results[task][metric] for task, metric in HEADLINES.items() if task in row.tasks}


def markdown(found: Mapping[str, Values]) -> str:
    """Mean and standard deviation over seeds, a row a line, and how many seeds these are."""
    heads = [*(f"{task} {metric}" for task, metric in HEADLINES.items()), "seeds"]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, values in found.items():
        cells = [_cell(values.get(task, [])) for task in HEADLINES]
        cells.append(str(max(map(len, values.values()))))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    """``mean ± deviation``; of one run the value alone."""
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="YAML file of the rows")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where runs and table go")
    parser.add_argument("--only", action="append", metavar="ROW", help="rows to run; all by default")
    given = parser.parse_args(arguments)
    try:
        table = read_table(given.table)
        unknown = {*(given.only or ())} - {row.name for row in table.rows}
        if unknown:
            raise ValueError(f"no such rows: {sorted(unknown)}; there are {[row.name for row in table.rows]}")
        # Seed by seed, so that a table that is stopped has every row.
        for seed in table.seeds:
            for row in table.rows:
                if not given.only or row.name in given.only:
                    config = given.table.parent / table.base
                    claim_folder(given.out / row.folder / "row.json", made_of(table, row, config))
                    run_row(table, row, seed, config, given.out)
        found = collect(table, given.out)
        write_json(given.out / "results.json", found)
        with whole_file(given.out / "table.md") as temporary:
            temporary.write_text(markdown(found))
        sys.stdout.write(markdown(found))
    except (ValueError, OSError, RuntimeError) as error:
        return say_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
