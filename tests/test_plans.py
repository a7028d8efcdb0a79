"""``--plan``: every packaged configuration, models that a run goes on from, runs from a cache."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from rich.console import Console
from runs import ROOT

from sam_uniref.cache import CacheDescription, CacheWriter
from sam_uniref.data.refshapes import RefShapesDataset
from sam_uniref.data.shown import shown_pictures
from sam_uniref.samref import SamRef
from sam_uniref.train.costs import sample_costs
from sam_uniref.train.measuring import measured_plan
from sam_uniref.train.plan import plan
from sam_uniref.train.settings import DataSettings, ModelSettings, RunSettings, load_settings
from sam_uniref.train.skeleton import skeleton
from sam_uniref.train.summary import count_parts

CONFIGS = ROOT / "configs"
# Of comparisons, of `train/pretrain.py`, and tables of rows.
OTHERS = {"compare_tiny", "compare_vit_h", "pretrain_sam_tiny", "rows", "uniref_rows"}
TRAINED = [
    path
    for folder in (".", "compare", "ablations")
    for path in sorted((CONFIGS / folder).glob("*.yaml"))
    if path.stem not in OTHERS
]
# As the files themselves say that they are run.
GIVEN = {
    "folder": ["data.vos.weight=0", "data.ris.weight=0"],
    "sam_tiny_image": ["model.text_encoder=tiny"],  # in place of one that is made first
}


def printed(settings: RunSettings, origin: ModelSettings | None = None, processes: int = 1) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(plan(settings, processes, origin or settings.model))
    return " ".join(out.getvalue().replace("│", " ").split())


def run_settings(*data: str, **changes: Any) -> RunSettings:
    """A run on RefShapes from the packaged model."""
    entries = {task: DataSettings(reader="refshapes", task=task) for task in data}
    given: dict[str, Any] = {"model": ModelSettings(start_from="tiny"), "batch_size": 2, "workers": 0}
    return RunSettings(stage="joint", tracker="none", data=entries, **(given | changes))


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_every_configuration_plans(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no stage was run before
    stages = load_settings(path, GIVEN.get(path.stem, [])).stages()
    for settings in stages:
        text = printed(settings, stages[0].model, processes=16)
        assert f"stage {settings.stage} on 16 process(es)" in text
        assert f"{settings.steps:,} (" in text
        assert "--measure N takes N steps" in text
        if settings.model.kind == "uniref":
            assert "IoU head" not in text


@pytest.mark.parametrize(
    ("kind", "tasks", "frozen"),
    [
        ("samref", ("ris",), {"mask encoder"}),
        ("samref", ("fss",), {"text resizer", "text encoder"}),
        ("samref", ("ris", "vos"), set()),
        ("refsam", ("ris",), {"tracking module"}),
        ("refsam", ("rvos",), set()),
    ],
)
def test_parts_that_no_task_of_the_stage_uses_are_frozen(kind: str, tasks: tuple[str, ...], frozen: set[str]) -> None:
    run = run_settings(
        *tasks, model=ModelSettings(kind=kind, size="tiny", text_encoder="tiny", train_text_encoder=True)
    )
    still = {part.name for part in count_parts(skeleton(run, run.model))[:-1] if not part.trained}
    assert still - {"image encoder", "prompt encoder", "SAM's own mask decoder"} == frozen
    if "rvos" in tasks:
        run.data["rvos"].language_only = 1.0
        assert run.tasks == {"ris"}


def test_a_model_that_is_here_is_planned_as_it_is() -> None:
    """The configuration's own size, vit_h by default, says nothing of it."""
    text = printed(run_settings("ris", "fss"))
    assert "samref on tiny, from tiny" in text
    assert "tiny, trained" in text
    assert "128 px" in text
    assert "not here yet" not in text
    assert "not counted" not in text
    expected = sum(p.numel() for p in SamRef.from_pretrained("tiny").parameters())
    run = run_settings("ris")
    assert sum(p.numel() for p in skeleton(run, run.model).parameters()) == expected


def test_a_model_that_is_not_here_yet_is_supposed() -> None:
    text = printed(run_settings("ris", "fss", model=ModelSettings(size="tiny", start_from="runs/nowhere/model")))
    assert "samref on tiny, from runs/nowhere/model; that model is not here yet" in text
    assert "ris not counted, for want of the text encoder" in text
    assert "kept for gradients fss" in text


def test_sentences_are_refused_where_there_is_surely_no_text_encoder() -> None:
    run = run_settings("ris", model=ModelSettings(size="tiny"))
    with pytest.raises(ValueError, match=r"data\.ris needs sentences, but the model has no text encoder"):
        plan(run, 1, run.model)


def test_what_can_be_measured_of_a_model_that_is_not_here_yet() -> None:
    run = run_settings("ris", "fss", model=ModelSettings(size="tiny", start_from="runs/nowhere/model"))
    table = measured_plan(run, Accelerator(cpu=True), run.model, 1)
    assert list(table.columns[0].cells) == ["fss", "ris"]
    assert list(table.columns[1].cells) == ["its own", "none: no text encoder yet"]
    assert "over what was measured" in str(table.caption)


def test_a_run_from_a_cache_is_counted_without_its_encoder(tmp_path: Path) -> None:
    without = run_settings("fss")
    run = run_settings("fss", cache=str(tmp_path / "cache"))
    costs = [
        sample_costs(skeleton(without, without.model), {"fss"}, 2, cached=cached)["fss"] for cached in (False, True)
    ]
    assert costs[1].flops < 0.8 * costs[0].flops
    text = printed(run)
    assert "a view of a picture takes 0.0655 MB in bfloat16" in text
    assert "from the cache" in text
    trained = run_settings(
        "fss", cache="c", model=ModelSettings(size="tiny", options={"lora": {"image_targets": ["qkv"]}})
    )
    with pytest.raises(ValueError, match="LoRA changes the image encoder"):
        plan(trained, 1, trained.model)


def test_a_run_from_a_cache_is_measured_with_its_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_settings("fss", cache=str(tmp_path / "cache"))
    run.data["away"] = DataSettings(root="/nowhere", task="fss")
    monkeypatch.setattr(SamRef, "encode_maps", lambda *_: pytest.fail("the encoder ran"))
    table = measured_plan(run, Accelerator(cpu=True), run.model, 1)
    assert "features made up" in str(table.title)
    backbone = SamRef.from_pretrained("tiny").frozen_backbone()
    source = RefShapesDataset("fss", "fss", length=4, episodes=1)
    CacheWriter(tmp_path / "cache", backbone, CacheDescription.of(backbone, "int8"), batch_size=4).write(
        shown_pictures([source]), 16
    )
    run.data["fss"].length = 4
    assert "features made up" not in str(measured_plan(run, Accelerator(cpu=True), run.model, 1).title)
    assert f"{tmp_path}/cache: " in printed(run)
    other = run_settings("fss", cache=run.cache, model=ModelSettings(start_from="tiny", image_size=64))
    with pytest.raises(ValueError, match="a cache of something else: image_size 128 instead of 64"):
        plan(other, 1, other.model)
