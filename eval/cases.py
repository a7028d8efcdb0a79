"""What is asked, and what is true: the cases of the four tasks, whatever data set they come from.

Pictures are loaded when they are asked for, and true masks stay encoded until they are compared, so that a split of
any size costs little memory, and scoring stored predictions reads no picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, overload

from sam_uniref.data.prepared import EncodedMask
from sam_uniref.images import RGB
from sam_uniref.reference import MaskReference
from sam_uniref.transforms import Size


@dataclass(frozen=True)
class Sentence:
    """One sample of RIS.

    Attributes:
        name: Unique in the data set's split; what its file is called in a folder of results.
        text: What is asked.
        mask: What it means; None where that is not known.
    """

    name: str
    text: str
    mask: EncodedMask | None


@dataclass(frozen=True)
class SpokenImage:
    """A picture with all sentences about it (RIS).

    Attributes:
        name: Unique in the split.
        size: ``(height, width)`` of the picture.
        load: Gives the picture, ``(H, W, 3)`` uint8 RGB.
        sentences: About it, in order.
    """

    name: str
    size: Size
    load: Callable[[], RGB]
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True)
class Query:
    """A picture with an object of a class, and annotated pictures of others (FSS).

    Attributes:
        name: Unique in the split.
        size: ``(height, width)`` of the picture.
        load: Gives the picture, ``(H, W, 3)`` uint8 RGB.
        category: The class.
        mask: The object.
        supports: Gives the annotated pictures, as many as the largest number of shots; fewer shots take the first.
    """

    name: str
    size: Size
    load: Callable[[], RGB]
    category: str
    mask: EncodedMask
    supports: Callable[[], list[MaskReference]]


@dataclass(frozen=True)
class ClipObject:
    """An object of a clip.

    Attributes:
        id: Its value in maps of ids.
        first: Number of the frame whose mask a tracker is given (VOS); -1 if there is none.
        masks: By frame number, of the annotated frames in which it is seen.
        sentences: That name it (RVOS), by what results call them, in order.
    """

    id: int
    first: int
    masks: Mapping[int, EncodedMask]
    sentences: Mapping[str, str]


@dataclass(frozen=True)
class Clip:
    """A video (VOS, RVOS).

    Attributes:
        name: Unique in the split.
        size: ``(height, width)`` of its frames.
        stems: Of its frames' files in order, as results are called.
        load: Gives a frame by its number, ``(H, W, 3)`` uint8 RGB.
        annotated: Numbers of the frames whose masks are known, rising; an object without a mask there is not seen.
        objects: That are asked about.
    """

    name: str
    size: Size
    stems: tuple[str, ...]
    load: Callable[[int], RGB]
    annotated: tuple[int, ...]
    objects: tuple[ClipObject, ...]

    def frames(self) -> Frames:
        """All frames, each loaded when it is asked for."""
        return Frames(len(self.stems), self.load)


class Frames(Sequence[RGB]):
    """Frames of a clip; only the one that was asked for last is kept, so that trackers in step share it.

    Args:
        count: How many there are.
        load: Gives one by its number.
    """

    def __init__(self, count: int, load: Callable[[int], RGB]) -> None:
        self._count, self._load = count, load
        self._last: tuple[int, RGB] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> RGB: ...
    @overload
    def __getitem__(self, index: slice) -> list[RGB]: ...
    def __getitem__(self, index: int | slice) -> RGB | list[RGB]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._count))]
        number = range(self._count)[index]
        if self._last is None or self._last[0] != number:
            self._last = number, self._load(number)
        return self._last[1]


AnyCase = SpokenImage | Query | Clip
Case = TypeVar("Case", bound=AnyCase)
Case_co = TypeVar("Case_co", covariant=True)
Case_contra = TypeVar("Case_contra", contravariant=True)


class Source(Protocol[Case_co]):
    """The cases of one task in a data set's split, in a fixed order.

    Attributes:
        title: Names data set and split to people.
        made_of: What tells these cases from another data set's or split's; in JSON's types.
        names: Of the cases, each once.
        scored: Whether the true masks are known; else cases can be asked and not scored.
    """

    title: str
    made_of: Mapping[str, Any]
    names: Sequence[str]
    scored: bool

    def __len__(self) -> int:
        """Number of cases."""

    def __getitem__(self, index: int) -> Case_co:
        """One of them; the same whenever it is asked for."""

    def check_pictures(self) -> None:
        """See that all pictures are there, without reading them.

        Raises:
            FileNotFoundError: Naming the first that is not.
        """


class NothingToAskError(ValueError):
    """A data set has not one case of a task."""
