"""Detection from annotated pictures: a sample is a picture with all its objects, and nothing is asked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.augment import Augmentation
from sam_uniref.data.batch import Sample, Task
from sam_uniref.data.instances import PictureObjects
from sam_uniref.data.sizes import ShortSides
from sam_uniref.images import RGB


class Picture(Protocol):
    """A picture that is read when it is asked for."""

    @property
    def image(self) -> Path:
        """Its file."""

    def load(self) -> tuple[RGB, PictureObjects]:
        """Picture ``(H, W, 3)`` uint8 RGB and its objects, of which there is at least one."""


class PictureTable(Protocol):
    """Pictures by number, with what must be known of all at once."""

    categories: tuple[str, ...]
    held_out: NDArray[np.bool_]
    landscape: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of pictures."""

    def __getitem__(self, index: int) -> Picture:
        """One of them."""


@dataclass
class DetectionDataset:
    """Draws pictures with their objects. A sample is a pure function of (index, rng).

    Attributes:
        name: For messages and logs.
        pictures: All of them; those held out serve validation.
        one_class: Whether all objects are of one class, 0.
        augmentation: In training.
        short_sides: In training, or None for the model's own.
        weight: Share of the steps, against those of other data sets.
    """

    name: str
    pictures: PictureTable
    one_class: bool = False
    augmentation: Augmentation = field(default_factory=Augmentation)
    short_sides: ShortSides | None = None
    weight: float = 1.0

    task: Task = field(default="detection", init=False)

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"{self.name}: weight must be at least 0, got {self.weight}")
        self._trained = np.flatnonzero(~self.pictures.held_out)
        held_out = np.flatnonzero(self.pictures.held_out)
        if not len(self._trained):
            raise ValueError(f"{self.name}: nothing to train detection on; it needs a picture with an object")
        self._validated = held_out if len(held_out) else self._trained
        self.validation_split = "validation" if len(held_out) else "training"
        self.landscape = self.pictures.landscape[self._trained]
        self.classes = 1 if self.one_class else len(self.pictures.categories)
        self.together, self.language_only, self.can_swap = 1, 0.0, False

    def __len__(self) -> int:
        """Number of pictures to train on."""
        return len(self._trained)

    def sample(self, index: int, rng: np.random.Generator, *, language_only: bool = False) -> Sample:
        """A training sample.

        Args:
            index: Which picture, 0 to ``len(self) - 1``.
            rng: Its only source of chance.
            language_only: Not used: there is no sentence. Here for `EpisodeDataset`'s sake.
        """
        picture = self.pictures[int(self._trained[index])]
        return self._sample(picture, *self.augmentation.of_objects(*picture.load(), rng))

    def label(self, index: int) -> str:
        """The picture of a training sample."""
        return f"{self.name}: {self.pictures[int(self._trained[index])].image}"

    @property
    def episodes(self) -> int:
        """Number of pictures to validate on."""
        return len(self._validated)

    def episode(self, index: int, *, swapped: bool = False) -> Sample:
        """A picture to validate on, as it is.

        Raises:
            ValueError: If references are to be swapped, which there are none of.
        """
        if swapped:
            raise ValueError(f"{self.name}: detection has no references to swap")
        picture = self.pictures[int(self._validated[index])]
        return self._sample(picture, *picture.load())

    def _sample(self, picture: Picture, image: RGB, objects: PictureObjects) -> Sample:
        return detection_sample(f"{self.name}: {picture.image}", image, objects, one_class=self.one_class)


def detection_sample(name: str, image: RGB, objects: PictureObjects, *, one_class: bool) -> Sample:
    """A picture with all its objects; all of class 0 where there is one class. The mask of what is asked is empty."""
    known = replace(objects, labels=np.zeros_like(objects.labels)) if one_class else objects
    return Sample(name, "detection", image, np.zeros(image.shape[:2], bool), objects=known)
