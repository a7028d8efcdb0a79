"""Data sets by name: each reader turns a run's options into a source of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.augment import Augmentation
from sam_uniref.data.batch import Sample, Task
from sam_uniref.data.detection import DetectionDataset
from sam_uniref.data.episodes import EpisodeDataset
from sam_uniref.data.folder import read_folder
from sam_uniref.data.objects import AnnotatedObject, ObjectTable
from sam_uniref.data.sizes import ShortSides


class SampleSource(Protocol):
    """What training and validation know of a data set."""

    name: str
    task: Task
    weight: float
    language_only: float
    together: int  # samples 0 to together - 1, and so on, are about one picture and drawn together
    validation_split: str
    classes: int  # of detection; 1 where a reference says what is meant
    short_sides: ShortSides | None  # that training looks at pictures with; None for the model's own

    @property
    def landscape(self) -> NDArray[np.bool_] | None:
        """``(len(self),)``: which samples' pictures are wider than high; None where all are alike in that."""

    def __len__(self) -> int:
        """Number of training samples."""

    def sample(self, index: int, rng: np.random.Generator, *, language_only: bool = False) -> Sample:
        """A training sample, a pure function of its arguments."""

    def label(self, index: int) -> str:
        """What a training sample is about, for messages, without reading its files."""

    @property
    def episodes(self) -> int:
        """Number of fixed evaluation episodes."""

    @property
    def can_swap(self) -> bool:
        """Whether episodes can take the reference of another object."""

    def episode(self, index: int, *, swapped: bool = False) -> Sample:
        """A fixed evaluation episode."""


@dataclass
class SourceOptions:
    """What a run may ask of a data set; a reader takes what means something to it."""

    root: str = field(default="", metadata={"help": "the data set's folder"})
    expressions: str | None = field(default=None, metadata={"help": "file of sentences; root/expressions.jsonl"})
    split: str = field(default="train", metadata={"help": "what to train on (prepared)"})
    validation: Any = field(
        default=0.0,
        metadata={"help": "share of pictures and clips, or names, to hold out (folder); name of a split (prepared)"},
    )
    download: str | None = field(default=None, metadata={"help": "folder of the download, if it moved (prepared)"})
    keep_evaluation_images: bool = field(
        default=False, metadata={"help": "train also on pictures that sentences are evaluated on (prepared)"}
    )
    shots: int = field(default=1, metadata={"help": "support images (fss)"})
    supports: str = field(default="fixed", metadata={"help": "in evaluation: fixed (UniRef) or drawn (HSNet)"})
    frame_range: int = field(default=10, metadata={"help": "farthest apart that a pair of frames may be"})
    flip: float = field(default=0.5, metadata={"help": "probability of a horizontal flip"})
    crop: float = field(default=0.5, metadata={"help": "probability of a crop"})
    crop_sides: list[int] = field(
        default_factory=list,
        metadata={"help": "smallest and largest side of a crop in pixels, as detectors have it; none: shares"},
    )
    crop_at: list[int] = field(
        default_factory=list, metadata={"help": "short sides to measure crop_sides at, one is drawn; none: its own"}
    )
    views: int = field(
        default=0,
        metadata={"help": "crops that a picture always has, in place of free ones: what a cache needs; 0: free"},
    )
    scale: list[float] = field(
        default_factory=lambda: [1.0, 1.0], metadata={"help": "smallest and largest factor of scale jitter"}
    )
    color: float = field(default=0.0, metadata={"help": "strength of colour jitter, 0-1"})
    short_sides: list[int] = field(
        default_factory=list,
        metadata={"help": "smallest and largest short side in training, every 32nd is drawn; none: the model's own"},
    )
    longest: int = field(default=1333, metadata={"help": "most pixels of the long side, with short_sides"})
    boxes: bool = field(default=False, metadata={"help": "boxes in place of masks (ris, detection)"})
    one_class: bool = field(default=False, metadata={"help": "all objects are of one class (detection)"})
    absent: float = field(default=0.0, metadata={"help": "share of samples whose reference is of something else"})
    language_only: float = field(default=0.4, metadata={"help": "share of steps with the sentence alone (rvos)"})
    together: int = field(default=1, metadata={"help": "samples of one picture in a batch (refshapes)"})
    length: int = field(
        default=0, metadata={"help": "different training samples that are drawn (refshapes); 0: a million"}
    )
    weight: float = field(default=1.0, metadata={"help": "share of the steps, against the others'; 0: left out"})


def folder_source(name: str, task: Task, options: SourceOptions) -> SampleSource:
    """A user's own folder; see `sam_uniref.data.folder`."""
    if task == "detection":
        raise ValueError(f"{name}: detection is trained on prepared sets and on refshapes, not on a folder")
    objects = read_folder(options.root, task, expressions=options.expressions, validation=options.validation)
    return _episodes(name, task, options, objects)


def prepared_source(name: str, task: Task, options: SourceOptions) -> SampleSource:
    """What ``sam-uniref data prepare`` wrote; see `sam_uniref.data.prepared`."""
    from sam_uniref.data.prepared.source import open_objects, open_pictures

    asked: dict[str, Any] = {
        "split": options.split,
        "validation": options.validation,
        "download": options.download,
        "keep_evaluation_images": options.keep_evaluation_images,
        "boxes": options.boxes,
    }
    if task != "detection":
        return _episodes(name, task, options, open_objects(options.root, task, **asked))
    _refuse_drawing(name, options)
    return DetectionDataset(
        name,
        open_pictures(options.root, **asked),
        one_class=options.one_class,
        augmentation=_augmentation(options),
        short_sides=_short_sides(options),
        weight=options.weight,
    )


def _episodes(
    name: str, task: Task, options: SourceOptions, objects: ObjectTable | Sequence[AnnotatedObject]
) -> EpisodeDataset:
    """Episodes of annotated objects, by a run's options."""
    _refuse_drawing(name, options)
    return EpisodeDataset(
        name,
        task,
        objects,
        shots=options.shots,
        supports=options.supports,  # type: ignore[arg-type]
        frame_range=options.frame_range,
        augmentation=_augmentation(options),
        short_sides=_short_sides(options),
        boxes=options.boxes,
        absent=options.absent,
        language_only=options.language_only,
        weight=options.weight,
    )


def _refuse_drawing(name: str, options: SourceOptions) -> None:
    """Samples that are not drawn are augmented each by itself, so no two share a picture, and as many as there are."""
    if options.together != 1:
        raise ValueError(f"{name}: only refshapes has together, got {options.together}; leave it out")
    if options.length:
        raise ValueError(f"{name}: only refshapes has a length, got {options.length}; leave it out")


def _augmentation(options: SourceOptions) -> Augmentation:
    return Augmentation(
        flip=options.flip,
        crop=options.crop,
        crop_sides=tuple(options.crop_sides) or None,  # type: ignore[arg-type]
        crop_at=tuple(options.crop_at),
        views=options.views,
        scale=tuple(options.scale),  # type: ignore[arg-type]
        color=options.color,
    )


def _short_sides(options: SourceOptions) -> ShortSides | None:
    """Those of a run's options, if it has any.

    Raises:
        ValueError: If they are not two.
    """
    if not options.short_sides:
        return None
    if len(options.short_sides) != 2:
        raise ValueError(f"short_sides are the smallest and the largest, got {options.short_sides}")
    smallest, largest = options.short_sides
    return ShortSides(smallest, largest, options.longest)


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
        together=options.together,
        short_sides=_short_sides(options),
        boxes=options.boxes,
        one_class=options.one_class,
        weight=options.weight,
        length=options.length or RefShapesDataset.length,
    )


READERS: dict[str, Callable[[str, Task, SourceOptions], SampleSource]] = {
    "folder": folder_source,
    "prepared": prepared_source,
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
