"""The benchmark of J&F, at a small scale: what it measures, writes and refuses."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from id_folders import moving_objects, write_ids

from sam_uniref.eval import metrics_benchmark
from sam_uniref.eval.benchmark import main
from sam_uniref.eval.conventions import VOS_BENCHMARK
from sam_uniref.eval.score_videos import score_videos


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    for name in ("first", "second"):
        write_ids(tmp_path / "truth" / name, moving_objects(9, 2))
        write_ids(tmp_path / "predictions" / name, np.roll(moving_objects(9, 2), 1, axis=1))
    return ["metrics", "--truth", str(tmp_path / "truth"), "--predictions", str(tmp_path / "predictions")]


def stand_in(off: float) -> ModuleType:
    """Answers in vos-benchmark's form, and writes into the folder of predictions as it does."""
    module = ModuleType("vos_benchmark.benchmark")

    def benchmark(truths: list[str], predictions: list[str], num_processes: int, *, verbose: bool) -> Any:
        assert (num_processes, verbose) == (1, False)
        (Path(predictions[0]) / "results.csv").write_text("")
        by_video: dict[str, tuple[dict[int, float], dict[int, float]]] = {}
        for (name, object_id), scores in score_videos(predictions[0], truths[0], VOS_BENCHMARK, workers=0).items():
            j, f = by_video.setdefault(name, ({}, {}))
            j[object_id], f[object_id] = 100 * (scores.j.mean() + off), 100 * scores.f.mean()
        return [0.0], [0.0], [0.0], [by_video]

    module.benchmark = benchmark  # type: ignore[attr-defined]
    return module


def test_all_ways_are_measured_side_by_side(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vos_benchmark", ModuleType("vos_benchmark"))
    monkeypatch.setitem(sys.modules, "vos_benchmark.benchmark", stand_in(0.25))
    assert main([*folders, "--runs", "1", "--json", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["frames"], figures["runs"]) == (18, 1)
    rows = [(row["what"], row["processes"]) for row in figures["rows"]]
    assert rows == [("floor", 1), ("ours", 1), ("ours", 2), ("vos-benchmark", 1)]
    assert all(row["seconds_median"] >= row["seconds_least"] > 0 < row["seconds_first"] for row in figures["rows"])
    assert figures["rows"][3]["of_vos_benchmark"] == 1
    assert figures["largest_difference"] == pytest.approx(0.25)
    assert "Largest difference from vos-benchmark's J and F: 2.5e-01" in capsys.readouterr().out
    assert not list((tmp_path / "predictions").glob("*.csv")), "it ran on a copy"


def test_without_vos_benchmark(
    folders: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vos_benchmark", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "vos_benchmark.benchmark", None)  # type: ignore[arg-type]
    assert main([*folders, "--runs", "1"]) == 0
    assert "pip install 'sam_uniref[bench]'" in capsys.readouterr().out


def test_what_vos_benchmark_lacks_is_named(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is installed, and a package that it imports is not."""
    package = tmp_path / "site" / "vos_benchmark"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "benchmark.py").write_text("import a_package_of_its_own\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for name in ("vos_benchmark", "vos_benchmark.benchmark"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert main([*folders, "--runs", "1"]) == 0
    assert "vos-benchmark was left out: No module named 'a_package_of_its_own'" in capsys.readouterr().out
    sys.modules.pop("vos_benchmark", None)


def test_the_first_round_is_told_apart(folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_benchmark, "_vos_benchmark", lambda: (None, "none"))
    slow = iter((0.4, 0.0))
    monkeypatch.setattr(metrics_benchmark, "_read", lambda *_: time.sleep(next(slow)))
    assert main([*folders, "--runs", "1", "--json", str(tmp_path / "figures.json")]) == 0
    floor = json.loads((tmp_path / "figures.json").read_text())["rows"][0]
    assert floor["seconds_median"] < 0.4 <= floor["seconds_first"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--runs", "0"], "--runs must be at least 1, got 0"),
        (["--workers", "1"], "--workers must be at least 2, got 1"),
    ],
)
def test_numbers_that_are_too_small(
    folders: list[str], option: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*folders, *option]) == 2
    assert capfd.readouterr().err == f"error: {message}\n"


def test_a_missing_mask(folders: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "predictions" / "first" / "00003.png").unlink()
    assert main(folders) == 2
    assert "first/00003.png; the truth has that frame" in capfd.readouterr().err
