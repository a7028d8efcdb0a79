"""Work that is shared out to processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sam_uniref.processes import working_processes

COUNT = """
from sam_uniref.processes import working_processes

with working_processes(1) as (submit, _):
    print(submit(len, "four").result())
"""


@pytest.mark.parametrize("length", [10, 60, 200])
def test_the_temporary_folder_may_have_any_name(tmp_path: Path, length: int) -> None:
    """A server of processes is reached by a socket in it, whose name may have 107 bytes."""
    folder = tmp_path / ("t" * length)
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", COUNT],
        env={"TMPDIR": str(folder), "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.returncode) == ("4\n", 0), done.stderr
    assert list(folder.iterdir()) == []


def test_no_process_does_the_work_here() -> None:
    with working_processes(0) as (submit, waiting):
        assert (submit(len, "four").result(), waiting) == (4, 0)


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 0, got -1"), working_processes(-1):
        pass
