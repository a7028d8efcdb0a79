"""Who is at a piece of the work: locks that the system takes back from a process that dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLAIMS_FOLDER = "claims"


@contextmanager
def claimed(folder: Path, name: str, *, wait: bool) -> Iterator[bool]:
    """Whether a piece is this process's while the block runs.

    Where the system has no such locks (Windows, some network disks) it always is: two processes may then do the same
    work, and write the same file.

    Args:
        folder: Of the cache.
        name: Of the piece.
        wait: Until another process is done with it.
    """
    path = folder / CLAIMS_FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        mine = _lock(file.fileno(), wait)
        try:
            yield mine
        finally:
            if mine:
                path.unlink(missing_ok=True)


def _lock(descriptor: int, wait: bool) -> bool:
    """Whether the lock was to be had."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a disk that knows no locks
        return True
    return True
