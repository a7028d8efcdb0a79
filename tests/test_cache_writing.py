"""Writing the embedding cache: sharing of the work, faults, and what it takes."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest
import torch
from cached import MissingPicture, QuickBackbone, images, made, shards, written
from hypothesis import given
from hypothesis import strategies as st

from sam_uniref.cache import CacheDescription, CacheWriter, FeatureCache, broken_shards, plan_writing
from sam_uniref.cache.features import ShardIndex, picture_key
from sam_uniref.cache.plan import remove_leftovers
from sam_uniref.cache.processes import write_cache
from sam_uniref.cache.writer import pieces_of


def test_nothing_is_encoded_twice(tmp_path: Path) -> None:
    description = written(tmp_path, 4)
    backbone = QuickBackbone()
    writer = CacheWriter(tmp_path, backbone, description, batch_size=3)
    assert writer.write([*made(6), *made(6)], 4) == 4
    assert backbone.seen == 4
    assert len(FeatureCache(tmp_path, description)) == 12


@given(counts=st.lists(st.integers(1, 9), max_size=12), most=st.integers(1, 10))
def test_pieces(counts: list[int], most: int) -> None:
    class Sized:
        def __init__(self, views: int) -> None:
            self.most_views = views

    pictures = [Sized(count) for count in counts]
    pieces = pieces_of(pictures, most)  # type: ignore[arg-type]
    assert [item for piece in pieces for item in piece] == pictures
    for piece in pieces:
        assert piece
        assert len(piece) == 1 or sum(item.most_views for item in piece) <= most


def test_reports_come_to_all_views(tmp_path: Path) -> None:
    backbone = QuickBackbone()
    told: list[tuple[int, int]] = []
    writer = CacheWriter(tmp_path, backbone, CacheDescription.of(backbone, "int8"), batch_size=3)
    writer.write([*made(5), *made(2)], 4, report=lambda *counts: told.append(counts))
    assert sum(seen for seen, _ in told) == 14
    assert sum(encoded for _, encoded in told) == 10


class SlowBackbone(QuickBackbone):
    def encode(self, pixels: torch.Tensor) -> tuple:
        time.sleep(0.02)
        return super().encode(pixels)


def test_two_writers_at_once_share_the_work(tmp_path: Path) -> None:
    """Both begin at the same piece."""
    backbones = [SlowBackbone(), SlowBackbone()]
    description = CacheDescription.of(backbones[0], "float32")
    done: list[int] = []

    def work(backbone: QuickBackbone) -> None:
        done.append(CacheWriter(tmp_path, backbone, description).write(made(20), 4))

    threads = [threading.Thread(target=work, args=(backbone,)) for backbone in backbones]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == sum(backbone.seen for backbone in backbones) == 40
    assert min(done) > 0
    assert not broken_shards(tmp_path, description)
    assert sorted(ShardIndex(tmp_path, description.digest)._places) == sorted(map(picture_key, images(20)))


def test_processes_share_the_work(tmp_path: Path) -> None:
    backbone = QuickBackbone()
    description = CacheDescription.of(backbone, "float32")
    told: list[tuple[int, int]] = []
    write_cache(tmp_path, backbone, description, made(6), 4, processes=2, report=lambda *counts: told.append(counts))
    assert len(FeatureCache(tmp_path, description)) == 12
    assert sum(encoded for _, encoded in told) >= 12
    assert backbone.seen == 0  # the work was done elsewhere


@pytest.mark.parametrize("processes", [1, 2])
def test_a_missing_picture_ends_the_work_and_is_named(tmp_path: Path, processes: int) -> None:
    backbone = QuickBackbone()
    description = CacheDescription.of(backbone, "float32")
    pictures = [*made(2), MissingPicture(7)]
    with pytest.raises((FileNotFoundError, ValueError), match=r"there is no picture made/7\.jpg"):
        write_cache(tmp_path, backbone, description, pictures, 4, processes=processes)
    assert not broken_shards(tmp_path, description)


def test_features_that_are_not_finite_name_their_picture(tmp_path: Path) -> None:
    backbone = QuickBackbone()
    with torch.no_grad():
        next(iter(backbone.encoder.parameters())).fill_(torch.nan)
    with pytest.raises(ValueError, match=r"made/0\.jpg: the features are not finite"):
        CacheWriter(tmp_path, backbone, CacheDescription.of(backbone, "int8")).write(made(1), 4)
    assert not shards(tmp_path)


def test_a_full_disk_leaves_what_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description = written(tmp_path, 2)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sam_uniref.cache.shard.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        CacheWriter(tmp_path, QuickBackbone(), description).write(made(4), 4)
    assert len(list((tmp_path / "shards").iterdir())) == 1
    assert len(FeatureCache(tmp_path, description)) == 4
    monkeypatch.undo()
    assert CacheWriter(tmp_path, QuickBackbone(), description).write(made(4), 4) == 4


def test_leftovers_of_killed_writers_go(tmp_path: Path) -> None:
    written(tmp_path, 2)
    old, young = (tmp_path / "shards" / f".{name}.features" for name in ("old-1", "young-1"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    remove_leftovers(tmp_path)
    assert not old.exists()
    assert young.exists()  # another writer may be at it
    assert len(shards(tmp_path)) == 1


# ---- What it takes ----


def test_the_plan_counts_what_is_missing(tmp_path: Path) -> None:
    description = CacheDescription.of(QuickBackbone(), "float32")
    plan = plan_writing(made(6), description, tmp_path / "cache" / "new")
    assert (plan.pictures, plan.views, plan.missing) == (6, 12, 12)
    assert plan.record_bytes == 8 * 4 * 4 * 4
    assert plan.needed_bytes == plan.all_bytes == 12 * 512
    written(tmp_path, 4)
    size = sum(path.stat().st_size for path in shards(tmp_path))
    plan = plan_writing(made(6), description, tmp_path, shard_views=2)
    assert (plan.missing, plan.shards) == (4, 2)
    assert 8 * plan.record_bytes <= size <= 8 * plan.record_bytes + 2 * 4096


def test_a_disk_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description = CacheDescription.of(QuickBackbone(), "float32")
    plan = plan_writing(made(6), description, tmp_path)
    plan.check(tmp_path)
    free = type("Usage", (), {"free": plan.needed_bytes - 1})
    monkeypatch.setattr("sam_uniref.cache.plan.shutil.disk_usage", lambda _: free)
    with pytest.raises(ValueError, match=r"would take 6\.14e-06 GB more, and 6\.14e-06 GB are free.*int8"):
        plan_writing(made(6), description, tmp_path).check(tmp_path)
