"""The benchmark of image encoders: what it counts, what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sam_uniref.eval.benchmark import main
from sam_uniref.eval.encoder_costs import Product, products
from sam_uniref.eval.encoders import IMPLEMENTATIONS, TRANSFORMERS, Case, build, noise, random_encoder
from sam_uniref.flop_counting import flop_counter
from sam_uniref.sam import ImageEncoder


def test_rows_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--size", "tiny", "--image-size", "64", "--batch-size", "2", "--runs", "2", "--threads", "1"]
    out = tmp_path / "rows.json"
    chosen = ["--implementations", "segment-anything,sam_uniref", "--device", "cpu", "--json", str(out)]
    assert main(["encoder", *options, *chosen]) == 0
    written = json.loads(out.read_text())
    rows = written["rows"]
    assert [(row["implementation"], row["precision"]) for row in rows] == [
        *(("segment-anything", "float32"), ("sam_uniref", "float32")),
        *(("segment-anything", "bf16"), ("sam_uniref", "bf16")),
    ]
    for row in rows:
        assert (row["model"], row["image_size"], row["batch_size"], row["threads"]) == ("tiny", 64, 2, 1)
        assert row["images_per_second"] == pytest.approx(2 / row["seconds_median"])
        assert 0 < row["seconds_fastest"] <= row["seconds_median"]
        assert row["peak_memory_mb"] > 50
        assert row["of_floor"] == pytest.approx(row["floor_seconds"] / row["seconds_median"])
    assert rows[1]["error"] < 1e-4 < rows[3]["error"] < 0.1
    assert written["floor"]["per_second"].keys() == {"float32", "bf16", "copy"}
    shown = capsys.readouterr().out
    assert shown.startswith("`tiny`, 64 px, batches of 2; cpu ")
    lines = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1
    assert "| segment-anything | float32 |" in lines[2]
    assert " | 1.00 x | " in lines[2]


@torch.no_grad()
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[:3])
@pytest.mark.parametrize("image_size", [96, 128])
def test_all_implementations_have_the_same_weights(implementation: str, image_size: int) -> None:
    encoder = random_encoder("tiny", image_size)
    for precision, tolerance in (("float32", 1e-4), ("bf16", 0.1)):
        case = Case(implementation, "tiny", precision, image_size, 2, "cpu", 1)
        got, wanted = build(case, encoder)(noise(case)), encoder(noise(case))
        assert float((got.float() - wanted).abs().max() / wanted.abs().max()) < tolerance


def test_no_weights_are_copied_for_transformers() -> None:
    encoder = random_encoder("tiny", None)
    before = encoder.blocks[0].attn.qkv.weight.data_ptr()
    case = Case(TRANSFORMERS, "tiny", "float32", 128, 1, "cpu", 1)
    build(case, encoder)
    assert encoder.blocks[0].attn.qkv.weight.data_ptr() == before


def test_what_is_counted_is_a_little_less_than_segment_anything_does() -> None:
    """It projects cells that only fill up windows, and has them ask too."""
    with torch.device("meta"):
        encoder = random_encoder("vit_b", None)
        with flop_counter() as counter:
            encoder(torch.empty(1, 3, 1024, 1024))
    counted = sum(product.operations for product in products(ImageEncoder(encoder), 1))
    assert 0.9 * counter.get_total_flops() < counted < counter.get_total_flops()


def test_a_product_is_counted() -> None:
    assert Product(3, 4, 5, count=2).operations == 2 * 2 * 60
    assert Product(3, 4, 5, count=2).elements == 2 * (12 + 20 + 15)
    assert Product(3, 4, 5, stored=False).elements == 12 + 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--implementations", "sam_uniref,nothing"], "'nothing' is none of segment-anything, transformers SDPA, "),
        (["--precisions", "int8"], "'int8' is none of float32, bf16, fp16"),
        (["--runs", "0"], "--runs must be at least 1, got 0"),
        (["--size", "tiny", "--image-size", "100"], "image_size must be a positive multiple"),
        (["--device", "nowhere"], "there is no device 'nowhere'"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["encoder", *arguments])
    except SystemExit as exit_:
        code = exit_.code  # type: ignore[assignment]
    assert code == 2
    assert message in capsys.readouterr().err
