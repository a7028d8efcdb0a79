"""``eval/cache_precision.py``: what rounding costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from runs import ENVIRONMENT, ROOT

from sam_uniref.cache import PRECISIONS


def precision(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "eval/cache_precision.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)


def test_rows_of_all_precisions(tmp_path: Path) -> None:
    done = precision("--episodes", "2", "--json", str(tmp_path / "rows.json"))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["task"], row["precision"]) for row in rows] == [
        (task, kept) for task in ("ris", "fss", "vos") for kept in PRECISIONS
    ]
    for row in rows:
        bound = {"float32": 1e-6, "bfloat16": 0.002, "int8": 0.006}[row["precision"]]
        assert row["features"] <= bound
        assert row["precision"] == "float32" or row["features"] > bound / 4
        assert row["lowest_agreement"] <= row["agreement"] <= 1
        assert row["agreement"] > (0.98 if bound > 1e-6 else 0.9999)
    assert done.stdout.count("\n") == 2 + len(rows)


def test_bad_input_is_one_line() -> None:
    for arguments, message in (
        (["--episodes", "0"], "--episodes must be at least 1, got 0"),
        (["--model", "nowhere"], "nowhere holds no SamRef"),
    ):
        refused = precision(*arguments)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1
