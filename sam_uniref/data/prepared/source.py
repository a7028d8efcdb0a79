"""A prepared data set as a source of episodes, without the pictures that are evaluated on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.batch import Task
from sam_uniref.data.objects import ObjectTable
from sam_uniref.data.prepared.leakage import evaluated_coco_ids
from sam_uniref.data.prepared.objects import PreparedImages, PreparedVideos
from sam_uniref.data.prepared.pictures import PreparedPictures
from sam_uniref.data.prepared.rows import TableKind
from sam_uniref.data.prepared.shards import open_split, read_info

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

TASKS_OF: dict[TableKind, tuple[Task, ...]] = {
    "images": ("ris", "fss", "vos", "rvos", "detection"),
    "videos": ("ris", "vos", "rvos"),
}
"""What each kind of table can be asked; stills are pseudo-clips of two augmentations."""


def open_objects(
    folder: str | Path,
    task: Task,
    *,
    split: str = "train",
    validation: Any = 0.0,
    download: str | None = None,
    keep_evaluation_images: bool = False,
    boxes: bool = False,
) -> ObjectTable:
    """The objects of a prepared data set.

    Args:
        folder: That `prepare` wrote.
        task: What they are for.
        split: To train on.
        validation: Name of the split to validate on; without one (0) what is trained on is looked at.
        download: Folder of the official download, if it was moved since.
        keep_evaluation_images: Whether to train also on COCO's pictures that the prepared sets beside this one
            evaluate sentences on. By default they are left out.
        boxes: Whether objects of which only boxes are known serve too, as if the boxes were filled.

    Raises:
        FileNotFoundError: If the folder holds no prepared set, or the download is not there.
        ValueError: If a split is not in it, its rows can't serve the task, or nothing beside it says which pictures
            are evaluated on.
    """
    folder = Path(folder)
    kind, root = _opened(folder, task, download)
    rows, held_out = _with_validation(folder, split, validation)
    if kind == "videos":
        return PreparedVideos(rows, root, held_out)
    left_out = _left_out(rows, held_out, folder, keep_evaluation_images)
    table = PreparedImages(rows, root, held_out, left_out, by_class=task == "fss", boxes=boxes)
    if not len(table):
        raise ValueError(
            f"{folder} has no object with a mask in its split {split!r}; boxes alone can't serve {task}; "
            "they serve detection, and ris with boxes: true"
        )
    return table


def open_pictures(
    folder: str | Path,
    *,
    split: str = "train",
    validation: Any = 0.0,
    download: str | None = None,
    keep_evaluation_images: bool = False,
    boxes: bool = False,
) -> PreparedPictures:
    """The pictures of a prepared data set, each with all its objects.

    Args and errors are those of `open_objects`, for the task ``detection``; ``boxes`` asks for boxes alone even where
    masks are known.
    """
    folder = Path(folder)
    _, root = _opened(folder, "detection", download)
    rows, held_out = _with_validation(folder, split, validation)
    left_out = _left_out(rows, held_out, folder, keep_evaluation_images)
    return PreparedPictures(rows, root, held_out, left_out, boxes_alone=boxes)


def _opened(folder: Path, task: Task, download: str | None) -> tuple[TableKind, Path]:
    """The kind of a prepared set's table, which serves the task, and the download that its paths are in."""
    info = read_info(folder)
    if task not in TASKS_OF[info.table]:
        raise ValueError(f"{folder} holds {info.table}, which serve {TASKS_OF[info.table]}, got {task!r}")
    root = Path(download or info.root)
    if not root.is_dir():
        raise FileNotFoundError(f"the download that {folder} was made from is not at {root}; say where with download=")
    return info.table, root


def _left_out(
    rows: Dataset, held_out: NDArray[np.bool_], folder: Path, keep_evaluation_images: bool
) -> NDArray[np.bool_]:
    """Which rows to train on are not used, since sentences are evaluated on their pictures."""
    if keep_evaluation_images:
        return np.zeros(len(rows), bool)
    left_out: NDArray[np.bool_] = _evaluated(rows, folder) & ~held_out
    if left_out.any():
        logger.info(
            "%s: %d of %d objects are left out, since sentences are evaluated on their pictures",
            folder.name,
            left_out.sum(),
            (~held_out).sum(),
        )
    return left_out


def _with_validation(folder: Path, split: str, validation: Any) -> tuple[Dataset, NDArray[np.bool_]]:
    """The rows to train on, those to validate on after them, and which are which."""
    from datasets import concatenate_datasets

    trained = open_split(folder, split)
    if not validation:
        return trained, np.zeros(len(trained), bool)
    if not isinstance(validation, str):
        raise ValueError(f"validation of a prepared set is one of its splits' names, got {validation!r}")
    if validation == split:
        raise ValueError(f"validation must be another split than the one that is trained on, got {validation!r}")
    rows = concatenate_datasets([trained, open_split(folder, validation)])
    return rows, np.arange(len(rows)) >= len(trained)


def _evaluated(rows: Dataset, folder: Path) -> NDArray[np.bool_]:
    """Which rows show pictures that sentences are evaluated on."""
    import pyarrow.compute as pc

    ids = rows.data.table["coco_id"]
    if ids.null_count == len(ids):
        return np.zeros(len(rows), bool)
    evaluated = evaluated_coco_ids(folder.parent)
    if not len(evaluated):
        raise ValueError(
            f"{folder} has pictures of COCO, some of which RefCOCO/+/g evaluate on, and no prepared set in "
            f"{folder.parent} says which; prepare refcoco, refcoco+ and refcocog there, or set "
            "keep_evaluation_images: true"
        )
    return np.isin(pc.fill_null(ids, -1).to_numpy(), evaluated)
