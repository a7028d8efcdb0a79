"""The conventions of video benchmarks by the names that people give, with the lists that some of them go by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sam_uniref.data.formats.files import read_lines
from sam_uniref.eval import conventions
from sam_uniref.eval.conventions import Convention, ObjectKey
from sam_uniref.eval.davis import ObjectScores
from sam_uniref.eval.lvos import lvos, read_ranges, stability, summarise_lvos
from sam_uniref.eval.measures import Metric
from sam_uniref.eval.seen_unseen import in_videos, not_of_categories, seen_and_unseen
from sam_uniref.eval.video_measures import measure_groups, measure_runs
from sam_uniref.eval.youtube_vos import ListedObject, read_objects, youtube_vos

LVOS, YOUTUBE_VOS, DAVIS_UNSUPERVISED = "lvos", "youtube-vos", "davis-unsupervised"
BY_IDS: dict[str, Convention[Any]] = {
    "davis": conventions.DAVIS,
    DAVIS_UNSUPERVISED: conventions.DAVIS_UNSUPERVISED,
    "mose": conventions.MOSE,
    "ref-youtube-vos": conventions.REF_YOUTUBE_VOS,
    "vos-benchmark": conventions.VOS_BENCHMARK,
    "vos-benchmark-all-frames": conventions.VOS_BENCHMARK_ALL_FRAMES,
}
"""Those that need nothing but the masks."""
BY_LISTS = (LVOS, YOUTUBE_VOS)
"""Those whose objects and frames stand in a file, and that tell seen objects from unseen ones."""

Listed = TypeVar("Listed", range, ListedObject)


@dataclass(frozen=True)
class Rules:
    """How a folder is scored.

    Attributes:
        name: Of the convention, as people give it.
        convention: Which frames and objects count.
        videos: That are scored; None for all that the truth has.
        unseen: Objects unlike training's; None for a convention without groups.
    """

    name: str
    convention: Convention[Any]
    videos: Sequence[str] | None
    unseen: frozenset[ObjectKey] | None = None

    def measure(self, runs: Sequence[Mapping[ObjectKey, ObjectScores]]) -> dict[str, Metric]:
        """What the benchmark reports, with videos as units.

        Args:
            runs: Scores of each object; several runs are averaged, of a convention with groups there is one.

        Raises:
            ValueError: If no object counts.
        """
        if self.unseen is None:
            objects = [(self._video(name), run, s) for run, one in enumerate(runs) for (name, _), s in one.items()]
            if not objects:
                raise ValueError(f"{self.convention.name}: the true masks have no object that counts")
            videos, numbers, values = zip(*objects, strict=True)
            return measure_runs(videos, numbers, values)
        if self.name == LVOS:
            return measure_groups(summarise_lvos(runs[0], self.unseen), runs[0], self.unseen, "J&F")
        return measure_groups(seen_and_unseen(runs[0], self.unseen), runs[0], self.unseen, "G")

    def row(self, key: ObjectKey, scores: ObjectScores) -> dict[str, Any]:
        """An object's row of a table."""
        j, f = float(scores.j.mean()), float(scores.f.mean())
        told = {"video": key[0], "object": key[1], "frames": len(scores.j), "J&F": (j + f) / 2, "J": j, "F": f}
        if self.name == LVOS:
            told["V"] = stability(scores)
        if self.unseen is not None:
            told["group"] = "unseen" if key in self.unseen else "seen"
        return told

    def _video(self, name: str) -> str:
        """The unit that is drawn again: sentences about one video are not independent of each other."""
        return name.rpartition("/")[0] or name if self.convention.binary else name


def open_rules(name: str, *, videos: Path | None = None, meta: Path | None = None, unseen: Path | None = None) -> Rules:
    """The convention of a name, with its lists.

    Args:
        name: One of :data:`BY_IDS` or :data:`BY_LISTS`.
        videos: List of the videos to score, one a line; by default all that the truth has, or that ``meta`` lists.
        meta: YouTube-VOS's ``meta.json`` or LVOS's ``*_meta.json`` of the true masks.
        unseen: Of LVOS the list of unseen videos; of YouTube-VOS the list of unseen categories, or the training
            videos' ``meta.json``, whose categories are seen.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If one is needed or means nothing here, is broken, or does not fit the others.
    """
    for option, path in (("meta", meta), ("unseen", unseen)):
        if path is not None and name not in BY_LISTS:
            raise ValueError(f"--{option} is of {' and '.join(BY_LISTS)}, not of {name}; leave it out")
        if path is None and name in BY_LISTS:
            raise ValueError(f"--convention {name} needs --{option}")
    wanted = _read_names(videos) if videos is not None else None
    if meta is None or unseen is None:
        return Rules(name, BY_IDS[name], None if wanted is None else sorted(wanted))
    convention: Convention[Any]
    if name == LVOS:
        ranges = _of_videos(read_ranges(meta), wanted, meta)
        keys, strange, convention = {*ranges}, in_videos(ranges, _read_names(unseen)), lvos(ranges)
    else:
        objects = _of_videos(read_objects(meta), wanted, meta)
        keys, strange, convention = {*objects}, _of_unseen_categories(objects, meta, unseen), youtube_vos(objects)
    for group, those in (("unseen", strange), ("seen", keys - strange)):
        if not those:
            raise ValueError(f"by {unseen} no object of {meta} is {group}; {name} is the mean of both groups")
    return Rules(name, convention, sorted({video for video, _ in keys}), frozenset(strange))


def _read_names(path: Path) -> set[str]:
    """Names, one a line.

    Raises:
        ValueError: If there is none.
    """
    names = {*read_lines(path)}
    if not names:
        raise ValueError(f"{path} is empty; it must have a name a line")
    return names


def _of_videos(listed: Mapping[ObjectKey, Listed], videos: set[str] | None, meta: Path) -> dict[ObjectKey, Listed]:
    """Those in some videos, or all.

    Raises:
        ValueError: Naming a video that is not listed.
    """
    unknown = (videos or set()) - {video for video, _ in listed}
    if unknown:
        raise ValueError(f"{meta} does not list the video {min(unknown)}")
    return {key: item for key, item in listed.items() if videos is None or key[0] in videos}


def _of_unseen_categories(objects: Mapping[ObjectKey, ListedObject], meta: Path, unseen: Path) -> set[ObjectKey]:
    """Objects of a ``meta.json`` whose category is unseen.

    Raises:
        ValueError: If an object has no category.
    """
    categories = {key: item.category for key, item in objects.items()}
    for (video, object_id), category in categories.items():
        if not category:
            raise ValueError(f"{meta} video {video} object {object_id} has no category, so it is neither seen nor not")
    if unseen.suffix.lower() == ".json":
        known = {item.category for item in read_objects(unseen).values()}
    else:
        known = {*categories.values()} - _read_names(unseen)
    return not_of_categories(categories, known)
