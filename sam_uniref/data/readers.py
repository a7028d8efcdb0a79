"""Data sets by name: each reader turns a run's options into a source of samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sam_uniref.data.augment import Augmentation
from sam_uniref.data.batch import Sample, Task
from sam_uniref.data.episodes import EpisodeDataset
from sam_uniref.data.folder import read_folder


class SampleSource(Protocol):
    """What training and validation know of a data set."""

    name: str
    task: Task
    weight: float
    language_only: float
    validation_split: str

    def __len__(self) -> int:
        """Number of training samples."""

    def sample(self, index: int, rng: np.random.Generator, *, language_only: bool = False) -> Sample:
        """A training sample, a pure function of its arguments."""

    @property
    def episodes(self) -> int:
        """Number of fixed evaluation episodes."""

    @property
    def can_swap(self) -> bool:
        """Whether episodes can take the reference of another object."""

    def episode(self, index: int, *, swapped: bool = False) -> Sample:
        """A fixed evaluation episode."""


@dataclass(frozen=True)
class SourceOptions:
    """What a run may ask of a data set; a reader takes what means something to it.

    Attributes:
        root: The data set's folder.
        expressions: File of sentences.
        validation: Share of pictures and clips to hold out, or their names.
        shots: Support images of an FSS episode.
        frame_range: Farthest apart that a VOS pair's frames may be.
        flip: Probability of a horizontal flip.
        crop: Probability of a crop.
        absent: Share of samples whose reference points at nothing.
        language_only: In RVOS, share of steps that see the sentence alone.
        weight: Share of the steps, against those of other data sets.
    """

    root: str | Path = ""
    expressions: str | Path | None = None
    validation: Any = 0.0
    shots: int = 1
    frame_range: int = 10
    flip: float = 0.5
    crop: float = 0.5
    absent: float = 0.0
    language_only: float = 0.4
    weight: float = 1.0


def folder_source(name: str, task: Task, options: SourceOptions) -> SampleSource:
    """A user's own folder; see `sam_uniref.data.folder`."""
    return EpisodeDataset(
        name,
        task,
        read_folder(options.root, task, expressions=options.expressions, validation=options.validation),
        shots=options.shots,
        frame_range=options.frame_range,
        augmentation=Augmentation(flip=options.flip, crop=options.crop),
        absent=options.absent,
        language_only=options.language_only,
        weight=options.weight,
    )


def refshapes_source(name: str, task: Task, options: SourceOptions) -> SampleSource:
    """RefShapes, drawn on the fly; see `sam_uniref.data.refshapes`. It has no root, and needs no augmentation."""
    from sam_uniref.data.refshapes import RefShapesDataset

    return RefShapesDataset(
        name,
        task,
        shots=options.shots,
        frame_range=options.frame_range,
        absent=options.absent,
        language_only=options.language_only,
        weight=options.weight,
    )


READERS: dict[str, Callable[[str, Task, SourceOptions], SampleSource]] = {
    "folder": folder_source,
    "refshapes": refshapes_source,
}


def open_source(reader: str, name: str, task: Task, options: SourceOptions) -> SampleSource:
    """A data set by its reader's name.

    Raises:
        FileNotFoundError: If its folder is not there.
        ValueError: If there is no such reader, or the data set has nothing for the task.
    """
    if reader not in READERS:
        raise ValueError(f"there is no reader {reader!r}; known are {sorted(READERS)}")
    return READERS[reader](name, task, options)
