"""What an evaluation writes for programs: ``results.json`` and tables of samples, objects and videos.

``results.json`` is ``{task: {metric: {"value", "low", "high", "n", "unit"}}}``: the metric in 0-1 (decay in [-1, 1]),
the ends of its 95 % interval, and the number and kind of the units resampled for it. Older files have the value
alone in place of the last mapping; `read_values` reads both.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from sam_uniref.data.batch import Task
from sam_uniref.state import whole_file

Results = dict[Task, dict[str, dict[str, Any]]]


def read_values(path: Path) -> dict[str, dict[str, float]]:
    """The metrics alone of a ``results.json``: ``{task: {metric: value}}``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is broken.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there are no results {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            task: {name: float(told["value"] if isinstance(told, dict) else told) for name, told in metrics.items()}
            for task, metrics in content.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} holds no results ({error}); evaluate again") from error


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of the same keys as CSV; the file is whole or not there."""
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def results_table(results: Results, title: str) -> Table:
    """A row a metric of each task."""
    table = _table(title, "task", "metric")
    for task, metrics in results.items():
        for name, told in metrics.items():
            table.add_row(task, name, *metric_cells(told))
        table.add_section()
    return table


def metrics_table(metrics: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """A row a metric."""
    table = _table(title, "metric")
    for name, told in metrics.items():
        table.add_row(name, *metric_cells(told))
    return table


def metric_cells(told: Mapping[str, Any]) -> tuple[str, str, str]:
    """A metric's value, interval and units, to people."""
    return f"{told['value']:.4f}", f"{told['low']:.4f} to {told['high']:.4f}", f"{told['n']} ({told['unit']})"


def _table(title: str, *names: str) -> Table:
    """The columns of a table of metrics: what tells them apart, then `metric_cells`."""
    table = Table(*names, title=title)
    for name in ("value", "95 % interval", "n"):
        table.add_column(name, justify="right")
    return table
