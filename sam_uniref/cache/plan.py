"""What a cache will take before it is begun, and what is wrong with one that is there."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sam_uniref.cache.description import CacheDescription
from sam_uniref.cache.features import ShardIndex
from sam_uniref.cache.shard import SHARDS_FOLDER, BrokenShardError
from sam_uniref.data.shown import ShownPicture

# Bytes of a shard: what a killed writer may lose, and what a folder of many does not consist of too many of.
_SHARD_BYTES = 128 << 20
_MOST_IN_A_SHARD = 512
# Seconds: longer than a writer is at one file.
_OLD = 3600


@dataclass(frozen=True)
class WritingPlan:
    """What a cache will take, told before it is begun.

    Attributes:
        pictures: Files, or what else views are made of.
        views: Of all of them, at most: what the encoder sees, and a record each.
        missing: Views that are not in the cache yet, at most.
        record_bytes: On disk, a view.
        shard_views: In one shard, about.
        free_bytes: On the disk.
    """

    pictures: int
    views: int
    missing: int
    record_bytes: int
    shard_views: int
    free_bytes: int

    @property
    def needed_bytes(self) -> int:
        """Disk that the missing ones take, at most."""
        return self.missing * self.record_bytes

    @property
    def all_bytes(self) -> int:
        """Disk of the whole cache, at most."""
        return self.views * self.record_bytes

    @property
    def shards(self) -> int:
        """Files that are still to be written, about."""
        return -(-self.missing // self.shard_views)

    def check(self, folder: Path) -> None:
        """Refuse a disk that is too small.

        Raises:
            ValueError: Saying what it takes and what there is.
        """
        if self.needed_bytes > self.free_bytes:
            raise ValueError(
                f"{folder} would take {gigabytes(self.needed_bytes)} more, and {gigabytes(self.free_bytes)} are free "
                "on its disk; give another folder, fewer views or data sets, or keep the features in int8"
            )


def gigabytes(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:,.3g} GB"


def plan_writing(
    pictures: Sequence[ShownPicture], description: CacheDescription, folder: Path, *, shard_views: int | None = None
) -> WritingPlan:
    """What caching some pictures will take; nothing is written, and no picture is read.

    Args:
        pictures: What is to be in the cache.
        description: Of what it is.
        folder: Of the cache, which need not be there.
        shard_views: Views in a shard; by default what makes 128 MiB.
    """
    done: Counter[str] = Counter()
    for shard in ShardIndex(folder, description.digest).shards.values():
        done.update(shard.names)
    size = description.layout.size
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    # A name may be done for one data set, and be there again for another one that shows other views of it.
    wanted: Counter[str] = Counter()
    for picture in pictures:
        wanted[picture.name] += picture.most_views
    return WritingPlan(
        pictures=len(pictures),
        views=wanted.total(),
        missing=(wanted - done).total(),
        record_bytes=size,
        shard_views=shard_views or max(1, min(_MOST_IN_A_SHARD, _SHARD_BYTES // size)),
        free_bytes=shutil.disk_usage(there).free,
    )


def remove_leftovers(folder: Path) -> None:
    """Take away what writers that were killed an hour ago or before left of their shards."""
    for path in (folder / SHARDS_FOLDER).glob(".*"):
        if time.time() - path.stat().st_mtime > _OLD:
            path.unlink(missing_ok=True)


def broken_shards(
    folder: Path, description: CacheDescription, report: Callable[[int, int], None] | None = None
) -> list[BrokenShardError]:
    """Read a whole cache and find what is broken in it; nothing is changed.

    Args:
        folder: Of the cache.
        description: Of what it is.
        report: Called with the number of shards read and of all.
    """
    index = ShardIndex(folder, description.digest)
    broken = list(index.broken.values())
    for number, shard in enumerate(index.shards.values(), start=1):
        try:
            shard.check()
        except BrokenShardError as error:
            broken.append(error)
        if report is not None:
            report(number, len(index.shards))
    return broken
