"""On a GPU: the same answers as on the CPU, and half precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import disc, picture, tiny_model
from tiny_uniref import tiny_uniref

from sam_uniref import FrameResult, Predictor, SamRef
from sam_uniref.eval.benchmark import main
from sam_uniref.eval.fusion_benchmark import FLASH, FROZEN, FUSED, OURS, TRAINED, UNFUSED
from sam_uniref.eval.train_benchmark import FROM_CACHE, WITH_ENCODER

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def tracked(model: Predictor) -> list[FrameResult]:
    frames = [picture(60, 80, seed) for seed in range(6)]
    masks = {1: disc(60, 80, center=(0.3, 0.3)), 2: disc(60, 80, center=(0.6, 0.7))}
    return list(model.track(frames, masks=masks, texts={3: "the dog"}, score_threshold=-1e9))


@pytest.mark.parametrize("kind", ["samref", "uniref"])
def test_tracking_answers_as_on_the_cpu(kind: str) -> None:
    model = tiny_model(noise=0.05) if kind == "samref" else tiny_uniref(noise=0.03)
    expected = tracked(model)
    for got, wanted in zip(tracked(model.to("cuda")), expected, strict=True):
        for object_id, score in wanted.scores.items():
            assert got.scores[object_id] == pytest.approx(score, abs=1e-3)
        assert np.mean(got.labels != wanted.labels) < 0.01


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(precision: torch.dtype) -> None:
    model = SamRef.from_pretrained("tiny").to("cuda")
    expected = tracked(model)
    with torch.autocast("cuda", precision):
        halved = tracked(model)
    differences = [np.mean(a.labels != b.labels) for a, b in zip(halved, expected, strict=True)]
    assert float(np.mean(differences)) < 0.05


def test_the_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--objects", "1,4", "--frames", "3", "--reference-cost", "--precision", "bf16"]
    assert main(["track", "--model", "tiny", *options]) == 0
    assert "cuda" in capsys.readouterr().out


def rows_of(path: Path, options: list[str]) -> list[dict[str, Any]]:
    assert main([*options, "--json", str(path)]) == 0
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_benchmark_of_unifusion(precision: str, tmp_path: Path) -> None:
    options = ["--frames", "1,20", "--runs", "3", "--precision", precision]
    rows = rows_of(tmp_path / "rows.json", ["fusion", *options])
    by_case = {(row["features"], row["heads"], row["implementation"]): row for row in rows}
    for kind in (FROZEN, TRAINED):
        for way in (OURS, FUSED):
            for heads in (1, 8):
                peak = by_case[kind, heads, way]["peak_memory_mb"]
                assert peak < by_case[kind, heads, UNFUSED]["peak_memory_mb"] / 2
            assert by_case[kind, 8, way]["seconds"] < by_case[kind, 8, UNFUSED]["seconds"]


def test_unifusion_with_flash_attention(tmp_path: Path) -> None:
    pytest.importorskip("flash_attn")
    options = ["--frames", "1", "--runs", "3", "--heads", "8", "--precision", "bf16"]
    rows = rows_of(tmp_path / "rows.json", ["fusion", *options])
    by_case = {(row["features"], row["implementation"]): row for row in rows}
    for kind in (FROZEN, TRAINED):
        assert by_case[kind, FLASH]["peak_memory_mb"] < by_case[kind, UNFUSED]["peak_memory_mb"] / 2
        assert by_case[kind, FLASH]["seconds"] < by_case[kind, UNFUSED]["seconds"]


@pytest.mark.slow
def test_the_image_stage_with_and_without_cache(tmp_path: Path) -> None:
    options = ["--size", "vit_b", "--tasks", "ris,fss", "--precision", "bf16", "--runs", "5"]
    rows = rows_of(tmp_path / "rows.json", ["train", *options])
    rates = {(row["task"], row["implementation"]): row["samples_per_second"] for row in rows}
    for task in ("ris", "fss"):
        assert rates[task, FROM_CACHE] > rates[task, WITH_ENCODER]
