"""An evaluation as a page: metrics with their intervals, how scores are distributed, the best and the worst cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam_uniref import page
from sam_uniref.eval.case_pictures import CasePictures
from sam_uniref.eval.drawing import curve, histogram
from sam_uniref.eval.figures import PICTURES
from sam_uniref.eval.protocols import TaskProtocol
from sam_uniref.eval.protocols.tracks import Tracks, over_time
from sam_uniref.eval.results import metric_cells
from sam_uniref.eval.running import Predictions
from sam_uniref.state import whole_folder

GENERATOR = "sam_uniref.eval.report"
SHOWN = 3
"""How many of the best cases are shown, and of the worst."""

_TITLES = {
    "ris": "Sentences (RIS)",
    "fss": "Examples (FSS)",
    "vos": "First masks in videos (VOS)",
    "rvos": "Sentences in videos (RVOS)",
}


@dataclass(frozen=True)
class TaskReport:
    """What the page tells of a task.

    Attributes:
        protocol: Of the task.
        predictions: That were scored.
        scores: Theirs.
        metrics: As ``results.json`` has them.
    """

    protocol: TaskProtocol[Any, Any]
    predictions: Predictions[Any]
    scores: Sequence[Any]
    metrics: dict[str, dict[str, Any]]


def check_place(out: Path) -> None:
    """Refuse to write a report where anything but a report is.

    Raises:
        FileExistsError: Naming what is there.
    """
    page.check_place(out, "report", GENERATOR, others=(PICTURES,))


def write_report(out: Path, subject: str, tasks: Sequence[TaskReport]) -> Path:
    """Write the page with its pictures; the folder is whole or not there. An earlier report is replaced.

    Args:
        out: Folder of the page.
        subject: What was evaluated.
        tasks: In the order in which they are told.

    Returns:
        The page.

    Raises:
        FileExistsError: If there is something else than a report, which would be replaced.
    """
    check_place(out)
    introduction = [
        subject,
        "Metrics are from 0 to 1. Intervals are the 95 % percentile bootstrap's: what is resampled, and how many there "
        "are, stands under n. Green is the truth, orange an answer.",
    ]
    with whole_folder(out) as folder:
        (folder / PICTURES).mkdir()
        sections = [_section(folder, task) for task in tasks]
        text = page.document("Evaluation", introduction, sections, generator=GENERATOR)
        (folder / page.PAGE).write_text(text, encoding="utf-8")
    return out / page.PAGE


def _section(folder: Path, told: TaskReport) -> str:
    """One task."""
    protocol = told.protocol
    rows = [(name, *metric_cells(metric)) for name, metric in told.metrics.items()]
    content = [
        page.listing(protocol.conventions),
        page.table(("metric", "value", "95 % interval", "n"), rows),
        *(page.drawing(histogram(values, name), name) for name, values in protocol.distributions(told.scores).items()),
    ]
    if isinstance(protocol, Tracks):
        name = "J&F over time: the mean over all tracks, from a video's first scored frame (0) to its last (1)"
        content.append(page.drawing(curve(over_time(told.scores), name), name))
    pictures = CasePictures(folder, protocol, told.predictions)
    best, worst = _extremes(protocol, told.scores)
    for title, chosen in (("best", best), ("worst", worst)):
        for number, score in enumerate(chosen, start=1):
            content.append(pictures.article(f"{protocol.task}-{title}-{number}", score))
    shown = f"{protocol.source.title}. At the end are the {len(best)} best and the {len(worst)} worst cases."
    return page.section(_TITLES[protocol.task], shown, content)


def _extremes(protocol: TaskProtocol[Any, Any], scores: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Scores of the best cases, best first, and of the worst, worst first; none is in both."""
    values = next(iter(protocol.distributions(scores).values()))
    order = sorted(range(len(scores)), key=lambda place: (values[place], place))
    worst = order[: min(SHOWN, len(order) // 2)]
    best = order[len(worst) :][-SHOWN:][::-1]
    return [scores[place] for place in best], [scores[place] for place in worst]
