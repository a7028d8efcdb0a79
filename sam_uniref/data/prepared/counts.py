"""How much a prepared split holds, in the words that data sets are published with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sam_uniref.data.prepared.rows import TableKind
from sam_uniref.data.prepared.shards import open_split, read_info

COUNTED: dict[TableKind, tuple[str, ...]] = {
    "images": ("images", "targets", "sentences"),
    "videos": ("videos", "objects", "sentences"),
}
"""What is counted of a table, in the order in which it is told."""


def count_split(folder: str | Path, split: str) -> dict[str, int]:
    """Distinct images, targets (rows) and sentences; of videos: distinct videos, their objects and sentences.

    Counted on Arrow's columns, without a Python object a row. An empty split has zeros.

    Raises:
        FileNotFoundError: If the data set, or a shard of it, is not there.
        ValueError: If the split is not in it, or a shard is broken.
    """
    info = read_info(folder)
    if split in info.splits and not info.splits[split]["rows"]:
        return dict.fromkeys(COUNTED[info.table], 0)
    rows = open_split(folder, split).data
    return _count_images(rows) if info.table == "images" else _count_videos(rows)


def _count_images(rows: Any) -> dict[str, int]:
    import pyarrow.compute as pc

    images = pc.count_distinct(rows.column("image")).as_py()
    return {"images": images, "targets": rows.num_rows, "sentences": _entries(rows.column("sentences"))}


def _count_videos(rows: Any) -> dict[str, int]:
    import pyarrow.compute as pc

    objects = rows.column("objects")
    sentences = pc.struct_field(pc.list_flatten(objects), "sentences")
    videos = pc.count_distinct(rows.column("video")).as_py()
    return {"videos": videos, "objects": _entries(objects), "sentences": _entries(sentences)}


def _entries(lists: Any) -> int:
    """Number of entries of all lists of a column together."""
    import pyarrow.compute as pc

    return pc.sum(pc.list_value_length(lists)).as_py() or 0
