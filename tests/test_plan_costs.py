"""What ``--plan`` counts, and what ``--measure`` measures."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table
from runs import FINETUNE, ROOT

from sam_uniref.flop_counting import flop_counter
from sam_uniref.sam import image_encoder
from sam_uniref.sam.relative_attention import attend_augmented
from sam_uniref.train.costs import sample_costs, task_shares
from sam_uniref.train.made_up import made_up_batch
from sam_uniref.train.measuring import measured_plan
from sam_uniref.train.plan import plan
from sam_uniref.train.settings import DataSettings, ModelSettings, RunSettings
from sam_uniref.train.skeleton import skeleton

TASKS = ("ris", "fss", "vos", "rvos")


def settings(tmp_path: Path, **changes: Any) -> RunSettings:
    data = {task: DataSettings(root="/nowhere", task=task) for task in TASKS}
    model = ModelSettings(size="tiny", text_encoder="tiny", options={"fusion": {"dropout": 0.0}})
    given: dict[str, Any] = {"stage": "joint", "steps": 1000, "batch_size": 2, "workers": 0, "tracker": "none"}
    return RunSettings(output=str(tmp_path / "out"), **(given | {"model": model, "data": data} | changes))


def printed(what: object) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(what)
    return out.getvalue()


@pytest.mark.parametrize("task", TASKS)
def test_operations_counted_on_shapes_are_those_of_a_step(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As GPUs do it, with wider products, which is what shapes are counted for.
    monkeypatch.setattr(image_encoder, "attend_in_blocks", lambda q, k, v, t, *grid: attend_augmented(q, k, v, t, grid))
    run = settings(tmp_path)
    counted = sample_costs(skeleton(run, run.model), {task}, 2)[task]
    model = skeleton(run, run.model, "cpu")
    model.train()
    with flop_counter() as counter:
        sum(model(made_up_batch(model.transform, task, 2)).values()).backward()  # type: ignore[arg-type, union-attr]
    # The sentence made up for shapes has as many words, which a tokenizer may split.
    assert counted.flops == pytest.approx(counter.get_total_flops() / 2, rel=0.01)


def test_checkpointed_activations_are_counted(tmp_path: Path) -> None:
    plain, lean = settings(tmp_path), settings(tmp_path, checkpoint_activations=True)
    before = sample_costs(skeleton(plain, plain.model), set(TASKS), 2)
    after = sample_costs(skeleton(lean, lean.model), set(TASKS), 2)
    for task in TASKS:
        # A sentence leaves the language model, which keeps all of its own, and UniFusion, where it has few keys.
        assert after[task].kept < (0.95 if task == "ris" else 0.7) * before[task].kept
        assert before[task].flops < after[task].flops < 1.7 * before[task].flops


def test_shares_of_tasks(tmp_path: Path) -> None:
    run = settings(tmp_path)
    run.data |= {"more": DataSettings(task="fss", weight=3.0), "none": DataSettings(task="ris", weight=0.0)}
    assert task_shares(run) == pytest.approx({"ris": 1 / 7, "fss": 4 / 7, "vos": 1 / 7, "rvos": 1 / 7})


def test_the_plan_names_memory_disk_and_hours(tmp_path: Path) -> None:
    run = settings(tmp_path)
    text = printed(plan(run, 4, run.model))
    for part in ("memory a process", "kept for gradients", "3 checkpoints of", "an estimate: 8,000 samples of"):
        assert part in text
    assert "35% of 312 TFLOP/s in bf16" in text


def test_a_uniref_is_not_counted(tmp_path: Path) -> None:
    uniref = ModelSettings(kind="uniref", size="tiny", text_encoder="tiny")
    run = RunSettings(output=str(tmp_path), model=uniref, data={"fss": DataSettings(root="/nowhere")}, tracker="none")
    assert "not counted for a uniref" in printed(plan(run, 1, run.model))


@pytest.mark.parametrize("kind", ["samref", "uniref"])
def test_measured_where_data_is_and_where_it_is_not(kind: str, tmp_path: Path) -> None:
    data = {"here": DataSettings(reader="refshapes", task="fss"), "away": DataSettings(root="/nowhere", task="ris")}
    if kind == "uniref":
        data["objects"] = DataSettings(reader="prepared", root="/nowhere", task="detection")
    model = ModelSettings(kind=kind, size="tiny", text_encoder="tiny", image_size=128)
    run = settings(tmp_path, model=model, data=data)
    table = measured_plan(run, Accelerator(cpu=True), run.model, 1)
    assert isinstance(table, Table)
    text = printed(table)
    assert [made in text for made in ("its own", "made up")] == [True, True]
    assert "hours for 1,000 steps in one process" in " ".join(text.split())


def test_measuring_goes_with_a_plan() -> None:
    command = [sys.executable, str(FINETUNE), "--config", str(ROOT / "configs" / "folder.yaml"), "--measure", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "goes with --plan" in done.stderr


def test_made_up_batches_are_such_as_are_drawn() -> None:
    from tiny import tiny_model

    transform = tiny_model(False).transform
    for task in TASKS:
        batch = made_up_batch(transform, task, 3)  # type: ignore[arg-type]
        assert (len(batch), batch.task) == (3, task)
        assert batch.reference_masks.shape[0] == batch.reference_index.shape[0] == (0 if task == "ris" else 1)
        assert len(batch.pixels) == 3 * (1 + len(batch.reference_index))
        assert 0 < float(batch.masks.mean()) < 0.5
        assert torch.equal(batch.pixels, made_up_batch(transform, task, 3).pixels)  # type: ignore[arg-type]
