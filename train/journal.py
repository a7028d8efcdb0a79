"""What a run measured, a line of JSON an entry, which a resumed run goes on from."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from sam_uniref.state import whole_file

logger = logging.getLogger(__name__)


class Journal:
    """``<output>/log.jsonl``: every step's losses and every validation, also of while the disk was full.

    Args:
        path: The file.
        step: Steps that are done; later lines, of a run that was killed after its last checkpoint, are dropped.
    """

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step] if step else []
        with whole_file(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._path = path
        # Unbuffered: what is not on the disk is known, and what got there by half can be taken back.
        self._file = path.open("ab", buffering=0)
        self._end = self._file.tell()
        self._waiting = b""
        self._validated = {entry["step"] for entry in map(json.loads, kept) if "validation" in entry}

    def validated(self, step: int) -> bool:
        """Whether a run before this one has a validation after so many steps."""
        return step in self._validated

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Add a line; it is on disk before the next step, or when there is room again."""
        told = not self._waiting
        self._waiting += (json.dumps({"step": step, **values}) + "\n").encode()
        try:
            self._write_waiting()
        except OSError as error:
            if told:
                logger.warning("%s can't be written (%s); its lines are kept until it can", self._path, error)

    def close(self) -> None:
        """Close the file."""
        try:
            self._write_waiting()
        except OSError as error:
            logger.error("%d lines of %s are lost (%s)", self._waiting.count(b"\n"), self._path, error)
        self._file.close()

    def _write_waiting(self) -> None:
        """Write all lines that are not in the file, whole, or leave it as it is."""
        try:
            left = memoryview(self._waiting)
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._file.truncate(self._end)
            raise
        self._end += len(self._waiting)
        self._waiting = b""


def _whole_lines(path: Path) -> list[str]:
    """Lines that are whole JSON; a kill can cut the last one."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            json.loads(line)
        except json.JSONDecodeError:
            break
        lines.append(line)
    return lines
