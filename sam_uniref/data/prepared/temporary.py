"""A split that is prepared to be looked at once."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sam_uniref.data.prepared.prepare import Report, prepare

if TYPE_CHECKING:
    from sam_uniref.data.formats.base import DataFormat


@contextmanager
def temporary_split(
    layout: DataFormat, root: str | Path, split: str, workers: int | None, report: Report
) -> Iterator[Path]:
    """Prepare one split into a temporary folder, which is gone after the block, whatever ends it.

    ``TMPDIR`` says where temporary folders are.

    Args:
        layout: Reader of the data set.
        root: Folder of the download.
        split: To read.
        workers: Processes, as `prepare` has them.
        report: As `prepare` has it.

    Yields:
        Folder of the prepared set.

    Raises:
        FileNotFoundError: If the download or one of its annotation files is not there.
        ValueError: If an annotation file is broken, or the split is unknown.
    """
    with _ended_by_sigterm(), tempfile.TemporaryDirectory(prefix=f"sam-uniref-{layout.name}-") as folder:
        prepare(layout, root, folder, splits=(split,), workers=workers, report=report)
        yield Path(folder) / layout.name


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as an exception does, so that what it made is removed."""
    if threading.current_thread() is not threading.main_thread():  # others can't set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
