"""The benchmark of a training step: its rows, what they are made of, and what it refuses."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sam_uniref.eval import train_benchmark
from sam_uniref.eval.benchmark import main
from sam_uniref.eval.floor import Peaks, counted_flops
from sam_uniref.eval.made_up_training import MadeUpTraining
from sam_uniref.eval.side_by_side import in_fresh_process, seconds_in_turns
from sam_uniref.eval.train_benchmark import (
    AS_WRITTEN,
    ENCODER,
    FROM_CACHE,
    STEP,
    WITH_ENCODER,
    share_of_possible,
    ways_of,
)

CPU = torch.device("cpu")


def rows_of(path: Path, options: list[str]) -> list[dict[str, Any]]:
    assert main([*options, "--device", "cpu", "--runs", "1", "--json", str(path)]) == 0
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


def test_the_rows_of_a_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(tmp_path / "rows.json", ["train", "--size", "tiny", "--tasks", "vos"])
    assert [row["implementation"] for row in rows] == [WITH_ENCODER, ENCODER, FROM_CACHE, STEP, AS_WRITTEN]
    for row in rows:
        assert (row["benchmark"], row["model"], row["task"], row["batch_size"]) == ("train", "tiny", "vos", 2)
        assert row["samples_per_second"] == pytest.approx(2 / row["seconds"])
        assert row["gap"] == pytest.approx(row["seconds"] / row["floor_seconds"])
        assert 0 < row["peak_less_weights_mb"] < row["peak_memory_mb"]
        assert row["flops"] > 0
    by_name = {row["implementation"]: row for row in rows}
    # A step from the cache is a step; with the encoder it is that and the encoder's work.
    assert by_name[FROM_CACHE]["flops"] == by_name[STEP]["flops"]
    assert by_name[WITH_ENCODER]["flops"] == by_name[STEP]["flops"] + by_name[ENCODER]["flops"]
    seconds = {name: row["seconds"] for name, row in by_name.items()}
    assert by_name[FROM_CACHE]["of_possible"] == pytest.approx(share_of_possible(seconds))
    assert all(row["of_possible"] is None for name, row in by_name.items() if name != FROM_CACHE)
    shown = capsys.readouterr().out
    assert "| train | training from the cache | tiny |" in shown
    assert "transformers" in shown


def test_a_row_a_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_benchmark, "in_fresh_process", lambda function, *given: (90.0, 20.0))
    options = ["--size", "tiny", "--tasks", "fss", "--batch-size", "1", "--without-encoder", "--threads", "1"]
    rows = rows_of(tmp_path / "rows.json", ["train", *options, "--precision", "float32,bf16"])
    names = (FROM_CACHE, STEP, AS_WRITTEN)
    assert [(row["precision"], row["implementation"]) for row in rows] == [
        (precision, name) for precision in ("float32", "bf16") for name in names
    ]


def test_without_the_encoder_nothing_is_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_benchmark, "in_fresh_process", lambda function, *given: (90.0, 20.0))
    options = ["train", "--size", "tiny", "--tasks", "ris", "--batch-size", "1", "--without-encoder"]
    rows = rows_of(tmp_path / "rows.json", options)
    assert [row["implementation"] for row in rows] == [FROM_CACHE, STEP, AS_WRITTEN]
    assert {(row["peak_memory_mb"], row["peak_less_weights_mb"]) for row in rows} == {(90.0, 70.0)}
    assert all(row["of_possible"] is None for row in rows)


def test_all_is_each_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sam_uniref.eval import benchmark

    given: list[argparse.Namespace] = []

    def run(arguments: argparse.Namespace) -> None:
        given.append(arguments)
        row = {"benchmark": arguments.what, "implementation": arguments.what}
        arguments.json.write_text(json.dumps({"device": "none", "rows": [row]}))

    for name in benchmark.COMPARISONS:
        monkeypatch.setattr(benchmark.COMMANDS[name][0], "run", run)
    rows = rows_of(tmp_path / "all.json", ["all", "--size", "tiny"])
    assert [row["implementation"] for row in rows] == [row["benchmark"] for row in rows] == list(benchmark.COMPARISONS)
    assert all((arguments.runs, arguments.device) == (1, "cpu") for arguments in given)
    assert [arguments.size for arguments in given[:2]] == ["tiny", ["tiny"]]
    defaults = (["float32", "bf16"], ["float32"], ["float32"])
    assert [(arguments.precision, arguments.threads) for arguments in given] == [(each, None) for each in defaults]
    assert (given[0].compile, given[0].pictures) == (False, False)
    given.clear()
    options = ["--precision", "bf16,fp16", "--threads", "1", "--compile", "--pictures"]
    rows_of(tmp_path / "all.json", ["all", "--size", "tiny", *options])
    assert all((arguments.precision, arguments.threads) == (["bf16", "fp16"], 1) for arguments in given)
    assert (given[0].compile, given[0].pictures) == (True, True)


@pytest.mark.parametrize("task", ["ris", "fss"])
def test_steps_from_the_cache_train(task: str, tmp_path: Path) -> None:
    training = MadeUpTraining("tiny", task, tmp_path, 2, "float32", CPU)  # type: ignore[arg-type]
    before = {name: tensor.clone() for name, tensor in training.model.trained_state_dict().items()}
    ways = ways_of(training)
    for name in (FROM_CACHE, AS_WRITTEN):
        ways[name]()
    changed = {n for n, tensor in training.model.trained_state_dict().items() if not torch.equal(tensor, before[n])}
    assert any(name.startswith("fusion.attention.") for name in changed)
    assert any(name.startswith("mask_decoder.") for name in changed)
    assert any(name.startswith("text_encoder.model.") for name in changed) == (task == "ris")
    assert all(group["fused"] for group in training.optimizer_groups)


def test_the_share_of_what_is_possible() -> None:
    seconds = {WITH_ENCODER: 10.0, ENCODER: 8.0, STEP: 2.0, FROM_CACHE: 2.5}
    assert share_of_possible(seconds) == pytest.approx(0.8)
    assert share_of_possible({STEP: 2.0, FROM_CACHE: 2.5}) is None


def test_counted_work_and_its_floor() -> None:
    left, right = torch.ones(8, 16, requires_grad=True), torch.ones(16, 4, requires_grad=True)
    assert counted_flops(lambda: left @ right) == 2 * 8 * 16 * 4
    assert counted_flops(lambda: (left @ right).sum().backward()) == 3 * 2 * 8 * 16 * 4
    peaks = Peaks(flops_per_second=100.0, bytes_per_second=10.0)
    assert peaks.floor(200.0) == 2.0
    assert peaks.floor(200.0, 30.0) == 3.0


def test_turns_are_taken_and_the_first_round_is_not_timed() -> None:
    taken: list[str] = []
    seconds = seconds_in_turns({"a": lambda: taken.append("a"), "b": lambda: taken.append("b")}, 2, CPU)
    assert taken == ["a", "b"] * 3
    assert [len(found) for found in seconds.values()] == [2, 2]


def test_a_fresh_process_has_as_many_threads() -> None:
    assert in_fresh_process(torch.get_num_threads) == torch.get_num_threads()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "huge"], "'huge' is none of tiny, vit_b, vit_l, vit_h"),
        (["--size", "vit_b,vit_g"], "'vit_g' is none of tiny, vit_b, vit_l, vit_h; did you mean 'vit_"),
        (["--precision", "bfloat16"], "'bfloat16' is called bf16 here"),
        (["--tasks", "ris,detection"], "'detection' is none of ris, fss, vos"),
        (["--runs", "0"], "--runs must be at least 1, got 0"),
        (["--workers", "-1"], "--workers must be at least 0, got -1"),
        (["--device", "nowhere"], "nowhere"),
    ],
)
def test_bad_input(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["train", *options])
    except SystemExit as exit_:
        code = exit_.code  # type: ignore[assignment]
    assert code == 2
    assert message in capsys.readouterr().err
