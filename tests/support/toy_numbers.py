"""Data sets of numbers, for what preparing does whatever is read; in a module that other processes can import."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from sam_uniref.data.prepared import ImageRow, VideoObject, VideoRow, encode_mask
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import TableKind

MASK = np.zeros((6, 8), bool)
MASK[1:3, 2:5] = True


class Toy:
    """Rows from a file of numbers; odd ones are broken while there is a file `odd_is_broken`."""

    name: ClassVar[str] = "toy"
    title: ClassVar[str] = "Toy"
    table: ClassVar[TableKind] = "images"
    homepage: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {}

    def splits(self, root: Path) -> tuple[str, ...]:
        return tuple(sorted(p.stem for p in root.glob("*.numbers")))

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[list[int]]:
        numbers = json.loads((root / f"{split}.numbers").read_text())
        yield from (numbers[i : i + 3] for i in range(0, len(numbers), 3))

    def read(self, root: Path, split: str, unit: list[int], problems: Problems) -> Iterator[ImageRow]:
        with (root / "reads").open("a") as file:
            file.write(f"{unit}\n")
        for number in unit:
            if number == 13:
                raise ValueError("13 can't be read")
            if number % 2 and (root / "odd_is_broken").exists():
                problems.broken("odd", number)
                continue
            encoded = encode_mask(MASK)
            yield ImageRow(f"{number}.jpg", 6, 8, str(number), "", encoded.counts, encoded.box, ("a", "b"), number)


class ToyVideos(Toy):
    name: ClassVar[str] = "toy_videos"
    table: ClassVar[TableKind] = "videos"

    def read(self, root: Path, split: str, unit: list[int], problems: Problems) -> Iterator[VideoRow]:  # type: ignore[override]
        for number in unit:
            track = VideoObject(2, "cat", 1, (1, 3), (encode_mask(MASK).counts,) * 2, ("it",), ("0",))
            frames = tuple(f"{number}/{t}.jpg" for t in range(4))
            yield VideoRow(str(number), 6, 8, frames, (0, 1, 3), (track,))


def make_root(folder: Path, count: int = 10) -> Path:
    folder.mkdir()
    (folder / "train.numbers").write_text(json.dumps(list(range(count))))
    (folder / "val.numbers").write_text("[100, 102]")
    return folder
