"""The benchmark: what it counts, what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sam_uniref import SamRef, VideoTracker
from sam_uniref.eval.benchmark import main
from sam_uniref.eval.track_benchmark import all_seen, discs, picture
from sam_uniref.memory import peak_megabytes, reset_peak


def test_one_pass_a_frame_beside_the_published_one_an_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--json", str(tmp_path / "rows.json"), "--plot", str(tmp_path / "rows.png")]
    options = ["--objects", "1,3", "--frames", "2,4", "--image-size", "64", "--reference-cost", "--object-cost", *out]
    assert main(["track", "--model", "tiny", "--published-frames", "2", "--device", "cpu", *options]) == 0
    written = json.loads((tmp_path / "rows.json").read_text())
    assert written["device"].startswith("cpu")
    rows = written["rows"]
    assert [(r["procedure"], r["objects"], r["frames"], r["encoder_passes_per_frame"]) for r in rows] == [
        *(("ours", 1, 2, 1.0), ("ours", 1, 4, 1.0), ("published", 1, 2, 2.0)),
        *(("ours", 3, 2, 1.0), ("ours", 3, 4, 1.0), ("published", 3, 2, 4.0)),
    ]
    for row in rows:
        assert (row["model"], row["image_size"], row["precision"]) == ("tiny", 64, "float32")
        assert 0 < row["seconds_per_frame_median"] <= row["seconds_per_frame_p95"]
        assert row["peak_memory_mb"] > 50
    (cost,) = written["object_cost"]
    parts = ("attention times values", "mask encoder", "mask decoder")
    assert cost["sum of parts"] == pytest.approx(sum(cost[part] for part in parts))
    added = rows[3]["seconds_per_frame_median"] - rows[0]["seconds_per_frame_median"]
    assert cost["ratio"] == pytest.approx(added / 2 / cost["sum of parts"])
    ratio = rows[3]["seconds_per_frame_median"] / rows[5]["seconds_per_frame_median"]
    assert f"{ratio:.2f}" in capsys.readouterr().out
    assert (tmp_path / "rows.png").read_bytes()[:4] == b"\x89PNG"


def test_half_precision_is_the_precision_of_what_is_stored() -> None:
    tracker = VideoTracker(SamRef.from_pretrained("tiny"))
    tracker.add(1, mask=discs(1)[1])
    with torch.autocast("cpu", torch.bfloat16):
        tracker.step(picture(0))
    first = tracker._objects[1].first
    assert first is not None
    assert {first.frame.keys[0].dtype, first.values[0].dtype} == {torch.bfloat16}


def test_all_objects_are_seen_and_the_model_is_itself_again() -> None:
    model = SamRef.from_pretrained("tiny")
    before = model.predict
    masks = discs(5)
    assert not (sum(mask.astype(int) for mask in masks.values()) > 1).any()
    with all_seen(model, masks):
        results = list(model.track([picture(k) for k in range(3)], masks=masks))
    assert all(all(result.visible.values()) for result in results)
    assert model.predict == before


def test_peak_memory_begins_anew() -> None:
    cpu = torch.device("cpu")
    reset_peak(cpu)
    before = peak_megabytes(cpu)
    block = torch.ones(50_000_000)
    assert peak_megabytes(cpu) > before + 150
    del block


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["track", "--model", "vit_b"], "vit_b has no weights: give --checkpoint or --random-weights"),
        (["track", "--model", "nowhere"], "nowhere"),
        (["track", "--model", "tiny", "--objects", "0"], "whole numbers from 1 on, such as 1,2,4, are needed, got '0'"),
        (["track", "--model=tiny", "--objects=1", "--frames=1", "--object-cost"], "needs two numbers of objects"),
        (["track", "--model", "tiny", "--published-frames", "0"], "--published-frames must be at least 1"),
        (["track", "--model", "tiny", "--image-size", "100"], "image_size must be a positive multiple"),
        (["track", "--model", "tiny", "--precision", "bfloat16"], "invalid choice: 'bfloat16'"),
        (["nothing"], "invalid choice"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as exit_:
        code = exit_.code  # type: ignore[assignment]
    assert code == 2
    assert message in capsys.readouterr().err
