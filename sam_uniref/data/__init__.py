"""Data sets become samples, samples become batches of one task."""

from sam_uniref.data.augment import Augmentation
from sam_uniref.data.batch import TASKS, AnnotatedImage, ReferenceBatch, Sample, Task, collate
from sam_uniref.data.episodes import EpisodeDataset
from sam_uniref.data.mixture import MixtureSchedule, TrainingBatches
from sam_uniref.data.objects import AnnotatedObject, ObjectTable
from sam_uniref.data.readers import READERS, SampleSource, SourceOptions, open_source

__all__ = [
    "READERS",
    "TASKS",
    "AnnotatedImage",
    "AnnotatedObject",
    "Augmentation",
    "EpisodeDataset",
    "MixtureSchedule",
    "ObjectTable",
    "ReferenceBatch",
    "Sample",
    "SampleSource",
    "SourceOptions",
    "Task",
    "TrainingBatches",
    "collate",
    "open_source",
]
