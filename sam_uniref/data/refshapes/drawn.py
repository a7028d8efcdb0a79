"""What a sample of RefShapes shows, for who wants its pictures alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sam_uniref.images import RGB

if TYPE_CHECKING:
    from sam_uniref.data.refshapes.dataset import RefShapesDataset

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


@dataclass(frozen=True)
class DrawnPicture:
    """The pictures of one sample.

    Attributes:
        dataset: That draws them.
        drawn_by: Its settings, by which equal pictures are known: each stage of a run builds it anew.
        split: Of the sample.
        index: Of the sample, or of the episode.
    """

    dataset: RefShapesDataset = field(compare=False)
    drawn_by: str
    split: Split
    index: int

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.dataset.name}: refshapes {self.dataset.task} {self.split} {self.index}"

    @property
    def most_views(self) -> int:
        """The query and its references; in validation the swapped ones too."""
        references = {"ris": 0, "fss": self.dataset.shots}.get(self.dataset.task, 1)
        return 1 + references * (1 if self.split == "train" else 2)

    def views(self) -> list[RGB]:
        """Each ``(side, side, 3)`` uint8 RGB."""
        dataset = copy.copy(self.dataset)  # which remembers what it drew last; several threads may draw
        if self.split == "train":
            samples = [dataset.sample(self.index)]
        else:
            samples = [dataset.episode(self.index, swapped=swapped) for swapped in (False, True)]
        references = [reference.image for sample in samples for reference in sample.references]
        return [samples[0].image, *references]


def drawn_pictures(dataset: RefShapesDataset) -> Iterator[DrawnPicture]:
    """Those of all samples and episodes.

    Raises:
        ValueError: If nothing refers to anything in them.
    """
    if dataset.task == "detection":
        raise ValueError(f"data.{dataset.name}: a detector trains its backbone, so there is nothing to cache for it")
    settings = repr(dataset)
    for split, count in zip(SPLITS, (dataset.length, dataset.episodes), strict=True):
        yield from (DrawnPicture(dataset, settings, split, index) for index in range(count))
