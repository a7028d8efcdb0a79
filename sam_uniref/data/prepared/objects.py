"""Prepared data sets as tables of annotated objects: columns in memory, everything else read when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.objects import STILL, AnnotatedObject, Numbers, ObjectColumns
from sam_uniref.data.prepared.masks import EncodedMask, FilledBox

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


class PreparedImages:
    """Objects of images, a row each; a still each, so a pseudo-clip for VOS.

    Attributes:
        columns: What episodes choose by.
        landscape: ``(N,)`` bool: whose pictures are wider than high.
        numbers: ``(N,)`` int64: of each object, its row.

    Args:
        rows: Of an image table.
        root: Folder that the rows' paths are relative to.
        held_out: ``(rows,)`` bool: which serve validation.
        left_out: ``(rows,)`` bool: which are not to be used at all.
        by_class: Whether objects of one class are references of one another (FSS), or each stands for itself.
        boxes: Whether objects of which only boxes are known serve too.
    """

    def __init__(
        self,
        rows: Dataset,
        root: Path,
        held_out: NDArray[np.bool_],
        left_out: NDArray[np.bool_],
        *,
        by_class: bool,
        boxes: bool = False,
    ) -> None:
        import pyarrow.compute as pc

        table = rows.data.table
        self._rows, self._root = rows, root
        serves = column_values(pc.is_valid(table["rle"])).astype(bool) | boxes
        self.numbers = np.flatnonzero(serves & ~left_out)
        everyone = np.arange(len(self.numbers))
        picture = column_codes(table["image"])[self.numbers]
        self.columns = ObjectColumns(
            group=column_codes(table["category"])[self.numbers] if by_class else everyone,
            picture=picture,
            scene=picture,
            frame=np.full(len(everyone), STILL, np.int64),
            sentences=column_values(pc.list_value_length(table["sentences"]))[self.numbers],
            held_out=held_out[self.numbers],
            subject=everyone,
        )
        self.landscape = wider_than_high(table)[self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> AnnotatedObject:
        row = self._rows[int(self.numbers[index])]
        size = (row["height"], row["width"])
        return AnnotatedObject(
            self._root / row["image"],
            FilledBox(tuple(row["box"]), size) if row["rle"] is None else EncodedMask(row["rle"], size),
            1,
            row["category"],
            row["image"],
            None,
            tuple(row["sentences"]),
            bool(self.columns.held_out[index]),
        )


class PreparedVideos:
    """Objects of videos in the frames in which they are seen; in training a frame is drawn for each object.

    Attributes:
        columns: What episodes choose by.
        landscape: ``(N,)`` bool: whose videos are wider than high.

    Args:
        rows: Of a video table.
        root: Folder that the rows' paths are relative to.
        held_out: ``(rows,)`` bool: which videos serve validation.
    """

    def __init__(self, rows: Dataset, root: Path, held_out: NDArray[np.bool_]) -> None:
        import pyarrow.compute as pc

        table = rows.data.table
        self._rows, self._root = rows.with_format("arrow"), root
        objects = pc.list_flatten(table["objects"])
        seen = pc.struct_field(objects, "frames")
        objects_a_video, frames_an_object = (
            column_values(pc.list_value_length(column)) for column in (table["objects"], seen)
        )
        video = np.repeat(np.arange(len(rows)), objects_a_video)
        subject = np.repeat(np.arange(len(video)), frames_an_object)
        frame = column_values(pc.list_flatten(seen))
        first_picture = _starts(column_values(pc.list_value_length(table["frames"])))
        said = column_values(pc.list_value_length(pc.struct_field(objects, "sentences")))
        self._video = video[subject]
        self._place = (np.arange(len(video)) - _starts(objects_a_video)[video])[subject]
        self._mask = np.arange(len(subject)) - _starts(frames_an_object)[subject]
        self.columns = ObjectColumns(
            group=subject,
            picture=first_picture[self._video] + frame,
            scene=self._video,
            frame=frame,
            sentences=said[subject],
            held_out=held_out[self._video],
            subject=subject,
        )
        self.landscape = wider_than_high(table)[self._video]

    def __len__(self) -> int:
        return len(self._video)

    def __getitem__(self, index: int) -> AnnotatedObject:
        row: dict[str, Any] = {name: column[0] for name, column in _columns(self._rows[int(self._video[index])])}
        track = row["objects"].values[int(self._place[index])]
        frame, video = int(self.columns.frame[index]), row["video"].as_py()
        object_id = track["id"].as_py()
        return AnnotatedObject(
            self._root / row["frames"].values[frame].as_py(),
            EncodedMask(
                track["rles"].values[int(self._mask[index])].as_py(), (row["height"].as_py(), row["width"].as_py())
            ),
            object_id,
            f"{video}/{object_id}",
            video,
            frame,
            tuple(track["sentences"].as_py()),
            bool(self.columns.held_out[index]),
        )


def _columns(table: pa.Table) -> Any:
    """Names and columns, without turning a whole clip's masks into Python objects."""
    return zip(table.column_names, table.columns, strict=True)


def column_values(column: pa.ChunkedArray | pa.Array) -> Numbers:
    """A column without gaps as numbers, ``(N,)`` int64."""
    return np.asarray(column.to_numpy()).astype(np.int64)


def column_codes(column: pa.ChunkedArray) -> Numbers:
    """A number for each different text of a column, ``(N,)`` int64, from 0 in order of appearance."""
    # In one piece: a dictionary for each of a thousand pieces takes a hundred times as long to join.
    whole = column.combine_chunks()
    return np.asarray(whole.dictionary_encode().indices.to_numpy(zero_copy_only=False)).astype(np.int64)


def wider_than_high(table: pa.Table) -> NDArray[np.bool_]:
    """``(rows,)``: of which rows the picture, or the video, is wider than high."""
    wider: NDArray[np.bool_] = column_values(table["width"]) > column_values(table["height"])
    return wider


def _starts(lengths: Numbers) -> Numbers:
    """Where each list begins when all are written one after another."""
    return np.cumsum(lengths) - lengths
