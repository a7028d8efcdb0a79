"""Reading a download without preparing it: rows, what was wrong, and masks as id maps."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.formats import named_format
from sam_uniref.data.prepared import EncodedMask, VideoObject, VideoRow, decode_mask
from sam_uniref.data.prepared.problems import Problems


def read_split(name: str, root: Path, split: str) -> tuple[list[Any], dict[str, int]]:
    """Rows, and counts by reason; units pass through a pickle, as they do on their way to another process."""
    layout, problems, rows = named_format(name), Problems(), []
    assert split in layout.splits(root)
    for unit in layout.units(root, split, problems):
        rows += layout.read(root, split, pickle.loads(pickle.dumps(unit)), problems)  # noqa: S301
    return rows, {problem.reason: problem.count for problem in problems}


def severities(name: str, root: Path, split: str) -> dict[str, str]:
    """Of each reason."""
    layout, problems = named_format(name), Problems()
    for unit in layout.units(root, split, problems):
        list(layout.read(root, split, unit, problems))
    return {problem.reason: problem.severity for problem in problems}


def masks_of(row: VideoRow, item: VideoObject) -> dict[int, NDArray[np.bool_]]:
    """An object's masks by frame number."""
    size = (row.height, row.width)
    return {t: decode_mask(EncodedMask(rle, size)) for t, rle in zip(item.frames, item.rles, strict=True)}


def id_maps(row: VideoRow) -> NDArray[np.int64]:
    """``(T, H, W)``; no two objects may share a pixel."""
    ids = np.zeros((len(row.frames), row.height, row.width), np.int64)
    for item in row.objects:
        for t, mask in masks_of(row, item).items():
            assert mask.any()
            assert not (ids[t][mask]).any()
            ids[t][mask] = item.id
    return ids
