"""The image encoder on a GPU: the same answers, and the goals of speed beside other implementations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sam_uniref.eval.benchmark import main
from sam_uniref.eval.encoders import COMPILED, ORIGINAL, OURS, TRANSFORMERS, random_encoder
from sam_uniref.sam import ImageEncoder
from sam_uniref.sam.compilation import CompiledBlocks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@torch.no_grad()
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bf16", 3e-2), ("fp16", 1e-2)])
def test_answers_as_segment_anything(precision: str, tolerance: float, compiled: bool) -> None:
    """ViT-B at 512 px has windows that are filled up, and a grid large enough for FlexAttention."""
    theirs = random_encoder("vit_b", 512).cuda().eval()
    pixels = torch.randn(2, 3, 512, 512, device="cuda")
    wanted = theirs(pixels)
    ours = ImageEncoder(theirs)
    ours.hold_in(precision)
    if compiled:
        ours.run_frozen_block = blocks = CompiledBlocks()
    got = ours(pixels)
    assert not compiled or blocks.works
    assert float((got - wanted).abs().max() / wanted.abs().max()) < tolerance


def test_gradients_flow_in_half_precision() -> None:
    ours = ImageEncoder(random_encoder("tiny", None)).cuda()
    ours.hold_in("bf16")
    pixels = torch.randn(1, 3, 128, 128, device="cuda", requires_grad=True)
    ours(pixels).square().mean().backward()
    assert pixels.grad is not None
    assert bool(pixels.grad.isfinite().all())
    assert bool(pixels.grad.any())


def measured(size: str, folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of the benchmark by implementation and precision."""
    options = ["--size", size, "--batch-size", "4", "--runs", "10", "--compile", "--json", str(folder / "rows.json")]
    assert main(["encoder", *options]) == 0
    rows = json.loads((folder / "rows.json").read_text())["rows"]
    return {(row["implementation"], row["precision"]): row for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("size", ["vit_b", "vit_l", "vit_h"])
def test_as_fast_as_was_promised(size: str, tmp_path: Path) -> None:
    rows = measured(size, tmp_path)
    ours = max(rows[name, "bf16"]["images_per_second"] for name in (OURS, COMPILED))
    assert ours >= 6 * rows[ORIGINAL, "float32"]["images_per_second"]
    assert ours >= 1.5 * rows[TRANSFORMERS, "bf16"]["images_per_second"]
    if size == "vit_h":
        assert min(rows[name, "bf16"]["gap"] for name in (OURS, COMPILED)) <= 1 / 0.55
    assert min(rows[name, "bf16"]["mask_iou"] for name in (OURS, COMPILED)) >= 0.9


def test_masks_of_a_point_beside_other_implementations(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    assert main(["encoder", "--size", "tiny", "--pictures", "--runs", "2", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert {row["benchmark"] for row in rows} == {"encoder", "picture"}
    for row in rows:
        assert row["mask_iou"] > (0.99 if row["precision"] == "float32" else 0.8)
