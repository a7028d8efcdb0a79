"""The losses of every step, a line of JSON each, which a resumed run goes on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sam_uniref.state import whole_file


class Journal:
    """``<output>/log.jsonl``.

    Args:
        path: The file.
        step: Steps that are done; later lines, of a run that was killed after its last checkpoint, are dropped.
    """

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step] if step else []
        with whole_file(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Add a line; it is on disk before the next step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


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
