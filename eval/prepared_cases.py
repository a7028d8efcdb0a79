"""Prepared splits as cases: what ``sam-uniref data prepare`` wrote, read a row at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal

import numpy as np

from sam_uniref.data.batch import Task
from sam_uniref.data.episodes import EpisodeDataset, Supports
from sam_uniref.data.objects import Numbers, distinct_pictures
from sam_uniref.data.prepared import EncodedMask, open_split, read_info
from sam_uniref.data.prepared.objects import PreparedImages, column_codes, column_values
from sam_uniref.data.prepared.rows import TableKind
from sam_uniref.eval.cases import Case, Clip, ClipObject, NothingToAskError, Query, Sentence, SpokenImage
from sam_uniref.images import RGB, load_image
from sam_uniref.reference import MaskReference
from sam_uniref.transforms import Size


class PreparedCases(ABC, Generic[Case]):
    """Cases of a prepared split.

    Args:
        folder: That `prepare` wrote.
        split: One of its splits.
        download: Folder of the official download, if it was moved since.
        table: What kind of rows the task needs.

    Raises:
        FileNotFoundError: If the folder holds no prepared set, or a shard of it is not there.
        ValueError: If the split is not in it, is empty or broken, or its rows can't serve the task.
    """

    scored: bool
    names: Sequence[str]

    def __init__(self, folder: str | Path, split: str, download: str | None, table: TableKind) -> None:
        info = read_info(folder)
        if info.table != table:
            raise NothingToAskError(f"{folder} holds {info.table}; this task asks about {table}")
        self._rows = open_split(folder, split)
        self._root = Path(download or info.root)
        self.title = f"{info.format} {split}"
        self.made_of: Mapping[str, Any] = {"data": info.format, "split": split, "rows": len(self._rows)}

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def __getitem__(self, index: int) -> Case:
        """One case."""

    @abstractmethod
    def _pictures(self) -> Sequence[str]:
        """Paths of all pictures, relative to the root."""

    def check_pictures(self) -> None:
        """See that all pictures are there, without reading them.

        Raises:
            FileNotFoundError: Naming the first that is not.
        """
        if not self._root.is_dir():
            raise FileNotFoundError(f"the download of {self.title} is not at {self._root}; say where with --download")
        for path in self._pictures():
            if not (self._root / path).is_file():
                raise FileNotFoundError(f"there is no picture {self._root / path}; prepare the data set again")

    def _take(self, names: Sequence[str], episodes: int | None, nothing: str) -> None:
        """Keep the first cases.

        Raises:
            ValueError: If there is none, or a name stands twice.
        """
        if not names:
            raise NothingToAskError(f"{self.title} has {nothing}")
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{self.title} has {count} cases that are called {name}; prepare it again")
        self.names = list(names[:episodes])

    def _column(self, name: str) -> Any:
        """One of Arrow's columns."""
        return self._rows.data.table[name]

    def _taken(self, name: str, rows: Numbers) -> list[Any]:
        """A column's values in some rows."""
        values: list[Any] = self._column(name).take(rows).to_pylist()
        return values


class PreparedScenes(PreparedCases[SpokenImage]):
    """RIS: a picture with all sentences about its objects. A sentence is called ``<target>_<its number>``.

    Args:
        folder: That `prepare` wrote.
        split: One of its splits.
        download: Folder of the official download, if it was moved since.
        episodes: How many pictures, the first ones; all by default.

    Raises:
        FileNotFoundError: If the folder holds no prepared set.
        ValueError: If nothing in the split has a sentence.
    """

    def __init__(
        self, folder: str | Path, split: str, download: str | None = None, *, episodes: int | None = None
    ) -> None:
        import pyarrow.compute as pc

        super().__init__(folder, split, download, "images")
        said = np.flatnonzero(column_values(pc.list_value_length(self._column("sentences"))) > 0)
        pictures = column_codes(self._column("image"))[said]
        order = np.argsort(pictures, kind="stable")
        starts = np.flatnonzero(np.diff(pictures[order], prepend=-1))
        self._members = np.split(said[order], starts[1:])
        firsts = np.array([rows[0] for rows in self._members if len(rows)], np.int64)
        names = self._taken("image", firsts)
        self._take(names, episodes, "no sentence")
        self.scored = bool(pc.any(pc.is_valid(self._column("rle"))).as_py())

    def __getitem__(self, index: int) -> SpokenImage:
        rows = [self._rows[int(number)] for number in self._members[index]]
        size = (rows[0]["height"], rows[0]["width"])
        sentences = tuple(
            Sentence(f"{row['target']}_{number}", text, EncodedMask(row["rle"], size) if row["rle"] else None)
            for row in rows
            for number, text in enumerate(row["sentences"])
        )
        return SpokenImage(self.names[index], size, partial(_load, self._root / rows[0]["image"], size), sentences)

    def _pictures(self) -> Sequence[str]:
        return self.names


class PreparedQueries(PreparedCases[Query]):
    """FSS: every object with a mask is a query once. A query is called by its row's target.

    Args:
        folder: That `prepare` wrote.
        split: One of its splits; supports are of the same.
        download: Folder of the official download, if it was moved since.
        shots: Annotated pictures of a query; classes with fewer other pictures are left out.
        supports: Which: ``fixed`` (UniRef) or ``drawn`` (HSNet), as `EpisodeDataset` has them.
        episodes: How many queries, the first ones; all by default.

    Raises:
        FileNotFoundError: If the folder holds no prepared set.
        ValueError: If no class has enough pictures.
    """

    scored = True

    def __init__(
        self,
        folder: str | Path,
        split: str,
        download: str | None = None,
        *,
        shots: int,
        supports: Supports = "fixed",
        episodes: int | None = None,
    ) -> None:
        super().__init__(folder, split, download, "images")
        nobody = np.zeros(len(self._rows), bool)
        self._table = PreparedImages(self._rows, self._root, nobody, nobody, by_class=True)
        everyone = np.arange(len(self._table))
        if not (distinct_pictures(self._table.columns, everyone) > shots).any():
            raise NothingToAskError(f"{self.title} has no class with more than {shots} annotated pictures")
        self._episodes = EpisodeDataset(self.title, "fss", self._table, shots=shots, supports=supports)
        rows = self._table.numbers[self._episodes.queries]
        self._take(self._taken("target", rows), episodes, "no query")
        self.made_of = {**self.made_of, "supports": supports, "most_shots": shots}

    def __getitem__(self, index: int) -> Query:
        _, query = self._episodes.query(index)
        mask = query.mask
        if not isinstance(mask, EncodedMask):
            raise TypeError(f"{query.name} has its mask in a file")
        load = partial(_load, query.image, mask.size)
        return Query(self.names[index], mask.size, load, query.group, mask, partial(self._supports, index))

    def _supports(self, index: int) -> list[MaskReference]:
        """The annotated pictures of a query."""
        return [MaskReference(*item.load()) for item in self._episodes.supports_of(index)]

    def _pictures(self) -> Sequence[str]:
        pictures: list[str] = self._column("image").unique().to_pylist()
        return pictures


class PreparedClips(PreparedCases[Clip]):
    """VOS and RVOS: videos. A sentence is called as the data set calls it in results, or ``<object>_<its number>``.

    A split whose objects have one mask at most (that of the frame in which they are given) can be asked, not scored.

    Args:
        folder: That `prepare` wrote.
        split: One of its splits.
        task: ``vos``: objects with a first mask; ``rvos``: objects with a sentence.
        download: Folder of the official download, if it was moved since.
        by_id: Whether objects are told apart by their ids, not by their sentences alone.
        episodes: How many videos, the first ones; all by default.

    Raises:
        FileNotFoundError: If the folder holds no prepared set.
        ValueError: If there is nothing to ask, or objects can't be told apart.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        task: Literal["vos", "rvos"],
        download: str | None = None,
        *,
        by_id: bool = True,
        episodes: int | None = None,
    ) -> None:
        import pyarrow.compute as pc

        super().__init__(folder, split, download, "videos")
        self._task: Task = task
        objects = pc.list_flatten(self._column("objects"))
        video = np.repeat(np.arange(len(self._rows)), column_values(pc.list_value_length(self._column("objects"))))
        said = column_values(pc.list_value_length(pc.struct_field(objects, "sentences")))
        first = column_values(pc.struct_field(objects, "first"))
        asked = first >= 0 if task == "vos" else said > 0
        if by_id:
            self._check_ids(video[asked], column_values(pc.struct_field(objects, "id"))[asked])
        self._numbers = np.unique(video[asked])
        names = self._taken("video", self._numbers)
        self._take(names, episodes, "no object with a mask to begin with" if task == "vos" else "no sentence")
        seen = column_values(pc.list_value_length(pc.struct_field(objects, "frames")))
        self.scored = bool((seen[asked] > 1).any())

    def _check_ids(self, video: Numbers, ids: Numbers) -> None:
        """Refuse objects of a video that have no id, or the same."""
        pairs = Counter(zip(video.tolist(), ids.tolist(), strict=True))
        for (number, object_id), count in pairs.items():
            if count > 1 or object_id < 1:
                told = "an object without an id" if object_id < 1 else f"{count} objects of id {object_id}"
                raise ValueError(f"{self.title}: {self._column('video')[number]} has {told}; they can't be told apart")

    def __getitem__(self, index: int) -> Clip:
        row = self._rows[int(self._numbers[index])]
        size = (row["height"], row["width"])
        objects = [
            ClipObject(
                item["id"],
                item["first"],
                {frame: EncodedMask(rle, size) for frame, rle in zip(item["frames"], item["rles"], strict=True)},
                _sentences(item, place),
            )
            for place, item in enumerate(row["objects"], start=1)
            if (item["first"] >= 0 if self._task == "vos" else item["sentences"])
        ]
        frames = [self._root / path for path in row["frames"]]
        stems = tuple(path.stem for path in frames)
        return Clip(
            row["video"], size, stems, lambda frame: _load(frames[frame], size), tuple(row["annotated"]), tuple(objects)
        )

    def _pictures(self) -> Sequence[str]:
        videos = self._taken("frames", self._numbers[: len(self)])
        return [path for frames in videos for path in frames]


def _sentences(item: Mapping[str, Any], place: int) -> dict[str, str]:
    """Sentences of the object at a place of its video, from 1, by what results call them."""
    names = item["sentence_ids"] or [f"{item['id'] or place}_{number}" for number in range(len(item["sentences"]))]
    return dict(zip(names, item["sentences"], strict=True))


def _load(path: Path, size: Size) -> RGB:
    """A picture of this ``(height, width)``.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is broken, or of another size.
    """
    picture = load_image(path)
    if picture.shape[:2] != tuple(size):
        raise ValueError(
            f"{path} is {picture.shape[1]}x{picture.shape[0]}, but {size[1]}x{size[0]} when it was prepared "
            "(width x height); prepare the data set again"
        )
    return picture
