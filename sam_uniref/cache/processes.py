"""Several processes of one command that write into one cache."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from sam_uniref.cache.description import CacheDescription
from sam_uniref.cache.writer import CacheWriter, Report
from sam_uniref.data.shown import ShownPicture
from sam_uniref.interfaces import ImageBackbone

# How often to look for what processes report, in seconds.
_POLL = 0.2


def write_cache(
    folder: Path,
    backbone: ImageBackbone,
    description: CacheDescription,
    pictures: Sequence[ShownPicture],
    shard_views: int,
    *,
    processes: int = 1,
    batch_size: int = 1,
    threads: int = 2,
    report: Report | None = None,
) -> None:
    """Encode what is missing of some pictures.

    Args:
        folder: Of the cache.
        backbone: The frozen encoder. Of CUDA devices each process takes the next one; on the CPU all share its memory.
        description: Of what the cache is.
        pictures: What is to be in it.
        shard_views: Views in a shard, about.
        processes: How many; 1 is this one.
        batch_size: Views that a process encodes at a time.
        threads: That read pictures ahead, in each process.
        report: See `CacheWriter.write`; called in this process.

    Raises:
        ChildProcessError: If a process was killed; the others are ended, and whole shards stay.
        ValueError: If a picture is broken, not there, or the disk is full.
    """
    options = {"batch_size": batch_size, "threads": threads}
    if processes == 1:
        CacheWriter(folder, backbone, description, **options).write(pictures, shard_views, report=report)
        return
    told = multiprocessing.get_context("spawn").Queue()
    started = multiprocessing.start_processes(
        _write_share,
        args=(processes, folder, backbone, description, pictures, shard_views, options, told),
        nprocs=processes,
        join=False,
        start_method="spawn",
    )
    try:
        while not started.join(timeout=_POLL):
            _pass_on(told, report)
    except ProcessExitedException as error:
        raise ChildProcessError(
            f"a process that filled {folder} was ended ({error}); whole shards stay, and the same command goes on"
        ) from error
    except ProcessRaisedException as error:
        raise ValueError(str(error).strip().splitlines()[-1]) from error
    finally:
        for process in started.processes:
            if process.is_alive():
                process.terminate()
    _pass_on(told, report)


def _write_share(
    rank: int,
    processes: int,
    folder: Path,
    backbone: ImageBackbone,
    description: CacheDescription,
    pictures: Sequence[ShownPicture],
    shard_views: int,
    options: dict[str, Any],
    told: Any,
) -> None:
    """What one of the processes does."""
    if next(backbone.encoder.parameters()).device.type == "cuda":
        backbone.encoder.to(torch.device("cuda", rank % torch.cuda.device_count()))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    writer = CacheWriter(folder, backbone, description, **options)
    writer.write(pictures, shard_views, share=(rank, processes), report=lambda *counts: told.put(counts))


def _pass_on(told: Any, report: Callable[[int, int], None] | None) -> None:
    """Hand on what processes told since."""
    while True:
        try:
            counts = told.get_nowait()
        except queue.Empty:
            return
        if report is not None:
            report(*counts)
