"""Containers for millions of ids and names in little memory."""

from __future__ import annotations

from array import array

# Ids of a data set mostly lie close together; so many share one number's bits.
_PAGE_BITS = 9


class IdSet:
    """Whole numbers that were seen; about two bits each where they lie close together."""

    def __init__(self) -> None:
        self._pages: dict[int, int] = {}

    def add(self, number: int) -> bool:
        """Take a number in.

        Returns:
            Whether it is new.
        """
        page, bit = number >> _PAGE_BITS, 1 << (number & ((1 << _PAGE_BITS) - 1))
        seen = self._pages.get(page, 0)
        if seen & bit:
            return False
        self._pages[page] = seen | bit
        return True


class Texts:
    """A list of strings, held as their bytes."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """Add one to the end."""
        self._bytes += text.encode()
        self._ends.append(len(self._bytes))

    def __getitem__(self, place: int) -> str:
        return self._bytes[self._ends[place] : self._ends[place + 1]].decode()

    def __len__(self) -> int:
        return len(self._ends) - 1
