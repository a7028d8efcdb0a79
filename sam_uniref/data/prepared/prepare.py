"""From an official download to a prepared data set: parallel, resumable, in bounded memory."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.shards import INFO_FILE, PreparedInfo, Shard, read_info
from sam_uniref.nearest import nearest_path
from sam_uniref.processes import working_processes

if TYPE_CHECKING:
    from sam_uniref.data.formats.base import DataFormat

Report = Callable[[str, int], None]


def prepare(
    layout: DataFormat,
    root: str | Path,
    out: str | Path,
    *,
    splits: tuple[str, ...] | None = None,
    workers: int | None = None,
    report: Report = lambda split, rows: None,
) -> PreparedInfo:
    """Read a download into ``out/NAME``. What was read before is not read again.

    Args:
        layout: Reader of the data set.
        root: Folder of the download.
        out: Folder that holds all prepared data sets.
        splits: Which to read; by default all that are there.
        workers: Processes; 0 reads in this one. By default one a core.
        report: Is told the split and its number of rows so far, after each shard.

    Returns:
        What is there now, with the problems of each split.

    Raises:
        FileNotFoundError: If the download or one of its annotation files is not there.
        ValueError: If an annotation file is broken, a split is unknown, or ``out/NAME`` was made from another folder.
    """
    root, folder = Path(root), Path(out) / layout.name
    chosen = chosen_splits(layout, root, splits)
    info = _begin(layout, root, folder)
    for split in chosen:
        info.splits.pop(split, None)
        info.write(folder)  # a split is in it when all its shards are
        info.splits[split] = _prepare_split(layout, root, folder, split, workers, report)
        info.write(folder)
    return info


def chosen_splits(layout: DataFormat, root: Path, splits: tuple[str, ...] | None) -> tuple[str, ...]:
    """The splits that are asked for, each once; all that are there where none is.

    Raises:
        FileNotFoundError: If the download is not there.
        ValueError: If one is not in it.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}{nearest_path(root)}")
    found = layout.splits(root)
    unknown = set(splits or ()) - set(found)
    if unknown:
        raise ValueError(f"{layout.name} at {root} has the splits {list(found)}, got {sorted(unknown)}")
    return tuple(dict.fromkeys(splits or found))


def _begin(layout: DataFormat, root: Path, folder: Path) -> PreparedInfo:
    """The set's information, checked against an earlier run's."""
    absolute = str(root.resolve())
    if not (folder / INFO_FILE).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        return PreparedInfo(layout.name, layout.table, absolute)
    info = read_info(folder)
    if (info.format, info.root) != (layout.name, absolute):
        raise ValueError(
            f"{folder} was prepared from {info.format} at {info.root}, not from {layout.name} at {absolute}; "
            "remove it, or give another --out"
        )
    return info


def _prepare_split(
    layout: DataFormat, root: Path, folder: Path, split: str, workers: int | None, report: Report
) -> dict[str, Any]:
    """All shards of a split; its entry in the set's information."""
    target = folder / split
    target.mkdir(parents=True, exist_ok=True)
    problems, rows, shards = Problems(), 0, 0
    with working_processes(workers) as (submit, at_once):
        waiting: list[tuple[Shard, Future[None] | None]] = []

        def settle() -> None:
            nonlocal rows
            shard, future = waiting.pop(0)
            if future is not None:
                future.result()
            count, found = shard.summary()
            problems.join(found)
            rows += count
            report(split, rows)

        for number, unit in enumerate(layout.units(root, split, problems)):
            shard, digest = Shard(target, number), _digest(unit)
            work = None if shard.is_of(digest) else submit(_write_shard, layout, root, split, unit, shard, digest)
            waiting.append((shard, work))
            shards = number + 1
            while len(waiting) > at_once:
                settle()
        while waiting:
            settle()
    _remove_from(target, shards)
    return {"shards": shards, "rows": rows, "problems": problems.as_json()}


def _digest(unit: Any) -> str:
    """Tells whether a shard was read from the same annotations."""
    return hashlib.blake2b(pickle.dumps(unit), digest_size=16).hexdigest()


def _write_shard(layout: DataFormat, root: Path, split: str, unit: Any, shard: Shard, digest: str) -> None:
    """Read one unit; in a process of its own."""
    problems = Problems()
    shard.write(layout.read(root, split, unit, problems), layout.table, split, problems, digest)


def _remove_from(folder: Path, number: int) -> None:
    """Shards that an earlier, larger download left."""
    while Shard(folder, number).summary_file.is_file():
        Shard(folder, number).remove()
        number += 1
