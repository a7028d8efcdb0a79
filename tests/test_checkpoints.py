"""Checkpoints of training: faults of the disk while they are written, and of what is on it when they are read."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sam_uniref import state
from sam_uniref.state import whole_folder
from sam_uniref.train import checkpoints
from sam_uniref.train.checkpoints import CheckpointFolder, CheckpointNotSavedError

FILES = ("trained.safetensors", "optimizer.pt", "trainer.json", "checksums.json")


class Model(nn.Linear):
    """A model whose whole state is trained; 4 kB of weights."""

    def __init__(self) -> None:
        super().__init__(32, 32)

    def trained_state_dict(self) -> dict[str, Tensor]:
        return self.state_dict()

    def load_trained_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        self.load_state_dict(state_dict)


class Run:
    """A model and its optimiser, a step of training at a time."""

    def __init__(self) -> None:
        self.model = Model()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)

    def step(self) -> None:
        self.model(torch.ones(1, 32)).square().sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> list[Tensor]:
        """Copies of weights and moments, in order."""
        moments = [v for values in self.optimizer.state.values() for v in values.values()]
        return [tensor.detach().clone() for tensor in (*self.model.parameters(), *moments)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def save(run: Run, folder: CheckpointFolder, *steps: int) -> dict[int, list[Tensor]]:
    """Train and write checkpoints after these steps; the states that they must hold."""
    states = {}
    for step in steps:
        run.step()
        folder.save(step, run.model, run.optimizer, {"scaler": None})
        states[step] = run.state()
    return states


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, list[Tensor]]]:
    """Checkpoints after 1 and 2 steps, and what is in them."""
    place = tmp_path_factory.mktemp("two")
    return place, save(Run(), CheckpointFolder(place, keep=2), 1, 2)


@st.composite
def faults(draw: st.DrawFn) -> tuple[str, str, float, int]:
    """A file, what becomes of it, where in it, and by which bits."""
    kind = draw(st.sampled_from(("flip", "truncate", "delete", "zeros")))
    return draw(st.sampled_from(FILES)), kind, draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(1, 255))


def inflict(path: Path, kind: str, where: float, bits: int) -> None:
    content = bytearray(path.read_bytes())
    at = int(where * len(content))
    if kind == "delete":
        path.unlink()
    elif kind == "truncate":
        path.write_bytes(content[:at])
    elif kind == "zeros":  # as a disk gives back what it has never written
        path.write_bytes(content[:at] + bytes(len(content) - at))
    else:
        content[at] ^= bits
        path.write_bytes(content)


@settings(max_examples=150, deadline=None)
@given(fault=faults())
def test_a_resumed_run_has_what_was_written_or_goes_back_one(
    two: tuple[Path, dict[int, list[Tensor]]], fault: tuple[str, str, float, int]
) -> None:
    """Whatever single fault the newest checkpoint has, nothing is loaded that was not saved."""
    saved, states = two
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "checkpoints"
        shutil.copytree(saved, folder)
        inflict(folder / "step_0000002" / fault[0], *fault[1:])
        run = Run()
        state = CheckpointFolder(folder, keep=2).restore(run.model, run.optimizer)
        assert state is not None
        # Without checksums, or with others of them in other letters, the files may be as they were all the same.
        assert state["step"] == 1 or fault[0] == "checksums.json"
        assert state == {"step": state["step"], "scaler": None}
        assert same(run.state(), states[state["step"]])


def test_the_fault_is_named(two: tuple[Path, dict], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(two[0], tmp_path / "c")
    inflict(tmp_path / "c" / "step_0000002" / "trained.safetensors", "flip", 0.9, 1)
    run = Run()
    assert CheckpointFolder(tmp_path / "c", keep=2).restore(run.model, run.optimizer) is not None
    assert "step_0000002 can't be used (trained.safetensors is not as it was written" in caplog.text
    assert "trying the one before" in caplog.text


def test_checkpoints_of_earlier_versions_have_no_checksums(two: tuple[Path, dict], tmp_path: Path) -> None:
    shutil.copytree(two[0], tmp_path / "c")
    (tmp_path / "c" / "step_0000002" / "checksums.json").unlink()
    run = Run()
    assert CheckpointFolder(tmp_path / "c", keep=2).restore(run.model, run.optimizer) == {"step": 2, "scaler": None}


def test_if_none_can_be_used_nothing_is_dropped(two: tuple[Path, dict], tmp_path: Path) -> None:
    shutil.copytree(two[0], tmp_path / "c")
    for number in (1, 2):
        (tmp_path / "c" / f"step_000000{number}" / "optimizer.pt").unlink()
    run = Run()
    with pytest.raises(ValueError, match="none of the 2 checkpoints"):
        CheckpointFolder(tmp_path / "c", keep=1).restore(run.model, run.optimizer)
    assert names(tmp_path / "c") == ["step_0000001", "step_0000002"]


def test_a_run_that_went_back_never_drops_its_own_for_the_broken_one(tmp_path: Path) -> None:
    """With one to keep, the broken newest would outlive all that follow but for its number."""
    folder = CheckpointFolder(tmp_path, keep=2)
    save(Run(), folder, 2, 6)
    inflict(tmp_path / "step_0000006" / "optimizer.pt", "truncate", 0.5, 0)
    run, alone = Run(), CheckpointFolder(tmp_path, keep=1)
    assert (alone.restore(run.model, run.optimizer) or {})["step"] == 2
    states = save(run, alone, 3)
    assert names(tmp_path) == ["step_0000003"]
    again = Run()
    assert alone.restore(again.model, again.optimizer) == {"step": 3, "scaler": None}
    assert same(again.state(), states[3])


@contextmanager
def small_files() -> Iterator[None]:
    """No file can grow beyond 2 kB, so that writes fail halfway as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def failing(module: ModuleType, name: str) -> Iterator[None]:
    """A function meets a full disk."""
    with mock.patch.object(module, name, side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))):
        yield


@contextmanager
def full_disk() -> Iterator[None]:
    """The disk has room for 1,000 bytes, and nothing is to be written."""
    with (
        mock.patch.object(checkpoints.shutil, "disk_usage", return_value=mock.Mock(free=1000)),
        mock.patch.object(checkpoints, "whole_folder", side_effect=AssertionError("wrote where there is no room")),
    ):
        yield


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (small_files(), r"takes 0\.0 MB in .*/c, where [\d,.]+ MB are free \(.*File too large"),
        (failing(checkpoints.torch, "save"), "No space left"),
        (failing(checkpoints, "file_sha256"), "No space left"),
        (failing(os, "fsync"), "No space left"),
        (full_disk(), r"takes 0\.0 MB in .*/c, where 0\.0 MB are free .*No space left"),
    ],
    ids=["half a file", "half a folder", "checksums", "at the last moment", "known before"],
)
def test_a_full_disk_leaves_the_other_checkpoints_and_nothing_of_the_new_one(
    two: tuple[Path, dict[int, list[Tensor]]], tmp_path: Path, fault: AbstractContextManager[None], reason: str
) -> None:
    shutil.copytree(two[0], tmp_path / "c")
    run, folder = Run(), CheckpointFolder(tmp_path / "c", keep=1)
    folder.restore(run.model, run.optimizer)
    run.step()
    with pytest.raises(CheckpointNotSavedError, match=f"the checkpoint after step 3 can't be written.*{reason}"), fault:
        folder.save(3, run.model, run.optimizer, {})
    assert names(tmp_path / "c") == ["step_0000001", "step_0000002"]
    again = Run()
    assert (folder.restore(again.model, again.optimizer) or {})["step"] == 2
    assert same(again.state(), two[1][2])
    folder.save(3, run.model, run.optimizer, {})
    assert names(tmp_path / "c") == ["step_0000003"]


def test_what_was_half_written_or_half_dropped_goes(tmp_path: Path) -> None:
    for left in (".step_0000001-x1y2", ".step_0000001-old"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "trained.safetensors").write_bytes(b"half")
    save(Run(), CheckpointFolder(tmp_path, keep=1), 1, 2)
    assert names(tmp_path) == ["step_0000002"]


# Writes a folder of two files that hold the same number again and again, until it is killed.
_REPLACING = """
import itertools, sys
from pathlib import Path
from sam_uniref.state import whole_folder
for number in itertools.count():
    with whole_folder(Path(sys.argv[1]) / "best") as temporary:
        (temporary / "a").write_text(str(number))
        (temporary / "b").write_text(str(number))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere two folders can't change places in one step")
def test_a_folder_that_is_replaced_is_there_at_all_times_and_whole_after_a_kill(tmp_path: Path) -> None:
    best, seen = tmp_path / "best", -1
    for pause in (0.05, 0.11, 0.2):
        process = subprocess.Popen([sys.executable, "-c", _REPLACING, str(tmp_path)])
        try:
            while not best.is_dir() or int((best / "a").read_text()) == seen:
                time.sleep(0.01)
            end = time.monotonic() + pause
            while time.monotonic() < end:
                assert best.is_dir()
        finally:
            process.kill()
            process.wait()
        seen = int((best / "a").read_text())
        assert seen == int((best / "b").read_text())


def test_where_folders_can_not_change_places_one_replaces_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_exchange", lambda *_: False)
    for number, _ in itertools.product("12", range(2)):
        with whole_folder(tmp_path / "folder") as temporary:
            (temporary / number).touch()
        assert names(tmp_path) == ["folder"]
        assert names(tmp_path / "folder") == [number]
