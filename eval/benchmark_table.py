"""What the comparisons of `benchmark.py` write: rows as JSON, and a Markdown table beside device and versions.

A subcommand makes its rows a subclass of `BenchmarkRow`, gives them in `measure(arguments)`, and hands them to
`report`; so ``benchmark.py all`` can put those of several into one file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sam_uniref.eval.commands import names_of
from sam_uniref.eval.machine import device_line
from sam_uniref.loading import best_device, named_device
from sam_uniref.sam.image_encoder import PRECISIONS
from sam_uniref.state import write_json

LIBRARIES = ("torch", "segment-anything", "transformers", "flash-attn")


@dataclass(frozen=True, kw_only=True)
class BenchmarkRow:
    """One implementation of one computation. Subclasses add what is counted, such as ``images_per_second``.

    Attributes:
        benchmark: ``encoder``, ``picture``, ``train`` or ``fusion``.
        implementation: Whose, or which way.
        model: Such as ``vit_b``.
        precision: Of the computation.
        seconds: Median of one run of it.
        peak_memory_mb: Of the whole process on the CPU, of tensors on a GPU.
        floor_seconds: What the implementation's own counted work takes at the device's measured peaks.
    """

    benchmark: str
    implementation: str
    model: str
    precision: str
    seconds: float
    peak_memory_mb: float
    floor_seconds: float

    @property
    def gap(self) -> float:
        """How many times the floor."""
        return self.seconds / self.floor_seconds

    def values(self) -> dict[str, Any]:
        """All of it by name, for JSON."""
        return {**asdict(self), "gap": self.gap}


def add_common_arguments(parser: argparse.ArgumentParser, precision: Sequence[str] | None = ("float32",)) -> None:
    """What all comparisons take.

    Args:
        parser: To add to.
        precision: The default.
    """
    parser.add_argument("--runs", type=int, default=5, help="of each way, in turns; medians are told")
    parser.add_argument(
        "--precision",
        type=precisions,
        default=precision and list(precision),
        help="of the computation, such as float32,bf16",
    )
    parser.add_argument("--threads", type=int, help="of the CPU; as many as PyTorch takes by default")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; the best there is by default")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows")


def precisions(given: str) -> list[str]:
    """An argument such as ``float32,bf16``; who says PyTorch's name for one is told what it is called here."""
    for name, precision in PRECISIONS.items():
        theirs = str(precision).removeprefix("torch.")
        if theirs != name and theirs in given.split(","):
            raise argparse.ArgumentTypeError(f"{theirs!r} is called {name} here")
    return names_of(tuple(PRECISIONS))(given)


def chosen_device(arguments: argparse.Namespace) -> torch.device:
    """That of `add_common_arguments`, whose numbers are checked, and whose threads are set.

    Raises:
        ValueError: If there is no such device, or the runs or threads are fewer than one.
    """
    check_positive(arguments, "runs", "threads")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    return best_device() if arguments.device is None else named_device(arguments.device)


def check_positive(arguments: argparse.Namespace, *names: str) -> None:
    """Refuse numbers below one; what is not given is not looked at.

    Raises:
        ValueError: Naming the option.
    """
    for name in names:
        given = getattr(arguments, name)
        if given is not None and given < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {given}")


def library_versions() -> dict[str, str]:
    """Of the libraries that are compared or compute; those that are not installed are left out."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def report(rows: Sequence[BenchmarkRow], device: torch.device, path: Path | None, **rest: Any) -> None:
    """Write rows to standard output as Markdown, a table a benchmark, and to a file as JSON if there is a path.

    Args:
        rows: At least one.
        device: That they were measured on.
        path: Of the file.
        rest: What else the file gets.
    """
    line, versions = device_line(device), library_versions()
    if path is not None:
        written = [row.values() for row in rows]
        write_json(path, {"device": line, "versions": versions, "rows": written, **rest})
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    sys.stdout.write(f"{line}; {names}\n")
    for benchmark in dict.fromkeys(row.benchmark for row in rows):
        own = [row for row in rows if row.benchmark == benchmark]
        sys.stdout.write(f"\n{markdown_table([row.values() for row in own])}\n")


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table; numbers to four digits, whole from a thousand on."""
    heads = list(rows[0])
    numeric = [all(isinstance(row[head], int | float) for row in rows) for head in heads]
    lines = [
        heads,
        ["---:" if right else "---" for right in numeric],
        *([_shown(row[head]) for head in heads] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _shown(value: Any) -> str:
    """A cell."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
