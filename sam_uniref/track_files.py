"""Results of tracking as files: palette PNGs, a video with the objects painted on, COCO RLE JSON."""

from __future__ import annotations

import functools
import io
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from sam_uniref.images import RGB
from sam_uniref.segmentation import bounding_box, encode_rle, id_color, overlay_mask
from sam_uniref.state import whole_file
from sam_uniref.tracking import FrameResult
from sam_uniref.video import Frame
from sam_uniref.video_writing import VideoWriter

# 255 is void in palette masks.
LARGEST_PALETTE_ID = 254
# ITU-R BT.601: how bright a colour looks. Black is read on what is brighter than half, white on the rest.
_LUMA = (0.299, 0.587, 0.114)


@functools.cache
def _palette() -> bytes:
    """Colours of all ids, three bytes each."""
    return bytes(channel for object_id in range(256) for channel in id_color(object_id))


def palette_png(labels: NDArray[np.integer[Any]]) -> bytes:
    """Object ids ``(H, W)`` as a palette PNG in the colours of PASCAL VOC and DAVIS.

    Raises:
        ValueError: If an id is above 254.
    """
    if labels.max() > LARGEST_PALETTE_ID:
        raise ValueError(f"a palette PNG holds ids up to {LARGEST_PALETTE_ID}, got {labels.max()}")
    picture = PILImage.fromarray(labels.astype(np.uint8))
    picture.putpalette(_palette())
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def save_palette(labels: NDArray[np.integer[Any]], path: str | Path) -> None:
    """Write object ids ``(H, W)`` as `palette_png`; the file is whole or not there.

    Raises:
        ValueError: If an id is above 254.
        OSError: If it cannot be written.
    """
    png = palette_png(labels)
    with whole_file(path) as temporary:
        temporary.write_bytes(png)


def paint_objects(picture: RGB, labels: NDArray[np.integer[Any]], names: Mapping[int, str] | None = None) -> RGB:
    """The picture with each object in its id's colour, and its name, or else its id, beside it.

    Args:
        picture: ``(H, W, 3)`` uint8 RGB.
        labels: ``(H, W)`` of object ids, 0 = background.
        names: Per object id.

    Returns:
        A new ``(H, W, 3)`` uint8 RGB.
    """
    painted = picture.copy()
    boxes = {}
    for object_id in np.unique(labels[labels > 0]).tolist():
        mask = labels == object_id
        painted = overlay_mask(painted, mask, id_color(object_id))
        boxes[object_id] = bounding_box(mask)
    canvas = PILImage.fromarray(painted)
    for object_id, box in boxes.items():
        if box is not None:
            _draw_label(canvas, (names or {}).get(object_id, str(object_id)), id_color(object_id), box[:2])
    return np.array(canvas)


@functools.cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Pillow's own font, which is everywhere; so many pixels high."""
    return ImageFont.load_default(size)


def _draw_label(canvas: PILImage.Image, text: str, color: tuple[int, int, int], corner: tuple[int, int]) -> None:
    """Text on a box of the colour: above the corner ``(x, y)``, moved as far as needed to be in the picture."""
    draw = ImageDraw.Draw(canvas)
    font = _font(max(10, min(canvas.size) // 24))
    right, bottom = draw.textbbox((0, 0), text, font=font)[2:]
    width, height = int(right) + 4, int(bottom) + 4
    x = max(0, min(corner[0], canvas.width - width))
    y = max(0, min(corner[1] - height, canvas.height - height))
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
    bright = sum(share * channel for share, channel in zip(_LUMA, color, strict=True)) > 127
    draw.text((x + 2, y + 2), text, font=font, fill=(0, 0, 0) if bright else (255, 255, 255))


class CocoWriter:
    """Write tracked objects as a COCO file, a frame at a time in constant memory; `finish` gives it its name.

    ``images`` has all frames (``id``: the frame's number; ``time`` in seconds, or null), ``annotations`` the objects
    that are visible in them (``category_id``: the object's id; ``segmentation``: run-length encoding; ``bbox``: x, y,
    width, height), ``categories`` the objects' names. pycocotools reads it.

    Args:
        path: The JSON file. An old one stays until the new one is whole.
        names: Per object id; others are called by it.
    """

    def __init__(self, path: str | Path, names: Mapping[int, str]) -> None:
        self.path = Path(path)
        self._names = names
        self._file = ExitStack()
        self._annotations: IO[str] | None = None
        self._images: IO[str] | None = None
        self._object_ids: set[int] = set()
        self._frames_written = 0
        self._annotations_written = 0

    def write(self, frame: Frame, result: FrameResult, file_name: str) -> None:
        """Add a frame.

        Raises:
            OSError: If it cannot be written.
        """
        if self._annotations is None or self._images is None:
            temporary = self._file.enter_context(whole_file(self.path))
            self._annotations = self._file.enter_context(temporary.open("w", encoding="utf-8"))
            # Two lists grow at once, and a file has one end.
            images = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - the stack closes it
            self._images = self._file.enter_context(images)
            self._annotations.write('{"annotations": [')
        height, width = result.labels.shape
        image = {"id": result.index, "file_name": file_name, "width": width, "height": height, "time": frame.time}
        self._images.write(("," if self._frames_written else "") + "\n" + json.dumps(image))
        self._frames_written += 1
        self._object_ids |= result.masks.keys()
        for object_id, mask in result.masks.items():
            box = bounding_box(mask)
            if box is None:
                continue
            annotation = {
                "id": self._annotations_written + 1,
                "image_id": result.index,
                "category_id": object_id,
                "score": result.scores[object_id],
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": encode_rle(mask),
            }
            self._annotations.write(("," if self._annotations_written else "") + "\n" + json.dumps(annotation))
            self._annotations_written += 1

    def finish(self) -> None:
        """Give the file its name; without a single frame there is none.

        Raises:
            OSError: If it cannot be written.
        """
        if self._annotations is None or self._images is None:
            return
        annotations, images = self._annotations, self._images
        self._annotations = self._images = None
        categories = [{"id": i, "name": self._names.get(i, str(i))} for i in sorted(self._object_ids)]
        with self._file:
            annotations.write('\n],\n"images": [')
            images.seek(0)
            shutil.copyfileobj(images, annotations)
            annotations.write(f'\n],\n"categories": {json.dumps(categories)}}}\n')


class TrackFiles:
    """Where a track goes: any of palette PNGs, a painted video, a COCO file.

    Whatever ends the block, what was done until then is written: a PNG a frame at once, the other files with the
    frames so far.

    Args:
        masks: Folder for a palette PNG a frame.
        overlay: ``.mp4`` file for the painted video.
        rle: ``.json`` file for the masks as COCO run-length encodings.
        pictures: Files of the frames, whose names the PNGs get; by default they have numbers.
        names: Per object id.
        frames_per_second: Of the painted video, for frames without a time.

    Raises:
        ValueError: If a file's name ends in something else, or the rate is not positive.
    """

    def __init__(
        self,
        *,
        masks: Path | None = None,
        overlay: Path | None = None,
        rle: Path | None = None,
        pictures: Sequence[Path] | None = None,
        names: Mapping[int, str] | None = None,
        frames_per_second: float = 10,
    ) -> None:
        if rle is not None and rle.suffix.lower() != ".json":
            raise ValueError(f"run-length encodings are written as .json, got {rle}")
        self.names = names or {}
        self._masks = masks
        self._pictures = pictures
        self._video = None if overlay is None else VideoWriter(overlay, frames_per_second=frames_per_second)
        self._coco = None if rle is None else CocoWriter(rle, self.names)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Add a frame and what was found in it.

        Raises:
            ValueError: If there are PNGs to write and an id is above 254.
            OSError: If something cannot be written.
        """
        number = f"{result.index:05d}"
        if self._masks is not None:
            stem = self._pictures[result.index].stem if self._pictures else number
            save_palette(result.labels, self._masks / f"{stem}.png")
        if self._coco is not None:
            self._coco.write(frame, result, self._pictures[result.index].name if self._pictures else number)
        if self._video is not None:
            self._video.write(paint_objects(frame.picture, result.labels, self.names), frame.time)

    def __enter__(self) -> TrackFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with ExitStack() as stack:
            for writer in (self._video, self._coco):
                if writer is not None:
                    stack.callback(writer.finish)
