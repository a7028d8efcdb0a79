"""What a prepared data set holds, as Python and as Arrow: a row an annotated object of an image, or a video."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sam_uniref.data.prepared.masks import Box

if TYPE_CHECKING:
    from datasets import Features

TableKind = Literal["images", "videos"]


@dataclass(frozen=True)
class ImageRow:
    """An annotated object of an image.

    Attributes:
        image: Path of the picture, relative to the data set's root, with forward slashes.
        height: Of the picture in pixels.
        width: Of the picture in pixels.
        target: Id of the object, unique in the data set's split.
        category: Its class; empty where there are none.
        rle: Its mask as compressed run-length encoding (`EncodedMask.counts`); None where there are only boxes.
        box: ``(x, y, width, height)`` in pixels.
        sentences: That mean this object and no other in the picture.
        coco_id: The picture's id in COCO, whatever data set it is in; what is evaluated on is found by it. None
            if it is not in COCO.
    """

    image: str
    height: int
    width: int
    target: str
    category: str
    rle: bytes | None
    box: Box
    sentences: tuple[str, ...] = ()
    coco_id: int | None = None


@dataclass(frozen=True)
class VideoObject:
    """An annotated object of a video.

    Attributes:
        id: Its value in id maps and results, from 1; 0 if the data set does not tell.
        category: Its class; empty where there are none.
        first: Number of the frame, in ``VideoRow.frames``, whose mask a tracker is given; -1 if there is no mask.
        frames: Numbers of the frames in which it is seen and has a mask, rising.
        rles: Its masks in these frames (`EncodedMask.counts`).
        sentences: That mean it.
        sentence_ids: What the data set calls these sentences in results; empty where it does not.
    """

    id: int
    category: str
    first: int
    frames: tuple[int, ...]
    rles: tuple[bytes, ...]
    sentences: tuple[str, ...] = ()
    sentence_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class VideoRow:
    """A video.

    Attributes:
        video: Its name in the data set.
        height: Of its frames in pixels.
        width: Of its frames in pixels.
        frames: Paths of its frames in order, relative to the root, with forward slashes.
        annotated: Numbers of the frames whose masks are known; an object without a mask there is not seen.
        objects: Annotated in it.
    """

    video: str
    height: int
    width: int
    frames: tuple[str, ...]
    annotated: tuple[int, ...]
    objects: tuple[VideoObject, ...]


Row: TypeAlias = ImageRow | VideoRow


def features(table: TableKind) -> Features:
    """The Arrow schema of a table."""
    from datasets import Features, List, Value

    text, whole = Value("string"), Value("int32")
    if table == "images":
        return Features(
            image=text,
            height=whole,
            width=whole,
            target=text,
            category=text,
            rle=Value("binary"),
            box=List(Value("float32"), length=4),
            sentences=List(text),
            coco_id=Value("int64"),
            split=text,
        )
    track = {
        "id": whole,
        "category": text,
        "first": whole,
        "frames": List(whole),
        "rles": List(Value("binary")),
        "sentences": List(text),
        "sentence_ids": List(text),
    }
    return Features(
        video=text,
        height=whole,
        width=whole,
        frames=List(text),
        annotated=List(whole),
        objects=List(track),
        split=text,
    )


def as_record(row: Row, split: str) -> dict[str, Any]:
    """A row as plain containers, as `features` has them."""
    return asdict(row) | {"split": split}
