r"""Draw what a model does with a clip: tracked from masks in the first frame, and by a sentence alone.

    python docs/moving_picture.py docs/tiny/tracking.webp

The clip is the first of RefShapes validation, not a chosen one, drawn with more frames; the model is the packaged one
unless another is named. Writes an animated WebP.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sam_uniref import SamRef
from sam_uniref.data.refshapes import NamedClip, RefShapesDataset
from sam_uniref.images import RGB
from sam_uniref.palette import id_color
from sam_uniref.segmentation import overlay_mask

SCALE, GAP, CAPTION = 2, 8, 26
FRAMES_A_SECOND = 8


def answers(model: SamRef, clip: NamedClip, object_id: int) -> Iterator[tuple[RGB, RGB, RGB]]:
    """A frame, the same with all objects tracked from their masks, and with one found by its first sentence."""
    masks: dict[int, dict[int, np.ndarray]] = {}
    for number, frame in clip.first_frames.items():
        masks.setdefault(frame, {})[number] = clip.ids[frame] == number
    by_mask = model.track(list(clip.frames), masks=masks.pop(0), new_masks=masks)
    by_sentence = model.track(list(clip.frames), texts={object_id: clip.sentences[object_id][0]})
    for frame, tracked, named in zip(clip.frames, by_mask, by_sentence, strict=True):
        yield frame, painted(frame, tracked.masks), painted(frame, named.masks)


def painted(frame: RGB, masks: dict[int, np.ndarray]) -> RGB:
    """The frame with each object in its colour."""
    for object_id, mask in masks.items():
        frame = overlay_mask(frame, mask, id_color(object_id), 0.6)
    return frame


def with_captions(panels: Iterable[RGB], captions: Iterable[str]) -> Image.Image:
    """Panels in a row, each enlarged and with its caption below."""
    font = ImageFont.load_default(size=15)
    tiles = []
    for panel, caption in zip(panels, captions, strict=True):
        width, height = SCALE * panel.shape[1], SCALE * panel.shape[0]
        tile = Image.new("RGB", (width + GAP, height + CAPTION), "white")
        tile.paste(Image.fromarray(panel).resize((width, height), Image.Resampling.BICUBIC), (GAP // 2, 0))
        ImageDraw.Draw(tile).text(((width + GAP) / 2, height + CAPTION / 2), caption, "black", font, anchor="mm")
        tiles.append(np.asarray(tile))
    return Image.fromarray(np.concatenate(tiles, axis=1))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the .webp to write")
    parser.add_argument("--model", default="tiny", help="folder that save_pretrained wrote, or a packaged model's name")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--object", type=int, default=1, help="whose sentence is asked")
    arguments = parser.parse_args()
    model = SamRef.from_pretrained(arguments.model).eval()
    clip = RefShapesDataset("refshapes", "vos", frames=arguments.frames, episodes=1).clip(0)
    sentence = clip.sentences[arguments.object][0]
    captions = ("the clip", "masks in the first frame", f"“{sentence}”")
    pictures = [with_captions(panels, captions) for panels in answers(model, clip, arguments.object)]
    first, *others = pictures
    first.save(
        arguments.out,
        save_all=True,
        append_images=others,
        duration=1000 // FRAMES_A_SECOND,
        loop=0,
        quality=60,
        method=6,
    )


if __name__ == "__main__":
    main()
