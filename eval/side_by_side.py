"""Measuring several ways of doing one thing: times in turns, so that a busy machine slows all alike; peaks apart."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

import torch
from tqdm.auto import tqdm

from sam_uniref.eval.machine import wait_for

P = ParamSpec("P")
T = TypeVar("T")


def seconds_in_turns(
    ways: Mapping[str, Callable[[], object]], runs: int, device: torch.device, title: str = "runs"
) -> dict[str, list[float]]:
    """Seconds of each run of each way; every round runs all of them once, after a round that is not timed.

    Args:
        ways: By name.
        runs: Timed rounds.
        device: That is waited for.
        title: Of the progress bar.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in tqdm(range(runs + 1), desc=title, unit="round"):
        for name, run in ways.items():
            wait_for(device)
            start = time.perf_counter()
            run()
            wait_for(device)
            if round_number > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def in_fresh_process(function: Callable[P, T], *given: P.args, **options: P.kwargs) -> T:
    """A function's answer from a process that did nothing before, with as many threads as this one.

    Args:
        function: Of a module, so that the process can import it.
        given: Its arguments, which can be pickled.
        options: Its keyword arguments.

    Raises:
        BrokenProcessPool: If the process was killed, as for want of memory.
    """
    context = multiprocessing.get_context("spawn")
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        return pool.submit(function, *given, **options).result()
