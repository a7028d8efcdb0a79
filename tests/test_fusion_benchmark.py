"""The benchmark of UniFusion: what it compares, what it writes, what it refuses."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sam_uniref.adapters import attention
from sam_uniref.eval import fusion_benchmark
from sam_uniref.eval.benchmark import main
from sam_uniref.eval.fusion_benchmark import (
    FLASH,
    FROZEN,
    FUSED,
    OURS,
    TRAINED,
    UNFUSED,
    WAYS,
    annotated_picture,
    choose_way,
    forward_and_backward,
    made_up_fusion,
    made_up_inputs,
    made_up_levels,
    peak_of,
    usable_ways,
)

SMALL = ["fusion", "--channels", "16", "--head-width", "16", "--runs", "1"]


def test_all_ways_of_attention_and_both_memories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.json"
    options = ["--image-size", "192", "--heads", "1,8", "--frames", "1,5,6,50", "--device", "cpu", "--json", str(out)]
    assert main([*SMALL, *options]) == 0
    written = json.loads(out.read_text())
    assert written["device"].startswith("cpu")
    assert (written["image_size"], written["runs"]) == (192, 1)
    by_case = {(row["features"], row["heads"], row["implementation"]): row for row in written["rows"]}
    ways = (OURS, FUSED, UNFUSED)
    assert list(by_case) == [(kind, heads, way) for kind in (FROZEN, TRAINED) for heads in (1, 8) for way in ways]
    for heads in (1, 8):  # what is learnt from keys takes products too
        assert by_case[TRAINED, heads, OURS]["floor_seconds"] > by_case[FROZEN, heads, OURS]["floor_seconds"]
    rows = {(heads, way): row for (kind, heads, way), row in by_case.items() if kind == FROZEN}
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
    for way in usable_ways(cpu, torch.float32, 16):
        with choose_way(module, way):
            results.append(module(features, [reference]))
    assert "attend" not in vars(module)
    for other in results[1:]:
        for got, wanted in zip(other, results[0], strict=True):
            torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(("way", "kernel"), [(FUSED, "attend_sdpa"), (UNFUSED, "attend_sdpa"), (FLASH, "attend_flash")])
def test_what_is_installed_chooses_no_way(way: str, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where flash-attn is installed and usable, PyTorch's kernels are measured all the same."""
    taken: list[str] = []

    def stand_in(name: str) -> Callable[..., torch.Tensor]:
        def attend(queries: torch.Tensor, *_: object) -> torch.Tensor:
            taken.append(name)
            return queries

        return attend

    monkeypatch.setattr(attention, "flash_is_usable", lambda *_: True)
    monkeypatch.setattr(attention, "attend_flash", stand_in("attend_flash"))
    for name in ("attend_sdpa", "attend_flash"):
        monkeypatch.setattr(fusion_benchmark, name, stand_in(name))
    arguments = argparse.Namespace(image_size=64, channels=16, head_width=16)
    cpu = torch.device("cpu")
    module, (features, reference) = made_up_fusion(arguments, 2, cpu), made_up_inputs(arguments, cpu, FROZEN)
    with choose_way(module, way):
        module(features, [reference])
    assert set(taken) == {kernel}


def test_flash_attention_is_a_way_where_it_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert usable_ways(cpu, torch.bfloat16, 256) == (OURS, FUSED, UNFUSED)
    monkeypatch.setattr(fusion_benchmark, "flash_is_usable", lambda *_: True)
    assert usable_ways(cpu, torch.bfloat16, 256) == WAYS


@pytest.mark.parametrize("kind", [FROZEN, TRAINED])
def test_what_gets_gradients(kind: str) -> None:
    arguments = argparse.Namespace(image_size=64, channels=16, head_width=16)
    cpu = torch.device("cpu")
    features, reference = made_up_inputs(arguments, cpu, kind)
    of_encoder = (*features, *reference.keys, *reference.pooled)
    assert {tensor.requires_grad for tensor in of_encoder} == {kind == TRAINED}
    assert all(values.requires_grad for values in reference.values)
    module = made_up_fusion(arguments, 2, cpu)
    forward_and_backward(module, features, reference, cpu)
    held = (*of_encoder, *reference.values, *module.parameters())
    assert all(tensor.grad is None for tensor in held), "gradients would count in the next peak"


def test_its_other_name(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--image-size", "64", "--heads", "1", "--frames", "1", "--device", "cpu", "--features", TRAINED]
    assert main(["unifusion", *SMALL[1:], *options]) == 0
    assert "| fusion | as written, fused | UniFusion 1 x 16 |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "fusion (unifusion)" in capsys.readouterr().out


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
        (["--features", "frozn"], "'frozn' is none of frozen, trained; did you mean 'frozen'?"),
        (["--precision", "bfloat16"], "'bfloat16' is called bf16 here"),
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
