"""The page of an evaluation: complete by itself, without script, and every text escaped."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from accelerate import PartialState
from oracle import Oracle
from pages import Page
from prepared_sets import image_row, video_row, write_prepared

from sam_uniref.eval.drawing import curve, histogram
from sam_uniref.eval.measures import reported
from sam_uniref.eval.predictions import PredictionStore
from sam_uniref.eval.prepared_cases import PreparedClips, PreparedQueries, PreparedScenes
from sam_uniref.eval.protocols import FewShot, Referring, TaskProtocol, VideoObjects, VideoSentences
from sam_uniref.eval.report import SHOWN, TaskReport, check_place, write_report
from sam_uniref.eval.running import StoredPredictions, judge, predict
from sam_uniref.images import Mask

NASTY = '<script>alert("1")</script> & <b>bold</b>'


def half(mask: Mask) -> Mask:
    """The upper half of a right answer."""
    rows = np.flatnonzero(mask.any(axis=1))
    changed = mask.copy()
    if len(rows) > 1:
        changed[rows[len(rows) // 2] :] = False
    return changed


def told(protocol: TaskProtocol[Any, Any], folder: Path, change: Callable[[Mask], Mask] = half) -> TaskReport:
    state = PartialState(cpu=True)
    store = PredictionStore(folder / protocol.task, {})
    predict(Oracle(protocol, change), protocol, store, state)
    predictions = StoredPredictions(store)
    scores = judge(protocol, predictions, state)
    return TaskReport(protocol, predictions, scores, reported(protocol.measure(scores)))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four tasks on small sets."""
    place = tmp_path_factory.mktemp("report")
    root = place / "download"
    images = [image_row(root, n, category="a", sentences=(f"{NASTY} {n}",)) for n in range(4)]
    write_prepared(place / "images", root, {"val": images})
    write_prepared(place / "clips", root, {"val": [video_row(root, name, sentences=(NASTY,)) for name in ("x", "y")]})
    protocols: list[TaskProtocol[Any, Any]] = [
        Referring(PreparedScenes(place / "images", "val")),
        FewShot(PreparedQueries(place / "images", "val", shots=2), (1, 2)),
        VideoObjects(PreparedClips(place / "clips", "val", "vos")),
        VideoSentences(PreparedClips(place / "clips", "val", "rvos")),
    ]
    tasks = [told(protocol, place / "predictions") for protocol in protocols]
    return write_report(place / "out", f"the model {NASTY}", tasks)


def test_the_page_is_complete_by_itself(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    page = Page(report.parent)
    assert not re.search(r"https?:|file:|<script|<link|@import|url\(", text)
    assert not {tag for tag, _ in page.tags} & {"script", "b", "a", "iframe", "object", "form"}
    assert not any(name in ("href", "style") or name.startswith("on") for _, given in page.tags for name in given)
    sources = [str(given["src"]) for tag, given in page.tags if tag == "img"]
    files = {path.relative_to(report.parent).as_posix() for path in report.parent.rglob("*") if path.is_file()}
    assert len(sources) == len(set(sources))
    assert files == {"index.html", *sources}
    assert all(len(str(given["alt"])) > 3 for tag, given in page.tags if tag == "img")
    assert sum(tag == "svg" for tag, _ in page.tags) == 1 + 2 + 2 + 2, "histograms, and J&F over time"
    assert all(given["aria-label"] for tag, given in page.tags if tag == "svg")


def test_texts_stand_there_as_given(report: Path) -> None:
    shown = " ".join(text for texts in Page(report.parent).texts.values() for text in texts)
    assert f"the model {NASTY}" in shown
    assert f"“{NASTY} 0”" in shown


def test_metrics_stand_there_with_their_intervals(report: Path) -> None:
    texts = Page(report.parent).texts["td"]
    for name in ("oIoU", "Prec>0.5", "mIoU_by_class_2shot", "J&F", "F_decay"):
        place = texts.index(name)
        assert re.fullmatch(r"-?[01]\.\d{4}", texts[place + 1])
        assert re.fullmatch(r"-?[01]\.\d{4} to -?[01]\.\d{4}", texts[place + 2])
        assert re.fullmatch(r"\d+ \((image|class|video)\)", texts[place + 3])


def test_best_and_worst_are_told_apart(report: Path) -> None:
    names = {
        path.stem.rsplit("-", 1)[0] for path in (report.parent / "pictures").iterdir() if "example" not in path.stem
    }
    for task, scores in (("ris", 4), ("fss", 4), ("vos", 4), ("rvos", 2)):
        worst = min(SHOWN, scores // 2)
        best = min(SHOWN, scores - worst)
        shown = {f"{task}-worst-{k + 1}" for k in range(worst)} | {f"{task}-best-{k + 1}" for k in range(best)}
        assert {name for name in names if name.startswith(f"{task}-")} == shown


def test_nothing_else_is_replaced(report: Path, tmp_path: Path) -> None:
    check_place(report.parent)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds mine\.txt, which is of no report"):
        write_report(tmp_path, "", [])


def test_diagrams_of_little() -> None:
    for values in ([], [0.5], [0.0, 1.0, 1.0]):
        for draw in (histogram, curve):
            assert ElementTree.fromstring(draw(values, NASTY)).tag == "svg"  # noqa: S314 - our own
    assert histogram([0.0, 1.0, 1.0], "x").count("<rect") == 2
    assert "3 values, mean 0.667" in histogram([0.0, 1.0, 1.0], "x")
