"""On a GPU: the same answers as on the CPU, and half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import disc, picture, tiny_model

from sam_uniref import FrameResult, SamRef
from sam_uniref.eval.benchmark import main

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def tracked(model: SamRef) -> list[FrameResult]:
    frames = [picture(60, 80, seed) for seed in range(6)]
    masks = {1: disc(60, 80, center=(0.3, 0.3)), 2: disc(60, 80, center=(0.6, 0.7))}
    return list(model.track(frames, masks=masks, texts={3: "the dog"}, score_threshold=-1e9))


def test_tracking_answers_as_on_the_cpu() -> None:
    model = tiny_model(noise=0.05)
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
