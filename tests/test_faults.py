"""What can befall a run, put in its way: it ends cleanly or goes on, and no checkpoint is lost or half written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.tracking import TensorBoardTracker
from folders import make_folder
from launching import run_here, start_processes
from runs import ENVIRONMENT, ROOT, losses, write_config
from safetensors.torch import load_file

from sam_uniref import SamRef
from sam_uniref.data import EpisodeDataset
from sam_uniref.train import checkpoints, exit_codes, loader, stage
from sam_uniref.train.best import BestModel, validated
from sam_uniref.train.exit_codes import REFUSED, TRY_AGAIN, run_command
from sam_uniref.train.journal import Journal
from sam_uniref.train.settings import RunSettings, load_settings
from sam_uniref.train.step import take_step

WITHOUT_SENTENCES = {"size": "tiny", "options": {"fusion": {"dropout": 0.0}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"))


def few_shot(path: Path, folder: Path, **changes: object) -> Path:
    """A run of FSS alone, 6 steps, a checkpoint every 2, into ``out`` beside the configuration."""
    data = {"fss": {"root": str(folder), "task": "fss"}}
    changes = {"validate_at_end": False, "model": WITHOUT_SENTENCES, "data": data, **changes}
    return write_config(path / "run.yaml", folder, path / "out", **changes)


def saved(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "checkpoints").iterdir())


# ---- A full disk ----


@pytest.fixture
def failing_saves(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The saves, counted from 1, that meet a full disk."""
    numbers: set[int] = set()
    calls = iter(range(1, 100))
    real = checkpoints.torch.save

    def write(*arguments: Any) -> None:
        if next(calls) in numbers:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments)

    monkeypatch.setattr(checkpoints.torch, "save", write)
    return numbers


def test_training_goes_on_while_the_disk_is_full(
    folder: Path, tmp_path: Path, failing_saves: set[int], caplog: pytest.LogCaptureFixture
) -> None:
    failing_saves.add(2)
    assert run_here(few_shot(tmp_path, folder)) == 0
    assert saved(tmp_path / "out") == ["step_0000002", "step_0000006"]
    assert "the checkpoint after step 4 can't be written: it takes" in caplog.text
    assert f"MB in {tmp_path / 'out' / 'checkpoints'}, where" in caplog.text
    assert len(losses(tmp_path / "out" / "log.jsonl")) == 6


def test_a_run_whose_last_checkpoint_is_not_written_ends_with_an_error_and_its_model(
    folder: Path, tmp_path: Path, failing_saves: set[int], caplog: pytest.LogCaptureFixture
) -> None:
    failing_saves.add(3)
    caplog.set_level("INFO")
    config = few_shot(tmp_path, folder)
    assert run_here(config) == TRY_AGAIN
    assert "there is no checkpoint of the last step, 6; make room, then --resume goes on" in caplog.text
    assert saved(tmp_path / "out") == ["step_0000002", "step_0000004"]
    before = load_file(tmp_path / "out" / "model" / "adapters.safetensors")
    assert run_here(config, resume=True) == 0
    assert "resumed after step 4" in caplog.text
    after = load_file(tmp_path / "out" / "model" / "adapters.safetensors")
    assert all(tensor.equal(before[name]) for name, tensor in after.items())


def test_the_journal_gives_back_what_it_could_not_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The disk takes half a line, then nothing, then all again."""

    class Disk:
        """A file on a disk with so many bytes of room."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 10_000

        def write(self, data: memoryview) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            count = self.file.write(data[: self.room])
            self.room -= count
            return count

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    log = Journal(tmp_path / "log.jsonl", 0)
    disk = log._file = Disk(log._file)
    log.write(1, {"loss": 1.0})
    disk.room = 5
    log.write(2, {"loss": 2.0})
    log.write(3, {"loss": 3.0})
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1]
    assert caplog.text.count("can't be written") == 1
    disk.room = 10_000
    log.write(4, {"loss": 4.0})
    disk.room = 0
    log.write(5, {"loss": 5.0})
    log.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    assert "1 lines of" in caplog.text


# Trains on a disk of its own, which is too small for the third checkpoint, then makes room and goes on.
_SMALL_DISK = """
set -e
mkdir -p "$1"
mount -t tmpfs -o size="$2" tmpfs "$1"
code=0
shift 2
"$@" || code=$?
echo "first: $code"
ls -A "$OUT/checkpoints"
mount -o remount,size=1g "$OUT"
"$@" --resume
ls "$OUT/checkpoints"
"""


@pytest.mark.slow
def test_a_disk_that_is_full_indeed(folder: Path, tmp_path: Path) -> None:
    """On a file system of its own, in a name space of its own."""
    allowed = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
    if sys.platform != "linux" or not allowed:
        pytest.skip("a file system of its own needs Linux's name spaces of users")
    config = few_shot(tmp_path, folder)
    assert run_here(config, "output=" + str(tmp_path / "measured"), "steps=2", "keep=1") == 0
    one = sum(path.stat().st_size for path in (tmp_path / "measured" / "checkpoints").rglob("*"))
    within = ["unshare", "-rm", "sh", "-c", _SMALL_DISK, "sh", str(tmp_path / "out"), str(int(2.5 * one))]
    done = subprocess.run(
        [*within, sys.executable, str(ROOT / "train" / "finetune.py"), "--config", str(config)],
        cwd=ROOT,
        env={**ENVIRONMENT, "OUT": str(tmp_path / "out")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "the checkpoint after step 6 can't be written" in done.stdout
    assert f"first: {TRY_AGAIN}\nstep_0000002\nstep_0000004\n" in done.stdout
    assert "resumed after step 4" in done.stdout
    assert done.stdout.endswith("step_0000002\nstep_0000004\nstep_0000006\n")


# ---- A loader that hangs, a tracker that is lost ----


def test_a_run_goes_on_when_a_loader_process_hangs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert run_here(few_shot(tmp_path, folder)) == 0
    shutil.move(tmp_path / "out", tmp_path / "unbroken")
    real, mark = EpisodeDataset.sample, tmp_path / "mark"

    def hang_once(self: EpisodeDataset, index: int, *given: Any, **named: Any) -> Any:
        if mark.is_file() and int(mark.read_text()) > 3 and os.getpid() != here:
            mark.unlink()
            time.sleep(1000)
        if mark.is_file():
            mark.write_text(str(int(mark.read_text()) + 1))
        return real(self, index, *given, **named)

    here = os.getpid()
    mark.write_text("0")
    monkeypatch.setattr(EpisodeDataset, "sample", hang_once)
    monkeypatch.setattr(loader, "_ASK_EVERY", 1)
    assert run_here(few_shot(tmp_path, folder, workers=1, loader_timeout=3)) == 0
    assert "which was reading fss: " in caplog.text
    assert losses(tmp_path / "out" / "log.jsonl") == losses(tmp_path / "unbroken" / "log.jsonl")


def test_a_lost_tracker_is_warned_of_once_and_the_journal_has_everything(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise ConnectionError("the server is gone")

    monkeypatch.setattr(TensorBoardTracker, "log", lost)
    monkeypatch.setattr(TensorBoardTracker, "finish", lost)
    changes = {"tracker": "tensorboard", "log_every": 1, "validate_every": 2, "validate_at_end": True}
    assert run_here(few_shot(tmp_path, folder, **changes)) == 0
    assert caplog.text.count("tracker tensorboard fails (the server is gone)") == 1
    assert [step for step, _, _ in losses(tmp_path / "out" / "log.jsonl")] == [1, 2, 3, 4, 5, 6]
    entries = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    validations = {entry["step"]: entry["validation"] for entry in entries if "validation" in entry}
    assert validations.keys() == {2, 4}
    assert all(values.keys() == {"fss/training_iou", "fss/training_iou_swapped"} for values in validations.values())


def test_a_tracker_that_can_not_be_started_is_said_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise ConnectionError("no such server")

    monkeypatch.setattr(TensorBoardTracker, "start", refused)
    assert run_here(few_shot(tmp_path, folder, tracker="tensorboard")) == REFUSED
    assert "can't be started (no such server); mend that, or give tracker=none" in caplog.text


# ---- The best model ----


def test_the_best_model_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A high learning rate undoes what the steps before it learned."""
    values = iter([0.2, 0.7, 0.5, 0.1])
    monkeypatch.setattr(stage, "validate", lambda *_: {"fss/training_iou": next(values), "fss/x_swapped": 9.0})
    changes = {"best": "fss", "validate_every": 2, "validate_at_end": True, "steps": 6}
    assert run_here(few_shot(tmp_path, folder, **changes)) == 0
    record = json.loads((tmp_path / "out" / "best" / "best.json").read_text())
    assert (record["step"], record["measure"], record["value"]) == (4, "fss", 0.7)
    best = load_file(tmp_path / "out" / "best" / "adapters.safetensors")
    checkpoint = load_file(tmp_path / "out" / "checkpoints" / "step_0000004" / "trained.safetensors")
    assert all(tensor.equal(checkpoint[name]) for name, tensor in best.items() if name in checkpoint)
    assert best.keys() & checkpoint.keys()
    SamRef.from_pretrained(tmp_path / "out" / "best")


@pytest.mark.parametrize("ended", ["crash", "signal"])
def test_a_validation_that_the_run_ended_in_costs_no_steps_and_is_made_up_for(
    ended: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.2, None if ended == "crash" else 0.7, 0.7, 0.1])
    taken = []

    def validate(*_: object) -> dict[str, float]:
        taken.append(value := next(values))
        if value is None:
            raise OSError("a disk is gone")
        return {"fss/training_iou": value}

    monkeypatch.setattr(stage, "validate", validate)
    config = few_shot(tmp_path, folder, best="fss", validate_every=2, validate_at_end=True)
    if ended == "crash":
        assert run_here(config) == TRY_AGAIN
        assert taken == [0.2, None]
    else:
        real = stage.Stage.take_step

        def stopped(self: stage.Stage, step: int) -> object:
            if step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return real(self, step)

        with monkeypatch.context() as patch:
            patch.setattr(stage.Stage, "take_step", stopped)
            assert run_here(config) == 128 + signal.SIGTERM
        assert taken == [0.2]  # none while a signal waits
    assert saved(tmp_path / "out") == ["step_0000002", "step_0000004"]
    assert run_here(config, resume=True) == 0
    entries = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if "loss" in entry] == [1, 2, 3, 4, 5, 6]
    assert [entry["step"] for entry in entries if "validation" in entry] == [2, 4]
    assert json.loads((tmp_path / "out" / "best" / "best.json").read_text())["step"] == 4


def test_a_resumed_run_knows_its_best_and_a_fresh_one_has_none(tmp_path: Path) -> None:
    def offer(best: BestModel, step: int, value: float, folder: str = "best") -> None:
        best.offer(step, {"a/iou": value, "b/found": value / 2}, lambda place: (place / "weights").write_text("w"), 1)

    def kept() -> tuple[int, float]:
        record = json.loads((tmp_path / "best" / "best.json").read_text())
        return record["step"], record["value"]

    accelerator = Accelerator(cpu=True)
    offer(BestModel(tmp_path / "best", "a", accelerator, resumed=False), 2, 0.5)
    (tmp_path / ".best-left").mkdir()
    resumed = BestModel(tmp_path / "best", "a", accelerator, resumed=True)
    assert not (tmp_path / ".best-left").exists()
    for step, value, expected in (
        (3, 0.4, (2, 0.5)),
        (4, 0.5, (2, 0.5)),
        (5, float("nan"), (2, 0.5)),
        (6, 0.6, (6, 0.6)),
    ):
        offer(resumed, step, value)
        assert kept() == expected
    offer(BestModel(tmp_path / "best", "mean", accelerator, resumed=True), 7, 0.4)  # by another measure
    assert kept() == (7, pytest.approx(0.3))
    offer(BestModel(tmp_path / "best", "mean", accelerator, resumed=False), 1, 0.1)
    assert kept()[0] == 1


def test_a_full_disk_leaves_the_best_model_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def full(place: Path) -> None:
        (place / "weights").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    best = BestModel(tmp_path / "best", "mean", Accelerator(cpu=True), resumed=False)
    best.offer(1, {"a/iou": 0.1}, lambda place: (place / "weights").write_text("whole"), 1)
    best.offer(2, {"a/iou": 0.9}, full, 1)
    assert "the best model, after step 2, can't be written" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert (tmp_path / "best" / "weights").read_text() == "whole"
    best.offer(3, {"a/iou": 0.5}, lambda place: (place / "weights").write_text("third"), 1)
    assert (tmp_path / "best" / "weights").read_text() == "third"


def test_swapped_references_do_not_count() -> None:
    values = {"a/validation_iou": 0.4, "a/validation_iou_swapped": 0.9, "d/validation_found": 0.8}
    assert validated(values, "mean") == pytest.approx(0.6)
    assert validated(values, "a") == 0.4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("best=foo", r"best must be one of \['mean', 'fss'\], got 'foo'"),
        ("best=fss", "set validate_every to some steps"),
        ("process_timeout=100", "process_timeout must be more than twice loader_timeout, got 100 and 300"),
        ("loader_timeout=-1", "loader_timeout must be at least 0, got -1"),
    ],
)
def test_settings_that_do_nothing_are_refused(folder: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_settings(few_shot(tmp_path, folder), [override])


# ---- What is not finite ----


def test_a_gradient_that_is_not_finite_ends_the_run_and_spoils_no_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, steps = stage.take_step, []

    def spoil(accelerator: Accelerator, model: torch.nn.Module, *rest: Any) -> dict[str, float]:
        steps.append(1)
        if len(steps) == 4:
            trained = next(p for n, p in model.named_parameters() if p.requires_grad and "mask_decoder" in n)
            trained.register_hook(lambda gradient: gradient * float("nan"))
        return real(accelerator, model, *rest)

    monkeypatch.setattr(stage, "take_step", spoil)
    assert run_here(few_shot(tmp_path, folder)) == REFUSED
    assert f"error: the gradient is not finite for the samples fss: {folder}/classes/" in caplog.text
    assert saved(tmp_path / "out") == ["step_0000002"]
    weights = load_file(tmp_path / "out" / "checkpoints" / "step_0000002" / "trained.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert not (tmp_path / "out" / "model").exists()


# Two processes, of which the second has a gradient that is not finite.
_SPOILT = """
import torch
from accelerate import Accelerator
from sam_uniref.train.settings import RunSettings
from sam_uniref.train.step import take_step

class Model(torch.nn.Linear):
    def forward(self, batch):
        return {"bce": super().forward(batch.pixels).square().mean()}

class Batch:
    names, pixels = ("the sample",), torch.ones(1, 2)
    def to(self, device):
        return self

accelerator = Accelerator(cpu=True)
bare = Model(2, 2)
if accelerator.process_index == 1:
    bare.weight.register_hook(lambda gradient: gradient / 0)
model, optimizer = accelerator.prepare(bare, torch.optim.AdamW([{"params": bare.parameters(), "initial_lr": 1.0}]))
before = bare.weight.clone()
try:
    take_step(accelerator, model, optimizer, [Batch()], RunSettings(), 0)
except FloatingPointError as error:
    print("raised:", error, "unchanged:", bool((bare.weight == before).all()))
"""


def test_two_processes_end_together_if_the_gradient_of_one_is_not_finite(tmp_path: Path) -> None:
    processes = start_processes(["-c", _SPOILT])
    for process in processes:
        told, _ = process.communicate(timeout=300)
        assert "raised: the gradient is not finite for the samples the sample unchanged: True" in told, told


def test_fp16_passes_over_a_step_but_not_over_all(caplog: pytest.LogCaptureFixture) -> None:
    """On a CPU the scaler is torch's own, put in the place of the GPU's."""

    class Model(torch.nn.Linear):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            return {"bce": super().forward(batch.pixels).square().mean()}

    accelerator = Accelerator(cpu=True)
    batch = SimpleNamespace(names=("the sample",), pixels=torch.ones(1, 2), to=lambda _: batch)
    model = Model(2, 2)
    before = model.weight.clone()
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    inner = torch.optim.AdamW([{"params": model.parameters(), "initial_lr": 1.0}])
    optimizer = AcceleratedOptimizer(inner, scaler=accelerator.scaler)
    spoiling = model.weight.register_hook(lambda gradient: gradient / 0)

    def step(count: int) -> None:
        for number in range(count):
            take_step(accelerator, model, optimizer, [batch], RunSettings(), number)  # type: ignore[list-item]

    step(1)
    assert accelerator.scaler.get_scale() == 0.5
    assert torch.equal(model.weight, before)
    with pytest.raises(FloatingPointError, match=r"fp16 finds no scale.*down to 6\.1e-05.*the sample"):
        step(20)
    accelerator.scaler.update(1.0)
    spoiling.remove()
    step(1)
    assert not torch.equal(model.weight, before)


# ---- Processes that are lost ----


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "number", "reason"),
    [(0, signal.SIGKILL, "pair.cc"), (1, signal.SIGKILL, "pair.cc"), (1, signal.SIGSTOP, "Timed out waiting 30000ms")],
)
def test_the_others_end_when_a_process_is_lost_and_the_run_resumes(
    folder: Path, tmp_path: Path, victim: int, number: signal.Signals, reason: str
) -> None:
    """Killed, the connection breaks at once; stopped, the process hangs, and the time-out counts."""
    config = few_shot(tmp_path, folder, steps=1000, save_every=2, process_timeout=30, loader_timeout=10)
    processes = start_processes([str(ROOT / "train" / "finetune.py"), "--config", str(config)])
    log, end = tmp_path / "out" / "log.jsonl", time.monotonic() + 300
    while (not log.is_file() or len(losses(log)) < 3) and time.monotonic() < end:
        time.sleep(0.05)
    began = time.monotonic()
    processes[victim].send_signal(number)
    told, _ = processes[1 - victim].communicate(timeout=300)
    processes[victim].kill()
    processes[victim].communicate(timeout=60)
    assert processes[1 - victim].returncode == TRY_AGAIN, told
    assert "error: another process of this run ended or hangs" in told
    assert reason in told
    assert "Traceback" not in told
    assert time.monotonic() - began < 90  # 30, and what a busy machine takes to end a process
    newest = int(saved(tmp_path / "out")[-1][-7:])
    assert run_here(config, f"steps={newest + 1}", resume=True) == 0
    assert len(losses(log)) == newest + 1


def test_only_lost_processes_are_told_as_such() -> None:
    def fail(message: str) -> int:
        raise RuntimeError(message)

    assert exit_codes.is_lost_process(RuntimeError("[/x/gloo/gloo/transport/tcp/pair.cc:1] Read error"))
    assert run_command(lambda: fail("[/x/gloo/pair.cc:1] Connection closed by peer")) == TRY_AGAIN
    with pytest.raises(RuntimeError, match="shapes differ"):
        run_command(lambda: fail("shapes differ"))


def test_what_ends_a_run_has_its_exit_code() -> None:
    def end(error: BaseException) -> int:
        def command() -> int:
            raise error

        return run_command(command)

    assert end(FloatingPointError("x")) == end(FileNotFoundError("x")) == end(PermissionError("x")) == REFUSED == 2
    assert end(OSError(errno.ENOSPC, "full")) == end(loader.LoaderError("hangs")) == TRY_AGAIN == 75
    assert end(KeyboardInterrupt()) == exit_codes.of_signal(signal.SIGINT) == 130
    assert exit_codes.of_signal(signal.SIGTERM) == 143
    assert exit_codes.of_signal(0) == 0
