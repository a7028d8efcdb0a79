"""The benchmark of UniFusion: what it compares, what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sam_uniref.eval.benchmark import main
from sam_uniref.eval.fusion_benchmark import choose_attention, peak_of

SMALL = ["fusion", "--channels", "16", "--head-width", "16", "--runs", "1"]


def test_both_ways_of_attention_and_both_memories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.json"
    options = ["--image-size", "192", "--heads", "1,8", "--frames", "1,5,6,50", "--device", "cpu", "--json", str(out)]
    assert main([*SMALL, *options]) == 0
    written = json.loads(out.read_text())
    assert written["device"].startswith("cpu")
    assert written["device"].endswith("192 px, float32, 1 runs")
    attention = {(row["heads"], row["attention"]): row for row in written["attention"]}
    assert list(attention) == [(1, "fused"), (1, "unfused"), (8, "fused"), (8, "unfused")]
    assert all(row["forward_seconds"] > 0 and row["backward_seconds"] > 0 for row in attention.values())
    # Weights of 8 heads, 24 x 24 cells and those of two other pictures.
    weights = 8 * 24**2 * 2 * 24**2 * 4 / 1e6
    assert attention[8, "unfused"]["peak_memory_mb"] > attention[8, "fused"]["peak_memory_mb"] + weights / 2
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
    assert "unfused" in capsys.readouterr().out


def test_both_ways_give_the_same() -> None:
    queries, keys, values = torch.randn(3, 1, 2, 40, 8, generator=torch.Generator().manual_seed(0)).unbind()
    results = []
    for attention in ("fused", "unfused"):
        with choose_attention(attention):
            results.append(torch.nn.functional.scaled_dot_product_attention(queries, keys, values))
    torch.testing.assert_close(*results)


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
