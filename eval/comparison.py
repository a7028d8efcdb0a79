"""A comparison: which methods, trained by which configurations, asked which cases; and the numbers that came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sam_uniref.config import build_dataclass
from sam_uniref.data.batch import TASKS, Task
from sam_uniref.eval.bootstrap import Interval, bootstrap, paired_bootstrap
from sam_uniref.eval.compared_methods import METHODS, TRAINED
from sam_uniref.eval.demo import HEADLINES
from sam_uniref.eval.measures import Metric, Values, mean_of_ratios
from sam_uniref.eval.trained_runs import folder_name


@dataclass(frozen=True)
class ComparedMethod:
    """One column.

    Attributes:
        name: As the table calls it; unique.
        method: One of `METHODS`.
        train: The configuration that trains it, beside the comparison's file; None for what learns nothing.
        tasks: That it is asked; by default all that it can be.
    """

    name: str
    method: str
    train: str | None = None
    tasks: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"{self.name}: method must be one of {sorted(METHODS)}, got {self.method!r}")
        if (self.method in TRAINED) != (self.train is not None):
            raise ValueError(f"{self.name}: train= is for {sorted(TRAINED)}, and needed there")
        wrong = set(self.tasks) - set(METHODS[self.method])
        if wrong:
            raise ValueError(f"{self.name}: {self.method} can be asked {METHODS[self.method]}, got {sorted(wrong)}")

    @property
    def asked(self) -> tuple[Task, ...]:
        """Its tasks, in order."""
        return tuple(t for t in TASKS if t in (self.tasks or METHODS[self.method]))

    @property
    def folder(self) -> str:
        """The name as a folder's."""
        return folder_name(self.name)


@dataclass(frozen=True)
class AskedData:
    """Where a task's cases come from.

    Attributes:
        data: ``refshapes``, or a folder that `sam-uniref data prepare` wrote.
        split: Of a prepared set.
        episodes: The first so many cases; None: all of a prepared split.
        options: Further ones of ``eval/evaluate.py``, such as ``--merge``.
    """

    data: str = "refshapes"
    split: str | None = None
    episodes: int | None = None
    options: Sequence[str] = ()


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        sam: Whose frozen SAM the methods share that learn nothing: a saved model's folder or a packaged one's name.
        ours: Name of the method that all others are subtracted from.
        methods: In the table's order.
        seeds: Of the training runs; what learns nothing is asked once.
        data: By task.
    """

    sam: str
    ours: str
    methods: list[ComparedMethod] = field(default_factory=list)
    seeds: Sequence[int] = (0, 1, 2)
    data: dict[str, AskedData] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [method.folder for method in self.methods]
        if len(set(names)) < len(names):
            raise ValueError(f"methods need different names, got {[m.name for m in self.methods]}")
        if self.ours not in [method.name for method in self.methods]:
            raise ValueError(f"ours must be one of {[m.name for m in self.methods]}, got {self.ours!r}")
        unknown = self.data.keys() - set(TASKS)
        if unknown or not self.data:
            raise ValueError(f"data must be {{task: cases}} of {TASKS}, got {sorted(self.data)}")
        if not self.seeds:
            raise ValueError("seeds must name at least one run")


def read_comparison(path: Path) -> Comparison:
    """The comparison in a YAML file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a key is unknown, or things don't fit together.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no comparison {path}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or not isinstance(values.get("methods"), list):
        raise ValueError(f"{path} must have sam, ours, methods (a list) and data")
    methods = [build_dataclass(ComparedMethod, entry, "methods.") for entry in values.pop("methods")]
    data = {task: build_dataclass(AskedData, entry or {}, "data.") for task, entry in values.pop("data", {}).items()}
    return build_dataclass(Comparison, {**values, "methods": methods, "data": data})


@dataclass
class Outcome:
    """What came of one method.

    Attributes:
        metrics: By task, the headline metric of each seed's run.
        trained_parameters: How many numbers training found.
        training_seconds: Of each seed's run that was measured whole; empty for what learns nothing.
        frame_seconds: By task, median seconds a picture or frame.
    """

    metrics: dict[Task, list[Metric]] = field(default_factory=dict)
    trained_parameters: int = 0
    training_seconds: list[float] = field(default_factory=list)
    frame_seconds: dict[Task, float] = field(default_factory=dict)

    def parts(self, task: Task) -> Values:
        """A task's parts, ``(units, ...)``, averaged over seeds: the methods' mean on the same units."""
        return np.mean([metric.parts for metric in self.metrics[task]], axis=0)

    def interval(self, task: Task) -> Interval:
        """The headline with its 95 % interval over units."""
        return bootstrap(self.parts(task), mean_of_ratios, unit=self.metrics[task][0].unit)

    def ahead_of(self, other: Outcome, task: Task) -> Interval:
        """How far it is ahead, with the 95 % interval of a paired bootstrap over the same units."""
        unit = self.metrics[task][0].unit
        return paired_bootstrap(self.parts(task), other.parts(task), mean_of_ratios, unit=unit)


def as_json(comparison: Comparison, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """All numbers, in JSON's types."""
    ours = outcomes[comparison.ours]
    told: dict[str, Any] = {}
    for name, outcome in outcomes.items():
        told[name] = {
            "tasks": {task: vars(outcome.interval(task)) | {"metric": HEADLINES[task]} for task in outcome.metrics},
            "ours_ahead": {
                task: vars(ours.ahead_of(outcome, task))
                for task in outcome.metrics
                if name != comparison.ours and task in ours.metrics
            },
            "trained_parameters": outcome.trained_parameters,
            "training_seconds": outcome.training_seconds,
            "frame_seconds": outcome.frame_seconds,
        }
    return told


# ---- Tables ----


def results_table(comparison: Comparison, outcomes: Mapping[str, Outcome]) -> str:
    """A method a row, in Markdown: headlines with intervals, what was trained, how long it took."""
    tasks = [task for task in TASKS if task in comparison.data]
    heads = [f"{task} {HEADLINES[task]}" for task in tasks]
    rows = [["method", *heads, "parameters trained", "training", "ms a picture or frame"]]
    for name, outcome in outcomes.items():
        cells = [str(outcome.interval(task)) if task in outcome.metrics else "" for task in tasks]
        minutes = f"{np.mean(outcome.training_seconds) / 60:.1f} min" if outcome.training_seconds else ""
        times = ", ".join(f"{task} {1000 * seconds:.0f}" for task, seconds in outcome.frame_seconds.items())
        rows.append([name, *cells, f"{outcome.trained_parameters:,}", minutes, times])
    return _markdown(rows)


def differences_table(comparison: Comparison, outcomes: Mapping[str, Outcome]) -> str:
    """How far ours is ahead of each other method on the same units, in Markdown; bold where 0 is outside."""
    tasks = [task for task in TASKS if task in comparison.data]
    ours = outcomes[comparison.ours]
    rows = [[f"{comparison.ours} less", *(f"{task} {HEADLINES[task]}" for task in tasks)]]
    for name, outcome in outcomes.items():
        if name == comparison.ours:
            continue
        cells = []
        for task in tasks:
            told = ours.ahead_of(outcome, task) if task in outcome.metrics and task in ours.metrics else None
            clear = told is not None and (told.low > 0 or told.high < 0)
            cells.append("" if told is None else f"**{told}**" if clear else str(told))
        rows.append([name, *cells])
    return _markdown(rows)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n"
