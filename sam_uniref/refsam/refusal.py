"""What a RefSam says when it is asked with anything but sentences."""

from __future__ import annotations

from typing import NoReturn


def refuse(what: str) -> NoReturn:
    """Say what a RefSam can be asked.

    Args:
        what: It was asked with.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"a RefSam finds what a sentence names and can't be asked with {what}; give a sentence alone")
