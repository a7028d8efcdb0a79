"""The benchmark of image encoders: what it counts, what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sam_uniref.eval import encoder_benchmark
from sam_uniref.eval.benchmark import main
from sam_uniref.eval.encoder_costs import Product, products
from sam_uniref.eval.encoders import IMPLEMENTATIONS, TRANSFORMERS, Case, build, noise, random_encoder, random_sam
from sam_uniref.eval.whole_pictures import build_task, masks_of_points, mean_iou, prompted_host
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
        assert (row["benchmark"], row["model"], row["image_size"], row["batch_size"]) == ("encoder", "tiny", 64, 2)
        assert row["images_per_second"] == pytest.approx(2 / row["seconds"])
        assert 0 < row["seconds_fastest"] <= row["seconds"]
        assert row["peak_memory_mb"] > 50
        assert row["gap"] == pytest.approx(row["seconds"] / row["floor_seconds"])
        assert row["speed"] == pytest.approx(rows[0]["seconds"] / row["seconds"])
        assert row["memory"] == pytest.approx(row["peak_memory_mb"] / rows[0]["peak_memory_mb"])
    assert rows[1]["error"] < 1e-4 < rows[3]["error"] < 0.1
    assert rows[0]["mask_iou"] == 1
    assert 0.9 < rows[3]["mask_iou"] < rows[1]["mask_iou"] + 1e-6
    assert written["floor"]["per_second"].keys() == {"float32", "bf16", "copy"}
    assert {"torch", "segment-anything", "transformers"} <= written["versions"].keys()
    shown = capsys.readouterr().out
    assert shown.startswith("cpu ")
    assert "1 threads" in shown.splitlines()[0]
    lines = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1
    assert "| encoder | segment-anything | tiny | float32 |" in lines[2]
    assert "GFLOP of a point's masks" in shown


def test_a_picture_and_a_point_to_masks_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_benchmark, "peak_alone", lambda case: 200.0 if case.picture else 100.0)
    out = tmp_path / "rows.json"
    chosen = ["--size", "tiny", "--pictures", "--precision", "float32", "--runs", "1", "--device", "cpu"]
    assert main(["encoder", *chosen, "--json", str(out)]) == 0
    written = json.loads(out.read_text())
    rows = written["rows"]
    names = IMPLEMENTATIONS[:3]
    assert [(row["benchmark"], row["implementation"]) for row in rows] == [
        (what, name) for what in ("encoder", "picture") for name in names
    ]
    for row, alone in zip(rows[3:], rows[:3], strict=True):
        assert row["error"] is None
        assert row["mask_iou"] > 0.999
        assert row["floor_seconds"] > alone["floor_seconds"]
        assert (row["memory"], row["peak_memory_mb"]) == (1, 200)
    assert rows[3]["speed"] == 1
    assert written["floor"]["decoder_operations"] > 0


@torch.no_grad()
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[:3])
@pytest.mark.parametrize(("precision", "least"), [("float32", 0.999), ("bf16", 0.9)])
def test_all_give_the_same_masks(implementation: str, precision: str, least: float) -> None:
    sam = random_sam("tiny", 96)
    case = Case(implementation, "tiny", precision, 96, 2, "cpu", 1, picture=True)
    pixels = noise(case)
    wanted = build_task(Case("segment-anything", "tiny", "float32", 96, 2, "cpu", 1, picture=True), sam)(pixels)
    masks = build_task(case, sam)(pixels)
    assert (masks.shape, masks.dtype) == ((2, 3, 96, 96), torch.bool)
    assert 0.01 < wanted.float().mean() < 0.99
    assert mean_iou(masks, wanted) > least


@torch.no_grad()
def test_masks_of_another_embedding_agree_less() -> None:
    sam = random_sam("tiny", 64)
    host, embedding = prompted_host(sam), torch.randn(2, 128, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = masks_of_points(host, embedding)
    assert masks.shape == (2 * 9, 3, 32, 32)
    near, far = (
        mean_iou(masks_of_points(host, embedding + by * torch.randn(embedding.shape)), masks) for by in (1e-3, 1.0)
    )
    assert far < 0.9 < near <= 1


def test_the_overlap_of_masks() -> None:
    one = torch.tensor([[[True, False]], [[False, False]]])
    other = torch.tensor([[[True, True]], [[False, False]]])
    assert mean_iou(one, other) == pytest.approx(0.75)


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
        (["--precision", "bfloat16"], "'bfloat16' is called bf16 here"),
        (["--precision", "int8"], "'int8' is none of float32, bf16, fp16"),
        (["--precisions", "bf16"], "unrecognized arguments: --precisions"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
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
