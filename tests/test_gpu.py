"""On a GPU: the same answers as on the CPU, and half precision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import disc, picture, tiny_model
from tiny_uniref import tiny_uniref

from sam_uniref import FrameResult, Predictor, SamRef
from sam_uniref.eval.benchmark import main
from sam_uniref.eval.fusion_benchmark import FUSED, OURS, UNFUSED

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
    options = ["--objects", "1,4", "--frames", "3", "--reference-cost", "--precision", "bfloat16"]
    assert main(["track", "--model", "tiny", *options]) == 0
    assert "cuda" in capsys.readouterr().out


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_benchmark_of_unifusion(precision: str, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    options = ["--frames", "1,20", "--runs", "2", "--precision", precision, "--json", str(out)]
    assert main(["fusion", *options]) == 0
    rows = json.loads(out.read_text())["rows"]
    peaks = {(row["heads"], row["implementation"]): row["peak_memory_mb"] for row in rows}
    for heads in (1, 8):
        assert peaks[heads, OURS] < peaks[heads, UNFUSED] / 2
        assert peaks[heads, FUSED] < peaks[heads, UNFUSED] / 2
