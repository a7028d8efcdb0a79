"""Runs of several stages from one configuration."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import yaml
from folders import make_folder
from runs import ROOT, finetune, losses, stop_after, write_config
from safetensors.torch import load_file

from sam_uniref.train.settings import RunSettings, load_settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"))


def two_stages(path: Path, folder: Path, output: Path) -> Path:
    """FSS and RIS, then VOS."""
    then = {"stage": "video", "steps": 4, "data": {"vos": {"root": str(folder), "task": "vos"}}}
    return write_config(path, folder, output, stage="image", then=then)


def test_the_stage_that_follows_starts_from_the_model_before_it(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = finetune(two_stages(tmp_path / "config.yaml", folder, output))
    assert done.returncode == 0, done.stderr
    assert {task for _, task, _ in losses(output / "log.jsonl")} <= {"fss", "ris"}
    assert [task for _, task, _ in losses(output / "video" / "log.jsonl")] == ["vos"] * 4
    before, after = (load_file(f / "model" / "adapters.safetensors") for f in (output, output / "video"))
    resizer = "text_encoder.resizer.linear.weight"  # trained by the first stage; the second has no sentences
    assert (after[resizer] - before[resizer]).abs().max() < before[resizer].abs().max() * 0.01
    assert not after["mask_decoder.iou_token.weight"].equal(before["mask_decoder.iou_token.weight"])
    assert json.loads((output / "video" / "validation.json").read_text())


def test_a_run_of_two_stages_resumes_in_either(folder: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert finetune(two_stages(tmp_path / "whole.yaml", folder, whole)).returncode == 0
    config = two_stages(tmp_path / "broken.yaml", folder, broken)
    assert stop_after(config, 3, signal.SIGTERM).returncode == 128 + signal.SIGTERM
    assert not (broken / "video").exists()
    done = finetune(config, "--resume")
    assert done.returncode == 0, done.stderr
    again = finetune(config, "--resume", "optimiser.lr=5e-4")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("is done already") == 2
    assert again.stderr.count("with another setting: optimiser.lr: 0.001, now 0.0005") == 2
    for part in ("model", "video/model"):
        expected = load_file(whole / part / "adapters.safetensors")
        for name, tensor in load_file(broken / part / "adapters.safetensors").items():
            assert tensor.equal(expected[name]), name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("then.stpes=3", "did you mean 'steps'"),
        ("then.steps=0", "steps must be at least 1"),
        ("then.stage=vido", "stage must be one of"),
        ("then.steps=many", "then: "),
        ("then.precision=bf16", "then.precision must be that of the stage before it"),
        ("then.data.vos.task=fss", "data.vos.task must be one of"),
        ("then.data.vos.together=3", "batch_size must be a multiple of data.vos.together, 3"),
        ("then.model.options.pooling=image", "model.options do nothing with model.start_from"),
    ],
)
def test_what_is_wrong_with_a_later_stage_is_said_at_once(
    folder: Path, tmp_path: Path, override: str, message: str
) -> None:
    config = two_stages(tmp_path / "config.yaml", folder, tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        load_settings(config, [override])


def test_a_later_stage_takes_what_it_does_not_say_from_the_one_before(folder: Path, tmp_path: Path) -> None:
    config = two_stages(tmp_path / "config.yaml", folder, tmp_path / "out")
    first, second = load_settings(config, ["then.optimiser.lr=3e-4", "seed=5"]).stages()
    assert (second.seed, second.batch_size, second.optimiser.clip) == (5, first.batch_size, first.optimiser.clip)
    assert (second.steps, second.optimiser.lr, first.optimiser.lr) == (4, 3e-4, 1e-3)
    assert second.model.start_from == str(tmp_path / "out" / "model")
    assert (list(second.data), second.then, second.model.options) == (["vos"], {}, {})
    assert (first.train_text_encoder, second.train_text_encoder) == (False, False)


def test_stages_nest(tmp_path: Path) -> None:
    data = {"refshapes": {"reader": "refshapes", "task": "fss"}}
    last = {"stage": "joint", "steps": 7}
    then = {"stage": "video", "data": {"clips": {"reader": "refshapes", "task": "vos"}}, "then": last}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"output": "runs/a", "data": data, "then": then}))
    stages: list[RunSettings] = load_settings(tmp_path / "config.yaml").stages()
    assert [(s.stage, s.output, s.steps) for s in stages] == [
        ("image", "runs/a", 90_000),
        ("video", "runs/a/video", 90_000),
        ("joint", "runs/a/video/joint", 7),
    ]
    assert stages[2].model.start_from == "runs/a/video/model"


def test_the_quickstart_plans(tmp_path: Path) -> None:
    done = finetune(ROOT / "configs" / "quickstart.yaml", "--plan", f"output={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("stage image") < done.stdout.index("stage joint")
