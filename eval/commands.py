"""What the commands of this folder share."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from sam_uniref.nearest import did_you_mean


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with the command line in one line."""

    def error(self, message: str) -> NoReturn:
        """Say it, with the nearest choice where there are some, and exit with 2."""
        chosen = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message)
        hint = did_you_mean(chosen[1], re.findall(r"[\w.+-]+", chosen[2])) if chosen else ""
        self.exit(2, f"error: {message}{hint} (see --help)\n")


def say_error(error: Exception) -> int:
    """Say what went wrong in one line; the exit code."""
    sys.stderr.write(" ".join(f"error: {error}".split()) + "\n")
    return 2


def counts(given: str) -> list[int]:
    """An argument such as ``1,2,4``."""
    parts = given.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"whole numbers from 1 on, such as 1,2,4, are needed, got {given!r}")
    return [int(part) for part in parts]


def names_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """For an argument of some of these names, with commas between them; each is taken once."""

    def parse(given: str) -> list[str]:
        names = given.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}{did_you_mean(name, known)}")
        return list(dict.fromkeys(names))

    return parse
