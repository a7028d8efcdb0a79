"""Pretraining of the tiny SAM and its text encoder: whole runs, and what they leave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import ENVIRONMENT, ROOT, losses
from safetensors.torch import load_file

from sam_uniref import SamRef
from sam_uniref.adapters import TextEncoder
from sam_uniref.sam import SamHost, build_sam
from sam_uniref.train.pretrain import PretrainSettings, TrainableHost, learning_rate
from sam_uniref.train.promptable import Attributes, SceneBatches, Surroundings


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def pretrain(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = [f"output={output}", "steps=4", "batch_size=2", "workers=0", "save_every=2", "tracker=none"]
    config = str(ROOT / "configs" / "pretrain_sam_tiny.yaml")
    return run("train/pretrain.py", "sam-tiny", "--config", config, *settings, *arguments)


def test_a_run_gives_a_checkpoint_and_resumes_exactly(tmp_path: Path) -> None:
    done = pretrain(tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    assert [step for step, _, _ in losses(tmp_path / "whole" / "log.jsonl")] == [1, 2, 3, 4]
    model = SamRef.from_sam("tiny", tmp_path / "whole" / "sam_tiny.safetensors")
    assert model.config.sam.sha256
    newest = tmp_path / "whole" / "checkpoints" / "step_0000004"
    expected = load_file(newest / "trained.safetensors")
    (newest / "optimizer.pt").unlink()
    resumed = pretrain(tmp_path / "whole", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after step 2" in resumed.stderr
    for name, tensor in load_file(newest / "trained.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, msg=lambda m, n=name: f"{n}: {m}")
    assert pretrain(tmp_path / "whole").returncode == 2


def test_two_processes_share_the_steps(tmp_path: Path) -> None:
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    config = str(ROOT / "configs" / "pretrain_sam_tiny.yaml")
    settings = [f"output={tmp_path}", "steps=3", "batch_size=1", "workers=0", "tracker=none"]
    done = run(*launch, "train/pretrain.py", "sam-tiny", "--config", config, *settings)
    assert done.returncode == 0, done.stderr
    assert [step for step, _, _ in losses(tmp_path / "log.jsonl")] == [1, 2, 3]


def test_a_run_goes_on_from_another_ones_weights(tmp_path: Path) -> None:
    assert pretrain(tmp_path / "first").returncode == 0
    start = tmp_path / "first" / "sam_tiny.safetensors"
    assert pretrain(tmp_path / "second", f"start_from={start}", "lr=0").returncode == 0
    before, after = (load_file(tmp_path / name / "sam_tiny.safetensors") for name in ("first", "second"))
    assert all(after[name].equal(tensor) for name, tensor in before.items())
    missing = pretrain(tmp_path / "third", f"start_from={tmp_path / 'none.safetensors'}")
    assert missing.returncode == 2
    assert "no checkpoint" in missing.stderr


def test_surroundings_are_read_around_their_cell() -> None:
    """A bright square is in the targets of the cells whose surroundings it lies in, and of no other."""
    torch.manual_seed(0)
    surroundings = Surroundings(channels=4, stride=8, reach=5)
    torch.nn.init.zeros_(surroundings.read.weight)
    torch.nn.init.zeros_(surroundings.read.bias)
    features = torch.zeros(1, 4, 16, 16)
    for row, column in ((0, 0), (7, 9), (15, 3)):
        pixels = torch.zeros(1, 3, 128, 128)
        pixels[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
        near = sum(abs(row - r) <= 2 and abs(column - c) <= 2 for r in range(16) for c in range(16))
        # Nothing is predicted, so the mean squared error counts the bright values: 4 a cell of 100, in `near` cells.
        assert surroundings(features, pixels).item() == pytest.approx(near * 4 / (256 * 100))
    surroundings.read.bias.data.fill_(1)
    assert surroundings(features, torch.ones(1, 3, 128, 128)).item() > 0  # beyond the picture it is grey


def test_attributes_are_those_of_what_each_cell_shows() -> None:
    batch = SceneBatches(SamHost(build_sam("tiny")).transform, steps=1, batch_size=6)[0]
    assert torch.equal(batch.attributes[:, 0] >= 0, batch.attributes[:, 2] >= 0)
    for mask, image in zip(batch.masks, batch.image_index, strict=True):
        assert len(batch.attributes[image][:, mask].unique(dim=1).T) == 1
        assert (batch.attributes[image][:, mask] >= 0).all()
    # Features that hold the answers themselves are read without error, once each is read for what it is.
    attributes = Attributes(channels=3 * 12)
    cells = batch.attributes[:, :, 4::8, 4::8]
    features = torch.cat([torch.nn.functional.one_hot(cells[:, k].clamp(min=0), 12) for k in range(3)], dim=-1)
    with torch.no_grad():
        attributes.read.bias.zero_()
        attributes.read.weight.zero_()
        for k, first in enumerate((0, 12, 20)):
            for value in range(attributes.sizes[k]):
                attributes.read.weight[first + value, 12 * k + value] = 50
    loss = attributes(features.permute(0, 3, 1, 2).float(), batch.attributes)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert attributes(features.permute(0, 3, 2, 1).float(), batch.attributes).item() > 5  # rows are not columns
    nowhere = attributes(features.permute(0, 3, 1, 2).float(), torch.full_like(batch.attributes, -1))
    assert nowhere.item() == 0


def test_unknown_setting(tmp_path: Path) -> None:
    done = pretrain(tmp_path / "out", "warmup_step=3")
    assert done.returncode == 2
    assert "did you mean 'warmup_steps'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_every_weight_of_sam_learns() -> None:
    torch.manual_seed(0)
    training = TrainableHost(SamHost(build_sam("tiny")), rounds=3)
    batches = SceneBatches(training.host.transform, steps=6, batch_size=2)
    for step in range(6):  # clicks and boxes both come
        torch.manual_seed(step)
        torch.stack(list(training(batches[step]).values())).sum().backward()
    dead = [name for name, parameter in training.host.named_parameters() if parameter.grad is None]
    assert dead == []


def test_processes_draw_different_scenes_of_one_stream() -> None:
    transform = SamHost(build_sam("tiny")).transform
    alone = SceneBatches(transform, steps=2, batch_size=4)
    pair = [SceneBatches(transform, steps=2, batch_size=2, rank=rank, processes=2) for rank in range(2)]
    together = torch.cat([pair[0][1].pixels, pair[1][1].pixels])
    torch.testing.assert_close(together, alone[1].pixels, rtol=0, atol=0)
    held_out = SceneBatches(transform, steps=2, batch_size=4, split=1)
    assert not torch.equal(held_out[1].pixels, alone[1].pixels)


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    settings = PretrainSettings(steps=100, warmup_steps=10, lr=1.0)
    rates = [learning_rate(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9]
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] < 0.02


def test_small_text_encoder(tmp_path: Path) -> None:
    done = run("train/make_text_encoder.py", str(tmp_path / "text"), "--width", "32")
    assert done.returncode == 0, done.stderr
    encoder = TextEncoder.from_name(tmp_path / "text", 16, dropout=0.0)
    ids, mask = encoder.tokenize(["The RED circle", "the large zeppelin left of a star"])
    words = encoder.tokenizer.convert_ids_to_tokens(ids[1].tolist())
    assert words == ["[CLS]", "the", "large", "[UNK]", "left", "of", "a", "star", "[SEP]"]
    assert mask.sum(1).tolist() == [5, 9]
    references = encoder(["the red circle", "the large star"])
    references.pooled[0].square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []
