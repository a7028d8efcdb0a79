"""Pickles of plain containers: one that asks for anything else runs nothing and is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn


class _RefusedError(Exception):
    """A pickle asks for more than plain containers."""


class _PlainUnpickler(pickle.Unpickler):
    """Gives lists, dictionaries, strings and numbers, which need no look-up; every look-up is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _RefusedError(f"{module}.{name}")

    def persistent_load(self, identity: Any) -> NoReturn:
        raise _RefusedError(f"the outside object {identity!r:.60}")


def load_plain_pickle(path: Path) -> Any:
    """A pickle of lists, dictionaries, strings and numbers, of Python 2 or 3.

    Args:
        path: The file. Strings of Python 2 are read as latin-1, as those who wrote such files mean them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is cut off or broken, or asks for a class or function: such a file could run any program.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    with path.open("rb") as file:
        try:
            return _PlainUnpickler(file, encoding="latin-1").load()
        except _RefusedError as refused:
            raise ValueError(
                f"{path} asks for {refused}, and plain annotations need no such thing: nothing of it was run. "
                "It is not the official file; download it again from the official source"
            ) from None
        except Exception as error:  # a broken pickle may raise anything
            raise ValueError(f"{path} is no whole pickle ({error!r:.100}); download it again") from error
