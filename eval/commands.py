"""What the commands of this folder share."""

from __future__ import annotations

import argparse
import re
import sys
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
