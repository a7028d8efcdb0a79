"""Peak memory of a part of a run."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak(device: torch.device) -> None:
    """Begin anew, where the system can; elsewhere (CPU without Linux) the peak is that of the whole run."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        try:
            _CLEAR.write_text("5")
        except PermissionError:  # in some containers
            return


def release_free(device: torch.device) -> None:
    """Give back what the allocator keeps for later, where it can (a GPU; Linux's malloc), so that using it counts."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def peak_megabytes(device: torch.device) -> float:
    """The most that was held since `reset_peak`: tensors on a GPU, the whole process's resident memory on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def tree_megabytes(process_id: int | None = None) -> float:
    """What a process and its children hold now; on Linux pages that they share are counted once.

    Args:
        process_id: By default this one; 0 MB if there is none such any more.
    """
    import psutil

    total = 0
    try:
        family = [me := psutil.Process(process_id), *me.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in family:
        try:
            held = process.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it ended while it was looked at
            continue
        total += getattr(held, "pss", held.rss)
    return total / 1e6
