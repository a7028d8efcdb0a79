"""Small prepared data sets with their pictures, written row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from folders import boxes, save_picture

from sam_uniref.data.prepared import ImageRow, PreparedInfo, VideoObject, VideoRow, encode_mask
from sam_uniref.data.prepared.problems import Problems
from sam_uniref.data.prepared.rows import Row
from sam_uniref.data.prepared.shards import Shard

SIDES = (48, 64)


def write_prepared(folder: Path, root: Path, splits: Mapping[str, Sequence[Row]], *, shard: int = 3) -> Path:
    """A prepared set as `prepare` leaves it, in shards of so many rows."""
    videos = isinstance(next(iter(splits.values()))[0], VideoRow)
    info = PreparedInfo(folder.name, "videos" if videos else "images", str(root))
    for split, rows in splits.items():
        (folder / split).mkdir(parents=True)
        starts = range(0, len(rows), shard)
        for number, start in enumerate(starts):
            part = rows[start : start + shard]
            Shard(folder / split, number).write(part, info.table, split, Problems(), "")
        info.splits[split] = {"shards": len(starts), "rows": len(rows), "problems": []}
    info.write(folder)
    return folder


def image_row(
    root: Path,
    number: int,
    *,
    category: str = "box",
    sentences: tuple[str, ...] = (),
    coco_id: int | None = None,
    target: int = 1,
    boxes_only: bool = False,
) -> ImageRow:
    """Picture `number` of two boxes, of which one is the target."""
    ids = boxes((4, 2 + number, 20, 18 + number), (24, 30, 44, 50))
    name = f"pictures/{category}{number}.jpg"
    save_picture(root / name, ids, number)
    encoded = encode_mask(ids == target)
    rle = None if boxes_only else encoded.counts
    return ImageRow(name, *SIDES, f"{category}{number}/{target}", category, rle, encoded.box, sentences, coco_id)


def video_row(root: Path, name: str, length: int = 6, *, sentences: tuple[str, ...] = ()) -> VideoRow:
    """A clip of two boxes: object 2 moves and is seen all the time, object 5 from frame 2 on."""
    frames, moving, late = [], [], []
    for frame in range(length):
        ids = boxes((4, 2 + 4 * frame, 20, 18 + 4 * frame), (24, 30, 44, 50))
        frames.append(f"{name}/{frame:05d}.jpg")
        save_picture(root / frames[-1], ids if frame >= 2 else ids * (ids == 1), frame)
        moving.append(encode_mask(ids == 1).counts)
        late.append(encode_mask(ids == 2).counts)
    everywhere, later = tuple(range(length)), tuple(range(2, length))
    first = VideoObject(2, "", 0, everywhere, tuple(moving), sentences, tuple(str(k) for k in range(len(sentences))))
    second = VideoObject(5, "", 2, later, tuple(late[2:]))
    return VideoRow(name, *SIDES, tuple(frames), everywhere, (first, second))
