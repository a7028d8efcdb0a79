"""The cases of a comparison: a protocol a task, and how objects are followed there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sam_uniref.data.batch import TASKS, Task
from sam_uniref.eval.asked_data import open_protocols
from sam_uniref.eval.comparison import AskedData
from sam_uniref.eval.evaluate import OF_CASES, check_arguments, parse_arguments, tracking_options
from sam_uniref.eval.predictor_method import TrackingOptions
from sam_uniref.eval.protocols import TaskProtocol

AnyProtocol = TaskProtocol[Any, Any]


@dataclass(frozen=True)
class ComparedCases:
    """A task's.

    Attributes:
        protocol: With its cases.
        tracking: Of our own models.
    """

    protocol: AnyProtocol
    tracking: TrackingOptions


def open_cases(data: Mapping[str, AskedData]) -> dict[Task, ComparedCases]:
    """The cases of each task, as `eval/evaluate.py` would open them.

    Raises:
        FileNotFoundError: If there is no such data set.
        ValueError: If it can't be asked the task, or an option is unknown or does nothing here.
    """
    cases: dict[Task, ComparedCases] = {}
    for task in (task for task in TASKS if task in data):
        try:
            cases[task] = _open(task, data[task])
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"data.{task}: {error}") from error
    return cases


def _open(task: Task, asked: AskedData) -> ComparedCases:
    """One task's."""
    foreign = [text for text in asked.options if text.startswith("--") and text.partition("=")[0] not in OF_CASES]
    if foreign:
        raise ValueError(f"options can be {', '.join(OF_CASES)}, got {foreign[0]}")
    given = {"--split": asked.split, "--episodes": asked.episodes}
    told = [text for name, value in given.items() if value is not None for text in (name, str(value))]
    # The model is another one each time; what is checked here is the same for all of them.
    command = ["--task", task, "--out", "", "--model", "", "--data", asked.data, *told, *asked.options]
    arguments = parse_arguments(command)
    check_arguments(arguments)
    return ComparedCases(open_protocols(arguments)[task], tracking_options(arguments))
