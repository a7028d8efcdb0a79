"""What commands say: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import typer


def complain(message: str) -> None:
    """Tell in one line on stderr what went wrong."""
    from rich.console import Console
    from rich.text import Text

    line = " ".join(f"error: {message}".split())
    Console(stderr=True).print(Text(line, style="bold red"), soft_wrap=True)


def note(message: str, *, quiet: bool) -> None:
    """Tell in one line on stderr what is good to know."""
    if not quiet:
        typer.echo(f"note: {message}", err=True)


def print_json(answer: object) -> None:
    """One line of JSON; paths become strings."""
    typer.echo(json.dumps(answer, default=str))


def progress(
    items: Iterable[Any] | None = None, *, what: str | None = None, unit: str, total: int | None, quiet: bool
) -> Any:
    """A bar on stderr (tqdm's) where somebody watches, and not with --quiet."""
    from tqdm.auto import tqdm

    return tqdm(items, desc=what, total=total, unit=f" {unit}", disable=True if quiet else None)


def print_beside(bar: Any, line: str) -> None:
    """A line on stdout while a bar is on the screen."""
    # A file's name may hold bytes that are no characters.
    bar.write(line.encode(errors="backslashreplace").decode(), file=sys.stdout)
