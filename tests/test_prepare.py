"""Preparing a data set: shards, resuming, problems, opening."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_numbers import MASK, Toy, ToyVideos, make_root

from sam_uniref.data.prepared import (
    encode_mask,
    open_split,
    prepare,
    read_info,
)
from sam_uniref.data.prepared.problems import Problems


def reads(root: Path) -> int:
    return len((root / "reads").read_text().splitlines())


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_prepared_is_read_back(tmp_path: Path, workers: int) -> None:
    root = make_root(tmp_path / "root")
    seen: list[tuple[str, int]] = []
    info = prepare(Toy(), root, tmp_path / "out", workers=workers, report=lambda *state: seen.append(state))
    assert info == read_info(tmp_path / "out" / "toy")
    assert info.splits["train"] == {"shards": 4, "rows": 10, "problems": []}
    assert seen[-2:] == [("train", 10), ("val", 2)]
    rows = open_split(tmp_path / "out" / "toy", "train")
    assert rows["target"][:] == [str(i) for i in range(10)]
    assert rows[3]["sentences"] == ["a", "b"]
    assert rows[3]["box"] == [2.0, 1.0, 3.0, 2.0]
    assert rows[3]["rle"] == encode_mask(MASK).counts
    assert open_split(tmp_path / "out" / "toy", "val")["split"][:] == ["val", "val"]


def test_videos_are_read_back(tmp_path: Path) -> None:
    prepare(ToyVideos(), make_root(tmp_path / "root"), tmp_path / "out", workers=0)
    row = open_split(tmp_path / "out" / "toy_videos", "train")[4]
    assert (row["video"], row["frames"][1], row["annotated"]) == ("4", "4/1.jpg", [0, 1, 3])
    assert row["objects"][0]["rles"] == [encode_mask(MASK).counts] * 2
    assert row["objects"][0]["frames"] == [1, 3]


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root")
    (root / "train.numbers").write_text("[0, 1, 2, 3, 13]")
    with pytest.raises(ValueError, match="13 can't be read"):
        prepare(Toy(), root, tmp_path / "out", workers=0)
    with pytest.raises(ValueError, match=r"has the splits \[\]"):
        open_split(tmp_path / "out" / "toy", "train")
    assert reads(root) == 2
    (root / "train.numbers").write_text("[0, 1, 2, 3, 4]")
    prepare(Toy(), root, tmp_path / "out", workers=0)
    assert reads(root) == 4  # the second shard and val
    assert open_split(tmp_path / "out" / "toy", "train")["target"][:] == list("01234")


def test_mended_downloads_are_read_again(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root", 6)
    (root / "odd_is_broken").touch()
    info = prepare(Toy(), root, tmp_path / "out", workers=0)
    assert info.splits["train"]["rows"] == 3
    assert info.splits["train"]["problems"] == [
        {"severity": "broken", "reason": "odd", "count": 3, "examples": ["1", "3", "5"]}
    ]
    (root / "odd_is_broken").unlink()
    assert prepare(Toy(), root, tmp_path / "out", workers=0).splits["train"]["rows"] == 6


def test_a_smaller_download_leaves_no_old_shards(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root")
    prepare(Toy(), root, tmp_path / "out", workers=0)
    (root / "train.numbers").write_text("[0, 1]")
    prepare(Toy(), root, tmp_path / "out", workers=0)
    assert sorted(p.name for p in (tmp_path / "out" / "toy" / "train").iterdir()) == ["00000.arrow", "00000.json"]


def test_bad_input(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        prepare(Toy(), tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ValueError, match=r"has the splits \['train', 'val'\], got \['test'\]"):
        prepare(Toy(), root, tmp_path / "out", splits=("test",))
    with pytest.raises(ValueError, match="workers must be at least 0"):
        prepare(Toy(), root, tmp_path / "out", workers=-1)
    with pytest.raises(FileNotFoundError, match="make it with: sam-uniref data prepare"):
        open_split(tmp_path / "nothing", "train")
    prepare(Toy(), root, tmp_path / "out", workers=0)
    with pytest.raises(ValueError, match="remove it, or give another --out"):
        prepare(Toy(), make_root(tmp_path / "other"), tmp_path / "out")
    shard = tmp_path / "out" / "toy" / "train" / "00001.arrow"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"00001\.arrow is broken"):
        open_split(tmp_path / "out" / "toy", "train")
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="only what is missing is read"):
        open_split(tmp_path / "out" / "toy", "train")
    info = tmp_path / "out" / "toy" / "info.json"
    info.write_text(info.read_text().replace('"schema": 1', '"schema": 0'))
    with pytest.raises(ValueError, match="has version 0, this library reads 1"):
        read_info(tmp_path / "out" / "toy")


def test_problems_join() -> None:
    first, second = Problems(), Problems()
    for number in range(4):
        first.broken("a", number)
        second.by_rule("b", number)
        second.broken("a", 10 + number)
    first.join(second)
    assert [(p.severity, p.reason, p.count) for p in first] == [("broken", "a", 8), ("by rule", "b", 4)]
    assert next(iter(first)).examples == ("0", "1", "2", "3", "10")
    assert Problems.from_json(first.as_json()).as_json() == first.as_json()
    assert first.any_broken
