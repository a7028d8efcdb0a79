"""Whole runs of ``train/finetune.py``: processes, resuming, signals, bad losses, plans."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from folders import make_folder
from runs import ROOT, assert_same_steps, finetune, losses, stop_after, write_config

from sam_uniref import SamRef
from sam_uniref.train.build import build_datasets, build_model
from sam_uniref.train.settings import ModelSettings, RunSettings, load_settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def unbroken(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run of 6 steps of 4 samples, with one process and nothing in its way."""
    place = tmp_path_factory.mktemp("unbroken")
    config = write_config(place / "run.yaml", folder, place / "out", batch_size=4)
    done = finetune(config)
    assert done.returncode == 0, done.stderr
    assert "trained and frozen parameters" in done.stdout
    return place / "out"


def test_a_run_leaves_a_model_checkpoints_and_a_log(unbroken: Path) -> None:
    entries = losses(unbroken / "log.jsonl")
    assert [step for step, _, _ in entries] == list(range(1, 7))
    assert {task for _, task, _ in entries} == {"fss", "ris"}
    names = sorted(p.name for p in (unbroken / "checkpoints").iterdir())
    assert names == ["step_0000002", "step_0000004", "step_0000006"]
    assert load_settings(unbroken / "settings.yaml").batch_size == 4
    validation = json.loads((unbroken / "validation.json").read_text())
    assert set(validation) == {f"{d}/training_iou{s}" for d in ("fss", "ris") for s in ("", "_swapped")}
    model = SamRef.from_pretrained(unbroken / "model")
    assert model.segment(np.zeros((40, 60, 3), np.uint8), text="a box").mask.shape == (40, 60)


def test_two_processes_take_the_steps_of_one(folder: Path, unbroken: Path, tmp_path: Path) -> None:
    """RIS batches leave the mask encoder without gradients, FSS batches the text resizer: on both processes."""
    done = finetune(write_config(tmp_path / "run.yaml", folder, tmp_path / "out"), processes=2)
    assert done.returncode == 0, done.stderr
    assert_same_steps(tmp_path / "out", unbroken, 2e-4)


def test_accumulation_takes_the_steps_of_large_batches(folder: Path, unbroken: Path, tmp_path: Path) -> None:
    done = finetune(write_config(tmp_path / "run.yaml", folder, tmp_path / "out", accumulate=2))
    assert done.returncode == 0, done.stderr
    assert_same_steps(tmp_path / "out", unbroken, 2e-4)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_resumes_as_if_unbroken(
    folder: Path, unbroken: Path, tmp_path: Path, number: signal.Signals
) -> None:
    config = write_config(tmp_path / "run.yaml", folder, tmp_path / "out", batch_size=4)
    stopped = stop_after(config, 3, number)
    saved = sorted(p.name for p in (tmp_path / "out" / "checkpoints").iterdir() if not p.name.startswith("."))
    assert not (tmp_path / "out" / "model").exists()
    if number == signal.SIGKILL:
        assert stopped.returncode == -signal.SIGKILL
    else:
        assert stopped.returncode == 128 + number, stopped.stdout
        assert "go on with --resume" in stopped.stdout
        done = len(losses(tmp_path / "out" / "log.jsonl"))
        assert saved[-1] == f"step_{done:07d}"
    resumed = finetune(config, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"resumed after step {int(saved[-1][-7:])}" in resumed.stderr
    assert_same_steps(tmp_path / "out", unbroken, 0.0)


def test_resume_passes_over_a_broken_checkpoint(folder: Path, unbroken: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.yaml", folder, tmp_path / "out", batch_size=4)
    assert finetune(config).returncode == 0
    newest = tmp_path / "out" / "checkpoints" / "step_0000006"
    (newest / "trained.safetensors").write_bytes(b"cut off")
    resumed = finetune(config, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "step_0000006 can't be used" in resumed.stderr
    assert "resumed after step 4" in resumed.stderr
    assert_same_steps(tmp_path / "out", unbroken, 0.0)


def test_a_run_never_writes_over_another(folder: Path, unbroken: Path, tmp_path: Path) -> None:
    before = (unbroken / "log.jsonl").read_text()
    again = finetune(write_config(tmp_path / "run.yaml", folder, unbroken, batch_size=4))
    assert again.returncode != 0
    assert "go on with --resume" in again.stderr
    assert (unbroken / "log.jsonl").read_text() == before


def test_a_loss_that_is_not_finite_names_its_samples(folder: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.yaml", folder, tmp_path / "out", save_every=1)
    done = finetune(config, "optimiser.lr=1e30", "optimiser.clip=1e30", processes=2)
    assert done.returncode != 0
    assert "the loss is not finite" in done.stderr
    assert "classes/" in done.stderr
    assert not (tmp_path / "out" / "model").exists()


def test_video_stage_goes_on_from_the_image_stage(folder: Path, unbroken: Path, tmp_path: Path) -> None:
    data = {
        "vos": {"root": str(folder), "task": "vos"},
        "rvos": {"root": str(folder), "task": "rvos", "language_only": 0.5},
    }
    model = {"start_from": str(unbroken / "model")}
    config = write_config(tmp_path / "run.yaml", folder, tmp_path / "out", stage="video", data=data, model=model)
    done = finetune(config, "validate_at_end=false")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "out" / "validation.json").exists()
    assert {task for _, task, _ in losses(tmp_path / "out" / "log.jsonl")} == {"vos", "rvos"}
    text = [row for row in done.stdout.splitlines() if "text encoder" in row]
    assert text
    assert text[0].split("│")[5].strip() == "0"  # trained: none of it


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.learning_rate=1", "unknown configuration key 'optimiser.learning_rate'"),
        ("model.options.fusion.head=1", "did you mean 'heads'"),
        ("data.fss.wieght=2", "did you mean 'weight'"),
        ("stepz=3", "did you mean 'steps'"),
        ("steps=many", "steps"),
        ("optimiser.clip=0", "optimiser.clip must be positive, got 0.0"),
        ("seed=-1", "seed must be at least 0, got -1"),
        ("steps", "an override is key=value"),
        ("model.options={lora:{rank:2}}", "is no YAML"),
        ("data.fss.task=vos", "must be one of ('ris', 'fss') in stage image"),
        ("data.fss.root=/nowhere", "there is no folder /nowhere"),
        ("model.checkpoint=none.pth", "there is no checkpoint at none.pth"),
        ("model.size=vit_x", "SAM size must be one of"),
        ("data.fss.together=2", "only refshapes has together"),
    ],
)
def test_bad_settings_are_one_clear_line(folder: Path, tmp_path: Path, override: str, message: str) -> None:
    config = write_config(tmp_path / "run.yaml", folder, tmp_path / "out", stage="image")

    def prepare() -> None:
        settings = load_settings(config, [override])
        build_datasets(settings)
        build_model(settings)

    with pytest.raises((ValueError, FileNotFoundError)) as error:
        prepare()
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_signal_to_all_processes_of_a_run_saves_and_exits(folder: Path, tmp_path: Path) -> None:
    """As launchers and terminals send it: the loader's workers get it as well."""
    config = write_config(tmp_path / "run.yaml", folder, tmp_path / "out", steps=300, workers=2, save_every=300)
    stopped = stop_after(config, 3, signal.SIGTERM, group=True)
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stdout
    assert "go on with --resume" in stopped.stdout
    done = len(losses(tmp_path / "out" / "log.jsonl"))
    assert [p.name for p in (tmp_path / "out" / "checkpoints").iterdir()] == [f"step_{done:07d}"]


def test_a_checkpoint_brings_the_moments_and_the_settings_their_rates(tmp_path: Path) -> None:
    from sam_uniref.train.build import build_optimizer
    from sam_uniref.train.checkpoints import CheckpointFolder
    from sam_uniref.train.learning_settings import OptimiserSettings

    model = SamRef.from_sam("tiny")
    optimizer = build_optimizer(model, OptimiserSettings(lr=1e-3))
    checkpoints = CheckpointFolder(tmp_path, keep=1)
    (tmp_path / ".step_0000001-left").mkdir()  # by a run that was killed while it wrote
    checkpoints.save(2, model, optimizer, {})
    assert [p.name for p in tmp_path.iterdir()] == ["step_0000002"]
    changed = build_optimizer(model, OptimiserSettings(lr=1e-4, weight_decay=0.01))
    assert checkpoints.restore(model, changed) == {"step": 2}
    assert [(g["initial_lr"], g["weight_decay"]) for g in changed.param_groups] == [(1e-4, 0.01)]


def test_what_can_not_be_trained_is_said_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.yaml", folder, tmp_path / "out")
    with pytest.raises(ValueError, match=r"data\.ris needs sentences, but the model has no text encoder"):
        build_model(load_settings(config, ["model.text_encoder=null"]))
    without = load_settings(config, ["model.text_encoder=null", "data.ris.weight=0", "data.ris.root=/nowhere"])
    assert [d.name for d in build_datasets(without)] == ["fss"]
    assert build_model(without).text_encoder is None
    with pytest.raises(ValueError, match=r"model\.options"):
        build_model(load_settings(config, ["model.start_from=somewhere"]))
    done = finetune(config, "tracker=tensorboard", "data.fss.root=/nowhere")
    assert "there is no folder /nowhere" in done.stderr
    assert not (tmp_path / "out").exists()


def test_validation_of_a_large_set_looks_at_some_of_it_spread_evenly() -> None:
    from sam_uniref.train.validation import chosen_episodes

    assert chosen_episodes(3, 5) == chosen_episodes(3, 0) == [0, 1, 2]
    assert chosen_episodes(10, 4) == [0, 2, 5, 7]
    assert len(set(chosen_episodes(321_000, 1000))) == 1000


def test_a_stage_does_not_mind_tasks_that_are_left_out(folder: Path, tmp_path: Path) -> None:
    data = {"vos": {"root": str(folder), "task": "vos"}, "fss": {"root": str(folder), "task": "fss"}}
    config = write_config(tmp_path / "run.yaml", folder, tmp_path / "out", stage="image", data=data)
    with pytest.raises(ValueError, match=r"data\.vos\.task must be one of"):
        load_settings(config)
    assert load_settings(config, ["data.vos.weight=0"]).stage == "image"


def test_a_bare_no_is_no(folder: Path, tmp_path: Path) -> None:
    """YAML reads it as false."""
    config = write_config(tmp_path / "run.yaml", folder, tmp_path / "out")
    assert load_settings(config, ["precision=no"]).precision == "no"
    assert load_settings(config, ["precision=bf16"]).precision == "bf16"


def test_missing_configuration(tmp_path: Path) -> None:
    done = finetune(tmp_path / "none.yaml")
    assert done.returncode != 0
    assert "there is no configuration" in done.stderr
    assert "Traceback" not in done.stderr.split("accelerate")[0]


@pytest.mark.parametrize("name", ["sam_vit_h_image", "sam_vit_h_video"])
def test_published_configurations_plan(name: str) -> None:
    done = finetune(ROOT / "configs" / f"{name}.yaml", "--plan")
    assert done.returncode == 0, done.stderr
    trained = "trained" if name.endswith("image") else "frozen"
    assert f"bert-base-uncased, {trained}" in done.stdout
    assert "x0.1 from 75,000" in done.stdout
    assert "2,301,952" in done.stdout


def test_a_run_has_its_encoder_in_half_precision() -> None:
    def settings(**model: Any) -> RunSettings:
        return RunSettings(model=ModelSettings(encoder_precision="bf16", **model))

    sam = cast(SamRef, build_model(settings(size="tiny", checkpoint="tiny"))).sam
    assert sam.image_encoder.precision == "bf16"
    # Not after the last step, when it is to be saved.
    with pytest.raises(ValueError, match="the base SAM has no file and would be saved with this model"):
        build_model(settings(size="tiny"))
    with pytest.raises(ValueError, match="are for a frozen SAM's image encoder, not for a uniref's"):
        build_model(settings(kind="uniref", size="tiny"))
