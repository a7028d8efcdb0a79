"""What the commands of this folder share."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with the command line in one line."""

    def error(self, message: str) -> NoReturn:
        """Say it, and exit with 2."""
        self.exit(2, f"error: {message} (see --help)\n")


def say_error(error: Exception) -> int:
    """Say what went wrong in one line; the exit code."""
    sys.stderr.write(" ".join(f"error: {error}".split()) + "\n")
    return 2
