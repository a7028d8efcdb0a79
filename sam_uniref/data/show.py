"""Look at a prepared split: rows drawn by chance, painted, on a contact sheet and on a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageDraw

from sam_uniref import page
from sam_uniref.data.contact_sheet import contact_sheet, shrunk
from sam_uniref.data.formats.files import relative_path
from sam_uniref.data.prepared.masks import EncodedMask, decode_mask
from sam_uniref.data.prepared.shards import open_split, read_info
from sam_uniref.images import RGB, load_image
from sam_uniref.segmentation import overlay_mask
from sam_uniref.state import whole_folder
from sam_uniref.track_files import paint_objects

SHEET = "contact_sheet.png"
GENERATOR = "sam_uniref.data.show"
FRAMES_A_VIDEO = 4
# Pictures beside the page are at most so many pixels wide and high.
_PICTURE_SIDE = 1024
_COLORS = ((255, 64, 32), (0, 190, 255), (255, 225, 0), (150, 0, 255))

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Exhibit:
    """A row as it is shown.

    Attributes:
        title: What it is of.
        pictures: Painted, each ``(H, W, 3)`` uint8 RGB.
        captions: Of the pictures.
        facts: Lines of text: names, ids, sentences.
        summary: Lines of the contact sheet's caption.
    """

    title: str
    pictures: tuple[RGB, ...]
    captions: tuple[str, ...]
    facts: tuple[str, ...]
    summary: tuple[str, ...]


def write_show(folder: str | Path, split: str, out: str | Path, *, count: int = 8, seed: int = 0) -> Path:
    """Write a contact sheet and a page of rows that are drawn evenly by chance.

    Args:
        folder: Of the prepared set.
        split: To draw from.
        out: Folder for ``contact_sheet.png``, ``index.html`` and its pictures. An earlier one is replaced.
        count: How many rows; all where there are fewer.
        seed: Of the draw: the same seed shows the same rows.

    Returns:
        The page.

    Raises:
        FileExistsError: If ``out`` holds anything else, which would be replaced.
        FileNotFoundError: If the data set, its download or a picture is not there.
        ValueError: If the count is below 1, the split is not there or is empty, or a row's picture is broken, of
            another size, or outside of the download.
    """
    if count < 1:
        raise ValueError(f"at least 1 row must be shown, got {count}")
    out = Path(out)
    check_place(out)
    info = read_info(folder)
    root = Path(info.root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"{folder} was prepared from {root}, which is not there any more; prepare it again where it is"
        )
    rows = open_split(folder, split)
    numbers = np.random.default_rng(seed).choice(len(rows), min(count, len(rows)), replace=False)
    show = image_exhibit if info.table == "images" else video_exhibit
    exhibits = [show(rows[number], root) for number in sorted(numbers.tolist())]
    title = f"{info.format}, {split}"
    about = f"{len(exhibits)} of {len(rows)} rows, drawn by chance with the seed {seed}."
    with whole_folder(out) as temporary:
        contact_sheet([(exhibit.pictures, exhibit.summary) for exhibit in exhibits]).save(temporary / SHEET)
        cases = [_case(exhibit, number, temporary) for number, exhibit in enumerate(exhibits)]
        document = page.document(title, [about], cases, generator=GENERATOR)
        (temporary / page.PAGE).write_text(document, encoding="utf-8")
    return out / page.PAGE


def check_place(out: Path) -> None:
    """Refuse to write where anything but an earlier show is.

    Raises:
        FileExistsError: Naming what is there.
    """
    page.check_place(out, "contact sheet", GENERATOR, others=(SHEET,))


def image_exhibit(row: Row, root: Path) -> Exhibit:
    """An object in its picture: its mask painted, or its box drawn where there is no mask.

    Args:
        row: Of the table ``images``.
        root: Folder of the download.

    Raises:
        FileNotFoundError: If the picture is not there.
        ValueError: If it is broken, of another size than the row says, or outside of the download.
    """
    picture = _load(root, row["image"], row)
    if row["rle"] is None:
        painted = _with_box(picture, row["box"])
    else:
        mask = decode_mask(EncodedMask(row["rle"], (row["height"], row["width"])))
        painted = overlay_mask(picture, mask, _least_like(picture[mask]))
    name = f"{row['target']} {row['category']}".strip()
    box = ", ".join(f"{side:g}" for side in row["box"])
    facts = [
        f"picture: {row['image']}, {row['width']} x {row['height']}",
        f"box: {box} (x, y, width, height)",
        *([] if row["coco_id"] is None else [f"COCO's id: {row['coco_id']}"]),
        *(f"sentence: {sentence}" for sentence in row["sentences"]),
    ]
    return Exhibit(name, (painted,), (row["image"],), tuple(facts), (name, *row["sentences"][:1]))


def video_exhibit(row: Row, root: Path) -> Exhibit:
    """A video's objects in up to four of its annotated frames, evenly spread; in any frames where none is annotated.

    Args:
        row: Of the table ``videos``.
        root: Folder of the download.

    Raises:
        FileNotFoundError: If a frame is not there.
        ValueError: If one is broken, of another size than the row says, or outside of the download.
    """
    known = row["annotated"] or range(len(row["frames"]))
    places = np.linspace(0, len(known) - 1, min(FRAMES_A_VIDEO, len(known))).round().astype(int)
    numbers = [known[place] for place in places.tolist()]
    ids = _distinct_ids(row)
    pictures = tuple(paint_objects(_load(root, row["frames"][t], row), _labels(row, ids, t)) for t in numbers)
    objects = [
        f"object {number}{' (numbered here)' if number != item['id'] else ''}: {item['category'] or 'no category'}, "
        f"first mask in frame {item['first']}, masks in {len(item['frames'])} frames"
        for number, item in zip(ids, row["objects"], strict=True)
    ]
    sentences = [sentence for number, item in zip(ids, row["objects"], strict=True) for sentence in _said(number, item)]
    size = f"{row['width']} x {row['height']}"
    facts = (f"{len(row['frames'])} frames of {size}, {len(row['annotated'])} annotated", *objects, *sentences)
    named = ", ".join(f"{n} {item['category']}".strip() for n, item in zip(ids, row["objects"], strict=True))
    summary = (f"{row['video']}: {named or 'no objects'}", *sentences[:1])
    return Exhibit(row["video"], pictures, tuple(row["frames"][t] for t in numbers), facts, summary)


def _said(number: int, item: Row) -> Iterator[str]:
    """What is said of a video's object."""
    names = item["sentence_ids"] or [""] * len(item["sentences"])
    for name, sentence in zip(names, item["sentences"], strict=True):
        yield f"sentence {name}, object {number}: {sentence}" if name else f"sentence, object {number}: {sentence}"


def _distinct_ids(row: Row) -> list[int]:
    """The objects' ids, or numbers from 1 where the data set tells none, or one twice."""
    ids = [item["id"] for item in row["objects"]]
    return ids if 0 not in ids and len(set(ids)) == len(ids) else list(range(1, len(ids) + 1))


def _labels(row: Row, ids: list[int], frame: int) -> NDArray[np.int32]:
    """The objects of a frame as a map ``(H, W)`` of ids; where masks overlap, the later object's."""
    size = (row["height"], row["width"])
    labels = np.zeros(size, np.int32)
    for number, item in zip(ids, row["objects"], strict=True):
        if frame in item["frames"]:
            labels[decode_mask(EncodedMask(item["rles"][item["frames"].index(frame)], size))] = number
    return labels


def _load(root: Path, relative: str, row: Row) -> RGB:
    """A row's picture, which must be in the download and as large as the row says."""
    picture = load_image(root / relative_path(relative))
    if picture.shape[:2] != (row["height"], row["width"]):
        raise ValueError(
            f"{root / relative} is {picture.shape[1]}x{picture.shape[0]}, and was {row['width']}x{row['height']} "
            "(width x height) when it was prepared; prepare the data set again"
        )
    return picture


def _least_like(pixels: NDArray[np.uint8]) -> tuple[int, int, int]:
    """The colour that differs most from pixels ``(N, 3)``, of which there may be none, on the average."""
    average = pixels.mean(axis=0) if len(pixels) else np.zeros(3)
    return max(_COLORS, key=lambda color: float(np.square(average - color).sum()))


def _with_box(picture: RGB, box: list[float]) -> RGB:
    """A copy with a box ``(x, y, width, height)`` drawn."""
    canvas = PILImage.fromarray(picture)
    x, y, width, height = box
    corners = (x, y, x + max(width - 1, 0), y + max(height - 1, 0))
    ImageDraw.Draw(canvas).rectangle(corners, outline=_COLORS[0], width=max(2, max(canvas.size) // 200))
    return np.array(canvas)


def _case(exhibit: Exhibit, number: int, folder: Path) -> str:
    """Save an exhibit's pictures, and tell the page's part about it."""
    figures = []
    for place, (picture, caption) in enumerate(zip(exhibit.pictures, exhibit.captions, strict=True)):
        name = f"{number:03d}-{place}.jpg"
        shrunk(picture, _PICTURE_SIDE, _PICTURE_SIDE).save(folder / name, quality=90)
        figures.append(page.figure(name, f"{exhibit.title}, painted", caption))
    return page.case(exhibit.title, [page.row(figures), page.listing(exhibit.facts)])
