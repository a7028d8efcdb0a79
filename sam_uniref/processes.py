"""Work that is shared out to processes, so many pieces at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

T = TypeVar("T")

# The address of the server that copies itself: a file in a folder of its own, within the temporary one. What the
# system allows for all of it is 103 bytes on a Mac, four more on Linux.
_ADDRESS = "/pymp-12345678/listener-12345678"
_LONGEST_ADDRESS = 103
# Pieces in work or waiting for a process: what bounds the memory.
_WAITING_A_WORKER = 2


def worker_count(workers: int | None) -> int:
    """Number of processes; one a core by default.

    Raises:
        ValueError: If it is negative.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers must be at least 0, got {workers}")
    if workers is not None:
        return workers
    # Of a container's or a job's cores, where the system tells.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def working_processes(workers: int | None) -> Iterator[tuple[Callable[..., Future[Any]], int]]:
    """What takes work, ``submit(function, *arguments)``, and how much of it may wait.

    Args:
        workers: Processes; 0 does the work in this one. By default one a core.

    Raises:
        ValueError: If it is negative.
    """
    count = worker_count(workers)
    if count == 0:
        yield _at_once, 0
        return
    executor: Executor
    with ProcessPoolExecutor(
        count,
        mp_context=_context(),
        # Ctrl-C reaches all processes of a terminal: this one stops the work, the others finish their pieces.
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as executor:
        try:
            yield executor.submit, _WAITING_A_WORKER * count
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise


def _context() -> BaseContext:
    """How processes begin: never as a copy of this one, whose threads (PyTorch's, Arrow's) may hold locks."""
    short = len(os.fsencode(tempfile.gettempdir() + _ADDRESS)) <= _LONGEST_ADDRESS
    if "forkserver" not in multiprocessing.get_all_start_methods() or not short:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # They are copies of a server that has no threads. It imports once, when the first of them is wanted, what each of
    # them would import anew: seconds for PyTorch alone.
    context.set_forkserver_preload([name for name in sys.modules if name.split(".")[0] == "sam_uniref"])
    return context


def _at_once(function: Callable[..., T], *arguments: Any) -> Future[T]:
    """Do it here."""
    future: Future[T] = Future()
    future.set_result(function(*arguments))
    return future
