"""What the reader of a data set's official download offers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import Row, TableKind


class DataFormat(Protocol):
    """A data set's layout.

    A split is read in units. Units are told in one process and in a fixed order, cheaply and one after another, so
    that a million annotations never stand in memory together; each is read by itself in any process, and becomes a
    shard. The same download gives the same units.

    Attributes:
        name: As `prepare` and the command line call it.
        title: As people call it.
        table: Which rows it has.
        homepage: Its official source.
        licence: Of annotations and pictures, as the source states it.
        published: Per split, counts as published: ``images``, ``targets``, ``sentences``, ``videos``, ``objects``.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    table: ClassVar[TableKind]
    homepage: ClassVar[str]
    licence: ClassVar[str]
    published: ClassVar[Mapping[str, Mapping[str, int]]]

    def splits(self, root: Path) -> tuple[str, ...]:
        """Names of the splits that the download has, such as ``train``.

        Raises:
            FileNotFoundError: If it has none, with the layout that is expected.
        """

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[Any]:
        """Pieces of work, each small enough for memory, and picklable.

        Args:
            root: Folder of the download.
            split: One of `splits`.
            problems: Takes what is wrong before a unit is read, such as an id that stands twice.

        Raises:
            FileNotFoundError: If an annotation file is not there.
            ValueError: If an annotation file is broken, or of another release.
        """

    def read(self, root: Path, split: str, unit: Any, problems: Problems) -> Iterator[Row]:
        """The rows of a unit; what can't be used is counted in ``problems`` and left out."""
