"""Whether a download is whole: everything is read as `prepare` would, counted, and compared with what was published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.prepared.counts import COUNTED, count_split
from sam_uniref.data.prepared.leakage import count_evaluated
from sam_uniref.data.prepared.prepare import Report, chosen_splits
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.shards import read_info
from sam_uniref.data.prepared.temporary import temporary_split
from sam_uniref.processes import worker_count

if TYPE_CHECKING:
    from sam_uniref.data.formats.base import DataFormat


@dataclass(frozen=True)
class SplitCheck:
    """What was found of a split.

    Attributes:
        split: Its name.
        counts: As `count_split` has them; empty if the split could not be read.
        published: What the data set's source says of the same.
        evaluated: Number of its images that are evaluated on elsewhere; None if that was not asked, or if no row has
            an id of COCO.
        problems: Of reading it.
    """

    split: str
    counts: Mapping[str, int]
    published: Mapping[str, int]
    evaluated: int | None
    problems: Problems

    @property
    def different(self) -> tuple[str, ...]:
        """Names of the counts that are not as published."""
        return tuple(name for name, count in self.published.items() if self.counts.get(name) != count)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is broken and all counts are as published."""
        return not self.problems.any_broken and not self.different

    def as_json(self) -> dict[str, Any]:
        """Plain containers."""
        return {
            "counts": dict(self.counts),
            "published": dict(self.published),
            "different": list(self.different),
            "evaluated_images": self.evaluated,
            "problems": self.problems.as_json(),
        }


def check_download(
    layout: DataFormat,
    root: str | Path,
    *,
    splits: tuple[str, ...] | None = None,
    workers: int | None = None,
    evaluated: NDArray[np.int64] | None = None,
    report: Report = lambda split, rows: None,
) -> Iterator[SplitCheck]:
    """Read a download split by split. Nothing is left behind.

    Args:
        layout: Reader of the data set.
        root: Folder of the download.
        splits: Which to read; by default all that are there.
        workers: Processes, as `prepare` has them.
        evaluated: COCO's ids of images that are evaluated on elsewhere, to be counted.
        report: As `prepare` has it.

    Yields:
        A split's findings. An annotation file that is missing or broken is a broken split, not an error.

    Raises:
        FileNotFoundError: If the download is not there.
        ValueError: If a split is unknown, the number of workers is negative, or the reader publishes a count that its
            table does not have.
    """
    worker_count(workers)
    strange = {name for counts in layout.published.values() for name in counts} - set(COUNTED[layout.table])
    if strange:
        raise ValueError(f"{layout.name} publishes counts of {sorted(strange)}; counted are {COUNTED[layout.table]}")
    for split in chosen_splits(layout, Path(root), splits):
        yield _check_split(layout, root, split, workers, evaluated, report)


def _check_split(
    layout: DataFormat,
    root: str | Path,
    split: str,
    workers: int | None,
    evaluated: NDArray[np.int64] | None,
    report: Report,
) -> SplitCheck:
    """Read and count one split."""
    published = layout.published.get(split, {})
    try:
        with temporary_split(layout, root, split, workers, report) as folder:
            return SplitCheck(
                split,
                count_split(folder, split),
                published,
                None if evaluated is None else count_evaluated(folder, split, evaluated),
                Problems.from_json(read_info(folder).splits[split]["problems"]),
            )
    except (FileNotFoundError, ValueError) as error:
        problems = Problems()
        problems.broken("the split can't be read", error)
        return SplitCheck(split, {}, published, None, problems)
