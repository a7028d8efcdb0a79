"""All that a data set can show a model, where that is a list: what features can be computed of once and for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from sam_uniref.data.augment import Augmentation
from sam_uniref.images import RGB, load_image

if TYPE_CHECKING:
    from sam_uniref.data.readers import SampleSource


class ShownPicture(Protocol):
    """Something that views are made of; equal ones have the same views."""

    @property
    def name(self) -> str:
        """For messages: its file, or what it was drawn for."""

    @property
    def most_views(self) -> int:
        """How many there are at most."""

    def views(self) -> list[RGB]:
        """Each HWC uint8 RGB, just as samples have them; some may be alike.

        Raises:
            FileNotFoundError: If the file is not there.
            ValueError: If it is broken.
        """


@runtime_checkable
class ShowsPictures(Protocol):
    """A `SampleSource` of which all that it shows is known."""

    def pictures(self) -> Iterator[ShownPicture]:
        """What training and validation look at.

        Raises:
            ValueError: If there is no end to it.
        """


@dataclass(frozen=True)
class FilePicture:
    """A picture's file, as an augmentation shows it.

    Attributes:
        path: Of the picture.
        augmentation: Whose views are a list.
    """

    path: Path
    augmentation: Augmentation

    @property
    def name(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def most_views(self) -> int:
        """Of the list."""
        return self.augmentation.most_views or 0

    def views(self) -> list[RGB]:
        """See `ShownPicture`."""
        return self.augmentation.listed(load_image(self.path))


def shown_pictures(sources: Sequence[SampleSource]) -> list[ShownPicture]:
    """What some data sets show, each picture once though several of them show it.

    Raises:
        ValueError: Naming the data set of which there is no end.
    """
    shown: dict[ShownPicture, None] = {}
    for source in sources:
        shown.update(dict.fromkeys(_pictures(source)))
    return list(shown)


def check_listed(sources: Sequence[SampleSource]) -> None:
    """Refuse data sets of whose pictures there is no end.

    Raises:
        ValueError: Naming it, and what to set.
    """
    for source in sources:
        next(_pictures(source), None)


def _pictures(source: SampleSource) -> Iterator[ShownPicture]:
    if not isinstance(source, ShowsPictures):
        raise ValueError(f"data.{source.name}: there are no features to cache for {source.task}; leave it out")
    return source.pictures()
