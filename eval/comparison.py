"""A comparison: which methods, trained by which configurations, asked which cases; and the numbers that came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sam_uniref.data.batch import TASKS, Task
from sam_uniref.eval.bootstrap import Interval, bootstrap, paired_bootstrap
from sam_uniref.eval.compared_methods import METHODS, OURS, TRAINED
from sam_uniref.eval.demo import HEADLINES
from sam_uniref.eval.measures import Metric, Values, mean_of_ratios
from sam_uniref.eval.trained_runs import folder_name
from sam_uniref.train.settings import fill_settings


@dataclass(frozen=True)
class ComparedMethod:
    """One column.

    Attributes:
        name: As the table calls it; unique.
        method: One of `METHODS`.
        train: The configuration that trains it, beside the comparison's file; None for what learns nothing.
        runs: In place of ``train``, name of the method whose trained models it asks in its own way.
        tasks: That it is asked; by default all that it can be.
    """

    name: str
    method: str
    train: str | None = None
    runs: str | None = None
    tasks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"{self.name}: method must be one of {sorted(METHODS)}, got {self.method!r}")
        if (self.method in TRAINED) != (self.train is not None or self.runs is not None):
            raise ValueError(f"{self.name}: train= or runs= is for {sorted(TRAINED)}, and needed there")
        if self.train is not None and self.runs is not None:
            raise ValueError(f"{self.name}: runs= are those of another method; leave train= or runs= out")
        wrong = set(self.tasks) - set(METHODS[self.method])
        if wrong:
            raise ValueError(f"{self.name}: {self.method} can be asked {METHODS[self.method]}, got {sorted(wrong)}")

    @property
    def asked(self) -> tuple[Task, ...]:
        """Its tasks, in order."""
        return tuple(t for t in TASKS if t in (self.tasks or METHODS[self.method]))

    def shares(self, other: ComparedMethod | None) -> bool:
        """Whether another method trains models that this one can ask."""
        kinds = [OURS.get(m.method, m.method) for m in (self, other) if m is not None]
        return other is not None and other.train is not None and kinds[0] == kinds[1]

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
        options: Further ones of ``eval/evaluate.py``: of the task's cases and how they are asked, such as ``--merge``.
    """

    data: str = "refshapes"
    split: str | None = None
    episodes: int | None = None
    options: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        sam: What the methods work on that learn nothing: a released SAM's name (``vit_h``) or checkpoint, or a saved
            model's folder or a packaged one's name, whose frozen SAM is taken.
        ours: Names of the methods that all others are subtracted from.
        methods: In the table's order.
        seeds: Of the training runs; what learns nothing is asked once.
        data: By task.
    """

    sam: str
    ours: list[str]
    methods: list[ComparedMethod] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    data: dict[str, AskedData] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [method.folder for method in self.methods]
        if len(set(names)) < len(names):
            raise ValueError(f"methods need different names, got {[m.name for m in self.methods]}")
        named = {method.name: method for method in self.methods}
        if not self.ours or set(self.ours) - named.keys():
            raise ValueError(f"ours must be a list, of {list(named)}, got {self.ours!r}")
        for method in self.methods:
            if method.runs is not None and not method.shares(named.get(method.runs)):
                raise ValueError(
                    f"{method.name}: runs must name a method with train= whose models {method.method} can ask, "
                    f"got {method.runs!r}"
                )
        unknown = self.data.keys() - set(TASKS)
        if unknown or not self.data:
            raise ValueError(f"data must be {{task: cases}} of {TASKS}, got {sorted(self.data)}")
        if not self.seeds:
            raise ValueError("seeds must name at least one run")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds must be different and at least 0, got {list(self.seeds)}")

    def trainer(self, method: ComparedMethod) -> ComparedMethod | None:
        """Whose runs a method asks, its own or another's; None of what learns nothing."""
        named = {m.name: m for m in self.methods}
        trainer = method if method.runs is None else named[method.runs]
        return None if trainer.train is None else trainer


def read_comparison(path: Path) -> Comparison:
    """The comparison in a YAML file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a key is unknown, a value of the wrong type, or things don't fit together.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no comparison {path}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or not isinstance(values.get("data"), dict):
        raise ValueError(f"{path} must have sam, ours, methods and data, a mapping of tasks")
    data = {task: {} if entry is None else entry for task, entry in values["data"].items()}
    return fill_settings(Comparison, str(path), {**values, "data": data})


@dataclass
class Outcome:
    """What came of one method.

    Attributes:
        metrics: By task, the headline metric of each seed's run.
        trained_parameters: How many numbers training found.
        training_seconds: Of each seed's run that was measured whole; empty for what learns nothing.
        answer_seconds: By task, median seconds an answer: a mask of a picture, or of an object in a frame.
    """

    metrics: dict[Task, list[Metric]] = field(default_factory=dict)
    trained_parameters: int = 0
    training_seconds: list[float] = field(default_factory=list)
    answer_seconds: dict[Task, float] = field(default_factory=dict)

    def parts(self, task: Task) -> Values:
        """A task's parts, ``(units, ...)``, averaged over seeds: the methods' mean on the same units."""
        return np.mean([metric.parts for metric in self.metrics[task]], axis=0)

    def of_seeds(self, task: Task) -> list[float]:
        """The headline of each seed's run."""
        return [metric.value for metric in self.metrics[task]]

    def interval(self, task: Task) -> Interval:
        """The headline with its 95 % interval over units."""
        return bootstrap(self.parts(task), mean_of_ratios, unit=self.metrics[task][0].unit)

    def ahead_of(self, other: Outcome, task: Task) -> Interval:
        """How far it is ahead, with the 95 % interval of a paired bootstrap over the same units."""
        unit = self.metrics[task][0].unit
        return paired_bootstrap(self.parts(task), other.parts(task), mean_of_ratios, unit=unit)


def _ahead(ours: Outcome, other: Outcome) -> dict[Task, Interval]:
    """How far one is ahead of the other, by task; of those that both are asked."""
    return {task: ours.ahead_of(other, task) for task in other.metrics if task in ours.metrics}


def as_json(comparison: Comparison, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """All numbers, in JSON's types."""
    told: dict[str, Any] = {}
    for name, outcome in outcomes.items():
        told[name] = {
            "tasks": {
                task: vars(outcome.interval(task)) | {"metric": HEADLINES[task], "seeds": outcome.of_seeds(task)}
                for task in outcome.metrics
            },
            "ours_ahead": {
                ours: {task: vars(interval) for task, interval in _ahead(outcomes[ours], outcome).items()}
                for ours in comparison.ours
                if name != ours
            },
            "trained_parameters": outcome.trained_parameters,
            "training_seconds": outcome.training_seconds,
            "answer_seconds": outcome.answer_seconds,
        }
    return told


# ---- Tables ----


def results_table(comparison: Comparison, outcomes: Mapping[str, Outcome]) -> str:
    """A method a row, in Markdown: headlines with intervals, what was trained, how long it took."""
    tasks = [task for task in TASKS if task in comparison.data]
    heads = [f"{task} {HEADLINES[task]}" for task in tasks]
    rows = [["method", *heads, "parameters trained", "training", "ms a mask of a picture, or of an object in a frame"]]
    for name, outcome in outcomes.items():
        cells = [_result(outcome, task) if task in outcome.metrics else "" for task in tasks]
        minutes = f"{np.mean(outcome.training_seconds) / 60:.1f} min" if outcome.training_seconds else ""
        times = ", ".join(f"{task} {1000 * seconds:.0f}" for task, seconds in outcome.answer_seconds.items())
        rows.append([name, *cells, f"{outcome.trained_parameters:,}", minutes, times])
    return _markdown(rows)


def _result(outcome: Outcome, task: Task) -> str:
    """``value [low, high]`` over cases, and ``(lowest-highest)`` of several seeds."""
    seeds = outcome.of_seeds(task)
    return f"{outcome.interval(task)}" + (f" ({min(seeds):.3f}-{max(seeds):.3f})" if len(seeds) > 1 else "")


def differences_table(ours: str, comparison: Comparison, outcomes: Mapping[str, Outcome]) -> str:
    """How far one of ours is ahead of each other method on the same units, in Markdown; bold where 0 is outside."""
    tasks = [task for task in TASKS if task in comparison.data]
    rows = [[f"{ours} less", *(f"{task} {HEADLINES[task]}" for task in tasks)]]
    for name, outcome in outcomes.items():
        ahead = _ahead(outcomes[ours], outcome) if name != ours else {}
        if ahead:
            rows.append([name, *(_difference(ahead[task]) if task in ahead else "" for task in tasks)])
    return _markdown(rows)


def _difference(told: Interval) -> str:
    return f"**{told}**" if told.low > 0 or told.high < 0 else str(told)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n"
