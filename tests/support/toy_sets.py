"""Small data sets on disk and their readers, for what works on any data set."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image as PILImage

from sam_uniref.data.formats.files import in_units, read_json, sound_picture
from sam_uniref.data.prepared import ImageRow, VideoObject, VideoRow, encode_mask
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import TableKind

HEIGHT, WIDTH = 48, 64
SIZE = (HEIGHT, WIDTH)
UNIT = 2
SCRIPT = "<script>alert(1)</script>"


def square(place: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[10:30, 4 * place : 4 * place + 20] = True
    return mask


class ToyImages:
    """``<split>.json``: a list of rows without masks; of ``"mask": true`` a square, otherwise a box alone.

    While there is a file ``stop``, reading breaks off as by Ctrl-C at the second unit.
    """

    name: ClassVar[str] = "toy"
    title: ClassVar[str] = "Toy pictures"
    table: ClassVar[TableKind] = "images"
    homepage: ClassVar[str] = "https://example.org/toy"
    licence: ClassVar[str] = "CC0"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {"train": {"images": 3, "targets": 5, "sentences": 6}}

    def splits(self, root: Path) -> tuple[str, ...]:
        found = tuple(sorted(path.stem for path in root.glob("*.json")))
        if not found:
            raise FileNotFoundError(f"{root} does not hold the data set; expected in it: <split>.json")
        return found

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[Any]:
        yield from enumerate(in_units(read_json(root / f"{split}.json"), UNIT))

    def read(self, root: Path, split: str, unit: Any, problems: Problems) -> Iterator[Any]:
        number, entries = unit
        with (root / "reads").open("a") as file:
            file.write(f"{split} {number}\n")
        if number and (root / "stop").exists():
            raise KeyboardInterrupt
        for entry in entries:
            if sound_picture(root, entry["image"], problems) is None:
                continue
            encoded = encode_mask(square(entry["place"]))
            yield ImageRow(
                entry["image"],
                *SIZE,
                entry["target"],
                entry.get("category", ""),
                encoded.counts if entry.get("mask") else None,
                encoded.box,
                tuple(entry.get("sentences", ())),
                entry.get("coco_id"),
            )


class SlowImages(ToyImages):
    """Takes its time, above all for the second unit."""

    def read(self, root: Path, split: str, unit: Any, problems: Problems) -> Iterator[Any]:
        yield from super().read(root, split, unit, problems)
        time.sleep(0.5 if unit[0] == 0 else 1.5)


class ToyVideos(ToyImages):
    """``<split>.json``: a list of videos' names, each with two objects, of which the second enters later."""

    name: ClassVar[str] = "toy_videos"
    title: ClassVar[str] = "Toy videos"
    table: ClassVar[TableKind] = "videos"
    published: ClassVar[Mapping[str, Mapping[str, int]]] = {"train": {"videos": 3, "objects": 6, "sentences": 9}}

    def read(self, root: Path, split: str, unit: Any, problems: Problems) -> Iterator[Any]:
        for name in unit[1]:
            frames = tuple(f"{name}/{t:05d}.png" for t in range(7))
            rles = tuple(encode_mask(square(t)).counts for t in range(7))
            low = np.zeros(SIZE, bool)
            low[35:45, 5:50] = True
            first = VideoObject(2, "cat", 0, tuple(range(7)), rles, ("the <b>cat</b>", "it"), ("0", "1"))
            second = VideoObject(5, "", 4, (4, 5, 6), (encode_mask(low).counts,) * 3, ("a bar",), ("2",))
            yield VideoRow(name, *SIZE, frames, tuple(range(7)), (first, second))


def make_images(root: Path) -> Path:
    """Three pictures in ``train``, one of them in ``val``; five and one objects; six and two sentences."""
    root.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        PILImage.fromarray(rng.integers(90, 160, (*SIZE, 3)).astype(np.uint8)).save(root / f"{number}.png")
    train = [
        {"image": "0.png", "target": "a", "place": 0, "mask": True, "category": "cat", "sentences": ["the left one"]},
        {
            "image": "0.png",
            "target": "b",
            "place": 8,
            "mask": True,
            "sentences": ["<script>alert(1)</script>", "右の猫 😀"],
        },
        {"image": "1.png", "target": "c", "place": 2, "mask": False, "sentences": ["word " * 300]},
        {"image": "2.png", "target": "d", "place": 3, "mask": True, "sentences": ["x" * 900, "شجرة"]},
        {"image": "2.png", "target": "e", "place": 5, "mask": False},
    ]
    for entry in train:
        entry["coco_id"] = 10 + int(str(entry["image"])[0])
    (root / "train.json").write_text(json.dumps(train))
    (root / "val.json").write_text(json.dumps([train[3] | {"target": "v"}]))
    return root


def make_videos(root: Path) -> Path:
    """Three videos of seven frames in ``train``."""
    root.mkdir()
    names = ["one", "two", "three"]
    for name in names:
        (root / name).mkdir()
        for t in range(7):
            PILImage.fromarray(np.full((*SIZE, 3), 100 + 10 * t, np.uint8)).save(root / name / f"{t:05d}.png")
    (root / "train.json").write_text(json.dumps(names))
    return root


def reads(root: Path) -> list[str]:
    """What was read so far, in order."""
    return (root / "reads").read_text().splitlines() if (root / "reads").exists() else []
