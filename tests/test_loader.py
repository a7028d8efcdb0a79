"""Loader processes that hang or die: replaced once, then named, and never in the way of the run's end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from accelerate import Accelerator
from folders import make_folder
from prepared_sets import video_row, write_prepared
from tiny import tiny_model

from sam_uniref.data import SourceOptions, open_source
from sam_uniref.train import loader
from sam_uniref.train.loader import BatchLoader, LoaderError
from sam_uniref.train.validation import validate

FAULTY = 5


def hang() -> None:
    time.sleep(1000)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Numbers:
    """Batches that are their numbers; reading the third sample of one of them hangs or dies, a number of times."""

    def __init__(self, marks: Path, fault: Callable[[], None], times: int) -> None:
        self.marks, self.fault, self.times = marks, fault, times
        self.on_sample: Callable[[str], None] = lambda _: None

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        self.on_sample("my_data: first.png")
        self.on_sample("my_data: picture 5.png, object 2")
        met = len(list(self.marks.iterdir()))
        if index == FAULTY and met < self.times:
            (self.marks / str(met)).touch()
            self.fault()
        return index


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_ASK_EVERY", 0.5)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("fault", [hang, die])
def test_a_loader_process_that_fails_once_is_replaced(
    tmp_path: Path, fault: Callable[[], None], workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    others = set(multiprocessing.active_children())  # of other tests
    batches = BatchLoader(Numbers(tmp_path, fault, times=1), 2, workers, timeout=2)
    assert list(batches) == list(range(2, 10))
    batches.close()
    assert "which was reading my_data: picture 5.png, object 2," in caplog.text
    assert "reading on with new ones" in caplog.text
    assert ("died" in caplog.text) == (fault is die)
    assert set(multiprocessing.active_children()) <= others


@pytest.mark.parametrize("fault", [hang, die])
def test_one_that_fails_again_ends_the_run_and_is_named(tmp_path: Path, fault: Callable[[], None]) -> None:
    others = set(multiprocessing.active_children())
    batches = BatchLoader(Numbers(tmp_path, fault, times=2), FAULTY, workers=1, timeout=2)
    with pytest.raises(LoaderError, match=r"reading my_data: picture 5\.png, object 2,.*for the second time; see"):
        next(batches)
    assert set(multiprocessing.active_children()) <= others


def test_a_death_is_not_noticed_in_the_midst_of_a_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """PyTorch's loader raises it from a signal, wherever the run is."""
    go = tmp_path / "go"
    (tmp_path / "marks").mkdir()

    def die_when_told() -> None:
        while not go.exists():
            time.sleep(0.01)
        die()

    others = set(psutil.Process().children())  # of other tests
    batches = BatchLoader(Numbers(tmp_path / "marks", die_when_told, times=1), FAULTY - 1, workers=1, timeout=60)
    assert next(batches) == FAULTY - 1
    (worker,) = set(psutil.Process().children()) - others
    go.touch()
    while worker.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)  # the step, in which the next batch's worker dies
    assert caplog.text == ""
    assert list(batches) == list(range(FAULTY, 10))
    assert "died" in caplog.text
    batches.close()


def test_one_that_is_slow_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    batches = BatchLoader(Numbers(tmp_path, lambda: time.sleep(1.5), times=1), FAULTY, workers=1, timeout=0)
    assert list(batches) == list(range(FAULTY, 10))
    assert caplog.text == ""
    batches.close()


def test_a_run_ends_while_a_loader_process_hangs(tmp_path: Path) -> None:
    """It ignores SIGTERM, which multiprocessing would wait for at exit."""
    others = set(multiprocessing.active_children())  # of other tests
    batches = BatchLoader(Numbers(tmp_path, hang, times=1), FAULTY - 1, workers=1, timeout=60)
    assert next(batches) == FAULTY - 1
    began = time.monotonic()
    batches.close()
    assert set(multiprocessing.active_children()) <= others
    assert time.monotonic() - began < 30
    with pytest.raises(StopIteration):
        next(batches)


def test_errors_of_the_data_pass_through(tmp_path: Path) -> None:
    def broken() -> None:
        raise RuntimeError("picture 5.png is broken")

    batches = BatchLoader(Numbers(tmp_path, broken, times=1), FAULTY, workers=1, timeout=60)
    with closing(batches), pytest.raises(RuntimeError, match=r"picture 5\.png is broken"):
        next(batches)


def test_without_loader_processes_batches_are_read_here(tmp_path: Path) -> None:
    assert list(BatchLoader(Numbers(tmp_path, hang, times=0), 7, workers=0, timeout=1)) == [7, 8, 9]


@pytest.mark.parametrize(
    ("reader", "task", "named"),
    [
        ("folder", "fss", "mine: {root}/classes/"),
        ("folder", "vos", "mine: {root}/clips/walk/images/00000.jpg object 1"),
        ("prepared", "vos", "clip/00000.jpg object 2 or another of its 6 frames"),
        ("refshapes", "ris", "mine: refshapes train 0"),
    ],
)
def test_samples_have_labels_before_they_are_read(tmp_path: Path, reader: str, task: str, named: str) -> None:
    if reader == "prepared":
        root = write_prepared(tmp_path / "set", tmp_path, {"train": [video_row(tmp_path, "clip")]})
    else:
        root = make_folder(tmp_path)
    source = open_source(reader, "mine", task, SourceOptions(root=str(root)))  # type: ignore[arg-type]
    for picture in tmp_path.rglob("*.jpg"):
        picture.write_bytes(b"")  # nothing could be read
    assert named.format(root=root) in source.label(0)


class Hanging:
    """A data set whose second episode can't be read."""

    name, task, validation_split, can_swap, episodes = "my_data", "fss", "validation", False, 2

    def episode(self, index: int, *, swapped: bool) -> None:
        if index:
            hang()


def test_an_episode_that_validation_can_not_read_is_named() -> None:
    accelerator, others = Accelerator(cpu=True), set(multiprocessing.active_children())
    with pytest.raises(LoaderError, match=r"reading my_data: validation episode 1,.*for the second time"):
        validate(tiny_model(False), [Hanging()], accelerator, 2, workers=1, timeout=2)  # type: ignore[list-item]
    assert set(multiprocessing.active_children()) <= others


def test_validation_is_the_same_with_loader_processes(tmp_path: Path) -> None:
    model, accelerator = tiny_model(False), Accelerator(cpu=True)
    data = [open_source("folder", "fss", "fss", SourceOptions(root=str(make_folder(tmp_path / "folder"))))]
    alone = validate(model, data, accelerator, 2)
    assert validate(model, data, accelerator, 2, workers=2, timeout=60) == alone
