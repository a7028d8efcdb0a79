"""Counting prepared splits, and finding which of COCO's images are evaluated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_sets import ToyImages, ToyVideos, make_images, make_videos

from sam_uniref.data.formats import FORMATS
from sam_uniref.data.prepared import ImageRow, VideoObject, VideoRow, prepare
from sam_uniref.data.prepared.counts import COUNTED, count_split
from sam_uniref.data.prepared.leakage import count_evaluated, evaluated_coco_ids
from sam_uniref.data.prepared.problems import Problems

BOX = (0.0, 0.0, 1.0, 1.0)


class Given(ToyImages):
    """Rows as they are given, by split, in shards of three."""

    name: ClassVar[str] = "given"

    def __init__(self, rows: Mapping[str, list[Any]]) -> None:
        self.rows = rows

    def splits(self, root: Path) -> tuple[str, ...]:
        return tuple(self.rows)

    def units(self, root: Path, split: str, problems: Problems) -> Iterator[Any]:
        yield from range(0, len(self.rows[split]), 3)

    def read(self, root: Path, split: str, unit: Any, problems: Problems) -> Iterator[Any]:
        yield from self.rows[split][unit : unit + 3]


class GivenVideos(Given):
    name: ClassVar[str] = "given_videos"
    table = "videos"


def image_row(image: int, sentences: int, coco_id: int | None) -> ImageRow:
    return ImageRow(f"{image}.jpg", 6, 8, "t", "", None, BOX, ("s",) * sentences, coco_id)


IMAGE_ROWS = st.lists(
    st.builds(image_row, st.integers(0, 4), st.integers(0, 3), st.none() | st.integers(0, 9)), max_size=10
)
OBJECTS = st.lists(st.builds(lambda n: VideoObject(1, "", -1, (), (), ("s",) * n), st.integers(0, 3)), max_size=3).map(
    tuple
)


@given(rows=IMAGE_ROWS)
@settings(max_examples=25, deadline=None)
def test_images_are_counted(rows: list[ImageRow], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("counts")
    prepare(Given({"train": rows}), folder, folder, workers=0)
    assert count_split(folder / "given", "train") == {
        "images": len({row.image for row in rows}),
        "targets": len(rows),
        "sentences": sum(len(row.sentences) for row in rows),
    }
    ids = np.array([0, 2, 4, 6])
    known = {row.coco_id for row in rows if row.coco_id is not None}
    expected = len(known & set(ids.tolist())) if known else None
    assert count_evaluated(folder / "given", "train", ids) == expected


@given(videos=st.lists(OBJECTS, max_size=5))
@settings(max_examples=25, deadline=None)
def test_videos_are_counted(videos: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("counts")
    rows = [VideoRow(str(number), 6, 8, (), (), objects) for number, objects in enumerate(videos)]
    prepare(GivenVideos({"train": rows}), folder, folder, workers=0)
    assert count_split(folder / "given_videos", "train") == {
        "videos": len(videos),
        "objects": sum(map(len, videos)),
        "sentences": sum(len(item.sentences) for objects in videos for item in objects),
    }
    assert count_evaluated(folder / "given_videos", "train", np.array([1])) is None


def test_the_toys_have_what_they_publish(tmp_path: Path) -> None:
    for toy, make in ((ToyImages(), make_images), (ToyVideos(), make_videos)):
        prepare(toy, make(tmp_path / f"root_{toy.name}"), tmp_path, workers=0)
        assert count_split(tmp_path / toy.name, "train") == toy.published["train"]
    with pytest.raises(ValueError, match=r"has the splits \['train', 'val'\], got 'test'"):
        count_split(tmp_path / "toy", "test")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_readers_publish_what_is_counted(name: str) -> None:
    layout = FORMATS[name]
    for counts in layout.published.values():
        assert counts.keys() <= set(COUNTED[layout.table])


def test_what_sentences_are_evaluated_on(tmp_path: Path) -> None:
    """Not: training splits, rows without sentences, images that are not COCO's, videos."""
    rows = {
        "train": [image_row(0, 1, 1)],
        "val": [image_row(0, 1, 7), image_row(1, 2, 3), image_row(2, 0, 5), image_row(3, 1, None), image_row(4, 1, 3)],
        "testB": [image_row(0, 1, 2), image_row(1, 1, 7)],
        "empty": [],
    }
    prepare(Given(rows), tmp_path, tmp_path / "out", workers=0)
    prepare(GivenVideos({"val": []}), tmp_path, tmp_path / "out", workers=0)
    (tmp_path / "out" / "something else").mkdir()
    ids = evaluated_coco_ids(tmp_path / "out")
    assert ids.dtype == np.int64
    assert ids.tolist() == [2, 3, 7]
    assert evaluated_coco_ids(tmp_path / "out" / "given").tolist() == [2, 3, 7]
    prepare(Given(rows), tmp_path, tmp_path / "train only", splits=("train",), workers=0)
    assert evaluated_coco_ids(tmp_path / "train only").tolist() == []
    with pytest.raises(FileNotFoundError, match="holds no prepared data set"):
        evaluated_coco_ids(tmp_path / "nowhere")
