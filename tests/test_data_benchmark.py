"""The benchmark of data, at a small scale: what it makes, measures, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sam_uniref.eval.benchmark import main


def test_tables_and_loaders_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "figures.json"
    small = ["--rows", "60", "--frames", "40", "--samples", "20", "--image-size", "64", "--workers", "1"]
    assert main(["data", *small, "--folder", str(tmp_path), "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    images, videos = figures["tables"]
    assert (images["table"], images["rows"]) == ("images", 60)
    assert (videos["table"], videos["rows"]) == ("videos", 40)
    for cost in (images, videos):
        assert all(cost[name] > 0 for name in ("prepare_seconds", "prepare_peak_mb", "megabytes", "open_seconds"))
        assert 0 < cost["row_milliseconds"] < 100
    assert [(cost["loader"], cost["workers"]) for cost in figures["loaders"]] == [("ours", 1), ("pycocotools", 1)]
    assert all(cost["samples_per_second"] > 0 for cost in figures["loaders"])
    assert "pycocotools" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]  # what it made up is gone


def test_numbers_that_are_too_small(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--samples", "3"]) == 2
    assert capfd.readouterr().err == "error: --samples must be at least 20, got 3\n"
