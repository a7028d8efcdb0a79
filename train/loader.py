"""Batches from loader processes that are watched: one that hangs or dies is replaced, and its sample is named."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from sam_uniref.train.interruption import leave_signals_to_the_run

logger = logging.getLogger(__name__)

B = TypeVar("B", covariant=True)

# How often a batch that does not come is asked after, in seconds: a worker that died is noticed by then.
_ASK_EVERY = 5
# What waits for a disk that is gone may not even be killed, in seconds.
_LONGEST_END = 10
_LONGEST_NAME = 1000  # bytes
_PID, _BATCH = range(2)
_IDLE = -1


class Batches(Protocol[B]):
    """What a loader reads from. If it has an ``on_sample``, this is told the name of every sample before it is read."""

    def __len__(self) -> int:
        """Number of batches."""

    def __getitem__(self, index: int) -> B:
        """One of them, a pure function of its number."""


class LoaderError(RuntimeError):
    """A loader process hangs or died, and so did the one that took its place."""


class BatchLoader(Iterator[B]):
    """Batches in order. A loader process that hangs or dies is replaced; if the same batch fails again, the run ends.

    Batches are pure functions of their numbers, so those of a new process are those of the old one.

    Args:
        batches: To read from.
        first: Number of the first batch.
        workers: Loader processes; 0 reads in this one, which then can't be watched.
        timeout: Seconds to wait for a batch; 0: for ever.
    """

    def __init__(self, batches: Batches[B], first: int, workers: int, timeout: float) -> None:
        self._batches, self._next, self._workers, self._timeout = batches, first, workers, timeout
        self._board = _Board(workers)
        self._iterator = self._open()

    def __next__(self) -> B:
        """The next batch.

        Raises:
            StopIteration: If there is none.
            LoaderError: If it can't be had; the message names the samples.
        """
        try:
            batch = self._ask()
        except _WorkerError as error:
            logger.warning("%s; reading on with new ones", error)
            self.close()
            self._iterator = self._open()
            try:
                batch = self._ask()
            except _WorkerError as again:
                self.close()
                raise LoaderError(
                    f"{again}, for the second time; see whether that file can be read, or leave it out. If it is only "
                    "slow, raise loader_timeout; if memory runs out, lower workers"
                ) from None
        self._next += 1
        return batch

    def close(self) -> None:
        """End the loader processes, those that hang too."""
        mine = [child for child in multiprocessing.active_children() if child.pid in self._board.processes]
        for worker in mine:
            worker.kill()
        for worker in mine:
            worker.join(_LONGEST_END)
        self._iterator = iter(())

    def _open(self) -> Iterator[B]:
        """A loader of the batches that are still to come."""
        self._board.clear()
        loader: DataLoader[Any] = DataLoader(
            _Watched(self._batches, self._board),
            batch_size=None,
            sampler=range(self._next, len(self._batches)),
            num_workers=self._workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=self._board.sign if self._workers else None,
            timeout=_ASK_EVERY if self._workers else 0,
        )
        iterator = iter(loader)
        # The loader would raise the death of a worker from a signal, in the midst of a step, say between the weights of
        # two processes. Here it is noticed when a batch is asked for.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return iterator

    def _ask(self) -> B:
        """Wait for the next batch.

        Raises:
            _WorkerError: If its process died, or hangs for longer than the time-out.
        """
        began = time.monotonic()
        while True:
            try:
                return next(self._iterator)
            except RuntimeError as error:  # the loader has no type for either
                told = str(error)
                if told.startswith("DataLoader worker (pid"):
                    raise _WorkerError(self._board.died()) from None
                if not told.startswith("DataLoader timed out"):
                    raise
            if self._timeout and time.monotonic() - began >= self._timeout:
                raise _WorkerError(self._board.hung(self._next, time.monotonic() - began))


class _WorkerError(Exception):
    """What is to be said of a worker."""


class _Board:
    """What each worker is at, in memory that all processes share.

    Args:
        workers: Number of them.
    """

    def __init__(self, workers: int) -> None:
        self._numbers = torch.full((workers, 2), _IDLE, dtype=torch.int64).share_memory_()
        self._names = torch.zeros(workers, _LONGEST_NAME, dtype=torch.uint8).share_memory_()

    # ---- By the workers ----

    def sign(self, worker: int) -> None:
        """Begin to work."""
        leave_signals_to_the_run(worker)
        self._numbers[worker, _PID] = os.getpid()

    def begin(self, worker: int, batch: int) -> None:
        """Begin a batch; `_IDLE` when one is done."""
        self._names[worker] = 0
        self._numbers[worker, _BATCH] = batch

    def name(self, worker: int, sample: str) -> None:
        """Begin a sample."""
        text = sample.encode()[:_LONGEST_NAME]
        self._names[worker] = 0
        self._names[worker, : len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)

    # ---- By the run ----

    def clear(self) -> None:
        """Forget all workers."""
        self._numbers.fill_(_IDLE)

    @property
    def processes(self) -> set[int]:
        """Of the workers."""
        return set(self._numbers[:, _PID].tolist()) - {_IDLE}

    def died(self) -> str:
        """What to say of the workers that are no more."""
        alive = {child.pid for child in multiprocessing.active_children()}
        dead = [row for row, pid in enumerate(self._numbers[:, _PID].tolist()) if pid not in alive]
        return "; ".join(f"loader process {self._told(row)} died" for row in dead) or "a loader process died"

    def hung(self, batch: int, seconds: float) -> str:
        """What to say if a batch does not come: of the worker that is at it, or of all."""
        rows = [row for row, at in enumerate(self._numbers[:, _BATCH].tolist()) if at == batch]
        told = [self._told(row) for row in rows or range(len(self._numbers))]
        return f"batch {batch} has not come in {seconds:.0f} s from loader process {' or '.join(told)}"

    def _told(self, row: int) -> str:
        """A worker, and what it is at."""
        pid, batch = self._numbers[row].tolist()
        name = bytes(self._names[row].tolist()).rstrip(b"\0").decode(errors="replace")
        if batch == _IDLE:
            return f"{row} (pid {pid}), which had nothing to read,"
        return f"{row} (pid {pid}), which was reading {name or f'batch {batch}'},"


class _Watched(Dataset[Any]):
    """Batches whose readers write on the board what they are at."""

    def __init__(self, batches: Batches[Any], board: _Board) -> None:
        self._batches, self._board = batches, board

    def __getitem__(self, index: int) -> Any:
        worker = get_worker_info()
        if worker is None:
            return self._batches[index]
        if hasattr(self._batches, "on_sample"):
            self._batches.on_sample = partial(self._board.name, worker.id)
        self._board.begin(worker.id, index)
        batch = self._batches[index]
        self._board.begin(worker.id, _IDLE)
        return batch
