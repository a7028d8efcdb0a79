"""Which of COCO's images are evaluated on, so that training can leave them out.

Data sets share COCO's images under names of their own, and the training images of one are the test images of
another. Rows say by `ImageRow.coco_id` which image they are of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.prepared.shards import INFO_FILE, PreparedInfo, open_split, read_info

TRAINING_SPLIT = "train"


def evaluated_coco_ids(folder: str | Path) -> NDArray[np.int64]:
    """COCO's ids of all images that sentences are evaluated on.

    These are the images of all rows with sentences in any split but ``train`` of any image set in the folder. Only
    splits that were prepared to their end count. Two of Arrow's columns are read, memory-mapped, and no Python object
    is made a row: hundredths of a second for RefCOCO, RefCOCO+ and RefCOCOg together.

    Args:
        folder: That holds prepared data sets, or that is one.

    Returns:
        ``(N,)`` int64, rising, each once; empty if nothing in the folder is evaluated on by sentences.

    Raises:
        FileNotFoundError: If the folder holds no prepared data set, or a shard of one is missing.
        ValueError: If one of them is broken, or was written by another version.
    """
    import pyarrow.compute as pc

    found = [np.empty(0, np.int64)]
    for place, info in _prepared_sets(Path(folder)):
        if info.table != "images":
            continue
        for split in _with_rows(info):
            if split != TRAINING_SPLIT:
                rows = open_split(place, split).data
                said = pc.greater(pc.list_value_length(rows.column("sentences")), 0)
                found.append(_distinct(rows.column("coco_id").filter(said)))
    return np.unique(np.concatenate(found))


def count_evaluated(folder: str | Path, split: str, evaluated: NDArray[np.int64]) -> int | None:
    """How many distinct images of a prepared split are among those evaluated on.

    Args:
        folder: Of the prepared set.
        split: One of its splits.
        evaluated: From `evaluated_coco_ids`.

    Returns:
        None if no row of the split has an id of COCO.

    Raises:
        FileNotFoundError: If the set, or a shard of it, is not there.
        ValueError: If the split is not in it, or a shard is broken.
    """
    info = read_info(folder)
    if info.table != "images" or (split in info.splits and not info.splits[split]["rows"]):
        return None
    ids = _distinct(open_split(folder, split).data.column("coco_id"))
    return int(np.isin(ids, evaluated).sum()) if len(ids) else None


def _prepared_sets(folder: Path) -> Iterator[tuple[Path, PreparedInfo]]:
    """All prepared sets of a folder."""
    places = [place for place in (folder, *sorted(folder.glob("*"))) if (place / INFO_FILE).is_file()]
    if not places:
        raise FileNotFoundError(f"{folder} holds no prepared data set; make one with: sam-uniref data prepare")
    for place in places:
        yield place, read_info(place)


def _with_rows(info: PreparedInfo) -> Iterable[str]:
    """Splits that are not empty."""
    return [split for split, entry in info.splits.items() if entry["rows"]]


def _distinct(column: Any) -> NDArray[np.int64]:
    """A column's values, each once, without null."""
    import pyarrow.compute as pc

    values: NDArray[np.int64] = pc.unique(column).drop_null().to_numpy().astype(np.int64)
    return values
