"""Data sets become samples, samples become batches of one task."""

from sam_uniref.data.batch import TASKS, AnnotatedImage, ReferenceBatch, Sample, Task, collate

__all__ = ["TASKS", "AnnotatedImage", "ReferenceBatch", "Sample", "Task", "collate"]
