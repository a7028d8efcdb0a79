"""What a schedule takes on paper: the arithmetic, and what it is made of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_uniref.eval.schedule_estimate import (
    CACHED_BYTES,
    Machine,
    Work,
    encoder_flops,
    estimate,
    main,
    measured_steps,
    work_of,
)
from sam_uniref.train.settings import load_settings

CONFIGS = Path(__file__).parents[1] / "configs"
WORK = Work("image", 1_600, 16, 1.5, 4e12, 2e12, 10**7, 1_000)
ALONE = Machine("one", 1, 1e14, float("inf"))


def test_by_hand() -> None:
    found = estimate(WORK, Machine("eight", 8, 1e14, 1e10), share=0.5, views=2, overhead=0.2)
    assert (found.steps, found.samples_a_step) == (100, 16)
    assert found.network_seconds == pytest.approx(2 * 7 / 8 * 4e7 / 1e10)
    beside = 100 * (found.network_seconds + 0.2)
    assert found.hours * 3600 == pytest.approx(1_600 * (1.5 * 4e12 + 2e12) / (8 * 5e13) + beside)
    assert found.cached_hours * 3600 == pytest.approx(1_600 * 2e12 / (8 * 5e13) + beside)
    assert found.fill_hours * 3600 == pytest.approx(2_000 * 4e12 / (8 * 5e13))
    assert found.cache_gigabytes == pytest.approx(2_000 * CACHED_BYTES / 1e9)
    assert found.gradient_megabytes == pytest.approx(40)


@settings(max_examples=100, deadline=None)
@given(
    samples=st.integers(1, 10**7),
    overhead=st.floats(0, 1),
    batch=st.integers(1, 64),
    pictures=st.floats(1, 3),
    devices=st.integers(1, 128),
    share=st.floats(0.01, 1),
    views=st.integers(1, 20),
)
def test_what_must_hold_of_any_work(
    samples: int, overhead: float, batch: int, pictures: float, devices: int, share: float, views: int
) -> None:
    work = replace(WORK, samples=samples, global_batch=batch, pictures_per_sample=pictures)
    machine = Machine("some", devices, 1e14, 1e10)
    found = estimate(work, machine, share=share, views=views, overhead=overhead)
    assert found.cached_hours < found.hours
    assert found.samples_a_step >= max(batch, 2 * devices)
    assert (found.steps - 1) * found.samples_a_step < samples <= found.steps * found.samples_a_step
    twice = estimate(work, machine, share=share, views=2 * views, overhead=overhead)
    assert twice.cache_gigabytes == pytest.approx(2 * found.cache_gigabytes)
    assert twice.fill_hours == pytest.approx(2 * found.fill_hours)
    assert (twice.hours, twice.cached_hours) == (found.hours, found.cached_hours)
    # With products alone, so many devices take so much less.
    alone, together = (
        estimate(work, replace(ALONE, devices=count), share=share, views=views, overhead=0.0) for count in (1, devices)
    )
    assert alone.hours == pytest.approx(devices * together.hours)
    assert alone.network_seconds == 0


def test_the_published_stages() -> None:
    measured = {"ris": 1e11, "fss": 8e11, "vos": 6e11}
    image = work_of(load_settings(CONFIGS / "sam_vit_h_image.yaml"), measured)
    assert (image.samples, image.global_batch) == (1_440_000, 16)
    # As the README counts what is trained, with BERT.
    assert image.trained == 3_638_916 + 2_301_952 + 6_924_531 + 197_376 + 108_891_648
    assert image.pictures_per_sample == pytest.approx(1 + 0.05 / 1.05)
    assert image.step_flops == pytest.approx((1e11 + 0.05 * 8e11) / 1.05)
    video = work_of(load_settings(CONFIGS / "sam_vit_h_video.yaml"), measured)
    assert video.trained == 3_638_916 + 2_301_952 + 6_924_531 + 197_376
    # Weights: 2 of VOS (two pictures), 1 of words alone, 1 of words with a frame in 0.6 of the steps.
    assert video.pictures_per_sample == pytest.approx((2 * 2 + 1 + 1.6) / 4)
    assert video.step_flops == pytest.approx((2 * 6e11 + 1e11 + 0.4 * 1e11 + 0.6 * 6e11) / 4)
    assert encoder_flops("vit_h") == image.encoder_flops


def test_flops_of_the_encoder_are_those_of_its_products() -> None:
    """A lower bound by hand: the four linear layers of each block on all cells, and the patches."""
    cells, width, depth = 64 * 64, 768, 12
    linear = 2 * cells * depth * 12 * width**2
    assert linear < encoder_flops("vit_b") < 2 * linear


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"implementation": "step alone", "task": task, "flops": flops, "batch_size": 2}
        for task, flops in (("ris", 2e11), ("fss", 16e11), ("vos", 12e11))
    ]
    measured, out = tmp_path / "train.json", tmp_path / "estimate.json"
    measured.write_text(json.dumps({"rows": [*rows, {"implementation": "encoder alone"}]}))
    assert measured_steps(measured) == {"ris": 1e11, "fss": 8e11, "vos": 6e11}
    configs = [str(CONFIGS / f"sam_vit_h_{stage}.yaml") for stage in ("image", "video")]
    assert main([*configs, "--measured", str(measured), "--json", str(out)]) == 0
    written = json.loads(out.read_text())
    assert [(row["stage"], row["machine"]) for row in written["rows"]][:2] == [
        ("image", "8 x A100"),
        ("image", "1 x H200"),
    ]
    assert len(written["rows"]) == 8
    assert (written["share"], written["views"], written["overhead"]) == (0.35, 2, 0.1)
    # One device takes the published batch in eight parts, each of which has its overhead.
    card = next(row for row in written["rows"] if "RTX" in row["machine"])
    assert card["cached_hours"] > 90_000 * 8 * 0.1 / 3600
    assert capsys.readouterr().out.count("| video |") == 1 + 4
    parts = [tmp_path / f"{row['task']}.json" for row in rows]
    for part, row in zip(parts, rows, strict=True):
        part.write_text(json.dumps({"rows": [row]}))
    assert main([*configs, "--measured", *map(str, parts), "--json", str(tmp_path / "parts.json")]) == 0
    assert (tmp_path / "parts.json").read_text() == out.read_text()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, [], "there is no"),
        ("{}", [], "is not what eval/benchmark.py train --json writes"),
        ('{"rows": []}', [], "has no step of fss, ris, vos"),
        (
            '{"rows": ['
            + ", ".join(
                f'{{"implementation": "step alone", "task": "{t}", "flops": 1, "batch_size": 1}}'
                for t in ("ris", "fss", "vos")
            )
            + "]}",
            ["--share", "1.5"],
            "share must be above 0",
        ),
    ],
)
def test_bad_input(
    content: str | None, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "train.json"
    if content is not None:
        path.write_text(content)
    assert main([str(CONFIGS / "sam_vit_h_image.yaml"), "--measured", str(path), *options]) == 2
    assert message in capsys.readouterr().err
