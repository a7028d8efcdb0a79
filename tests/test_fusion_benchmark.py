"""The benchmark of UniFusion: what it compares, what it writes, what it refuses."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

from sam_uniref.eval.benchmark import main
from sam_uniref.eval.fusion_benchmark import (
    FUSED,
    OURS,
    UNFUSED,
    WAYS,
    annotated_picture,
    choose_way,
    made_up_fusion,
    made_up_levels,
    peak_of,
)

SMALL = ["fusion", "--channels", "16", "--head-width", "16", "--runs", "1"]


def test_all_ways_of_attention_and_both_memories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.json"
    options = ["--image-size", "192", "--heads", "1,8", "--frames", "1,5,6,50", "--device", "cpu", "--json", str(out)]
    assert main([*SMALL, *options]) == 0
    written = json.loads(out.read_text())
    assert written["device"].startswith("cpu")
    assert (written["image_size"], written["runs"]) == (192, 1)
    rows = {(row["heads"], row["implementation"]): row for row in written["rows"]}
    assert list(rows) == [(heads, way) for heads in (1, 8) for way in WAYS]
    for row in rows.values():
        assert row["model"] == f"UniFusion {row['heads']} x 16"
        assert row["seconds"] == pytest.approx(row["forward_seconds"] + row["backward_seconds"])
        assert row["samples_per_second"] == pytest.approx(1 / row["seconds"])
        assert row["gap"] == pytest.approx(row["seconds"] / row["floor_seconds"])
    # Weights of 8 heads, 24 x 24 cells and those of two other pictures.
    weights = 8 * 24**2 * 2 * 24**2 * 4 / 1e6
    for way in (OURS, FUSED):
        assert rows[8, UNFUSED]["peak_memory_mb"] > rows[8, way]["peak_memory_mb"] + weights / 2
    video = [(row["memory"], row["frame"], row["references"]) for row in written["video"]]
    ours, bank = "first and previous", "bank"
    assert video == [
        *((ours, 1, 1), (bank, 1, 1), (ours, 5, 2), (bank, 5, 1)),
        *((ours, 6, 2), (bank, 6, 2), (ours, 50, 2), (bank, 50, 10)),
    ]
    cells = 24**2 + 12**2 + 6**2 + 3**2
    one = (cells * (8 * 16 + 16) + 4 * 16) * 4 / 1e6
    for row in written["video"]:
        assert row["held_mb"] == pytest.approx(row["references"] * one)
        assert row["frames_per_second"] == pytest.approx(1 / row["seconds"])
    assert UNFUSED in capsys.readouterr().out


def test_all_ways_give_the_same() -> None:
    arguments = argparse.Namespace(image_size=64, channels=16, head_width=16)
    cpu = torch.device("cpu")
    module, features = made_up_fusion(arguments, 2, cpu), made_up_levels(arguments, cpu, 0)
    reference = annotated_picture(arguments, cpu, 1)
    results = []
    for way in WAYS:
        with choose_way(module, way):
            results.append(module(features, [reference]))
    assert "attend" not in vars(module)
    for other in results[1:]:
        for got, wanted in zip(other, results[0], strict=True):
            torch.testing.assert_close(got, wanted)


def test_a_peak_is_what_came_on_top() -> None:
    held = torch.ones(10_000_000)
    peaks: list[float] = []
    with peak_of(torch.device("cpu"), peaks):
        torch.ones(25_000_000)
    assert 80 < peaks[0] < 130
    assert len(held) == 10_000_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image-size", "100"], "--image-size must be a positive multiple of 64, got 100"),
        (["--image-size", "0"], "--image-size must be a positive multiple of 64, got 0"),
        (["--runs", "0"], "--runs must be at least 1, got 0"),
        (["--head-width", "0"], "--head-width must be at least 1, got 0"),
        (["--heads", "1,0"], "whole numbers from 1 on, such as 1,2,4, are needed, got '1,0'"),
        (["--device", "nowhere"], "nowhere"),
    ],
)
def test_bad_input(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([*SMALL, *options])
    except SystemExit as exit_:
        code = exit_.code  # type: ignore[assignment]
    assert code == 2
    assert message in capsys.readouterr().err
