"""The careful way to ask: which of SAM's segments is meant, each looked at from as near as the examples.

At a picture's scale a small object, or one of another size than its example, says little of its shape. So the
segments that an answer may mean are cut out, as the examples are, so that all objects have one size, and asked about
again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from sam_uniref.everything import agreement, nearest_segment
from sam_uniref.images import RGB, Mask, load_image, load_mask
from sam_uniref.reference import MaskReference
from sam_uniref.segmentation import Segmentation, bounding_box
from sam_uniref.turned import TurnedImage, ask_turned, segment_turned, turned_references

# An object's share of what is cut out around it: enough of the surroundings stays to tell it from them.
_SHARE = 1 / 9


def segment_carefully(
    image: TurnedImage, *, text: str | None = None, examples: Sequence[MaskReference] | None = None
) -> Segmentation:
    """The slowest and surest way to ask: which of SAM's own segments is meant, some three hundred answers a picture.

    By examples the picture is asked in all quarter turns (`segment_turned`), and SAM's segments are looked at closely
    (`choose_closely`). With a sentence, which may name places, nothing is turned: it is the segment that the answer
    means (`nearest_segment`). Where there is none, SAM is asked once more by the answer (`SamRef.refine`).

    Args:
        image: The picture, with the model that is asked.
        text: A sentence that names one object.
        examples: One or more annotated images.

    Raises:
        FileNotFoundError: If an example's path does not exist.
        ValueError: If nothing is asked, or a sentence or an example is not as it must be.
    """
    if examples and text is None:
        answer = segment_turned(image, examples)
        meant = choose_closely(image, answer, examples)
    else:
        answer = image.model.segment(image.features, text=text, examples=examples)
        meant = nearest_segment(answer, image.segments)
    return meant or image.model.refine(image.own_features, answer)


def choose_closely(
    image: TurnedImage, answer: Segmentation, examples: Sequence[MaskReference], *, most: int = 5
) -> Segmentation | None:
    """The segment whose agreement with the answer, and with another one from nearby, is greatest in sum.

    Args:
        image: The picture, with the model that is asked.
        answer: What the examples point at in it, as `segment_turned` has it.
        examples: At least one.
        most: How many segments are looked at, those that agree best with the answer.

    Returns:
        One of the picture's segments, or None where SAM sees none.

    Raises:
        FileNotFoundError: If an example's path does not exist.
        ValueError: If there are no examples, one is not as it must be, or the answer is of another size.
    """
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    shares = agreement(answer, [segment.mask for segment in image.segments])
    likely = sorted(range(len(shares)), key=shares.__getitem__, reverse=True)[:most]
    if len(likely) < 2:
        return image.segments[likely[0]] if likely else None
    side = image.model.transform.size
    references = turned_references(image.model, [_example_from_nearby(example, side) for example in examples])

    def worth(index: int) -> float:
        picture, mask = cut_out(image.picture, image.segments[index].mask, side)
        near = ask_turned(TurnedImage(image.model, picture), references)
        return shares[index] + agreement(near, [mask])[0]

    return image.segments[max(likely, key=worth)]


def cut_out(image: RGB, mask: Mask, side: int) -> tuple[RGB, Mask]:
    """The square around an object in which it has a ninth of the area.

    It is no longer than the picture, and no shorter than the object.

    Args:
        image: ``(H, W, 3)`` uint8.
        mask: ``(H, W)`` bool, not empty.
        side: Of the result in pixels.

    Returns:
        ``(side, side, 3)`` uint8 and ``(side, side)`` bool. Beyond the picture its edge goes on.

    Raises:
        ValueError: If the mask is empty.
    """
    box = bounding_box(mask)
    if box is None:
        raise ValueError("there is nothing to cut out: the mask is empty")
    x0, y0, x1, y1 = box
    # Not from farther than the picture was seen from.
    length = max(min(float(np.sqrt(mask.sum() / _SHARE)), max(mask.shape)), x1 - x0, y1 - y0)
    left, top = (x0 + x1 - length) / 2, (y0 + y1 - length) / 2
    columns, rows = (np.arange(math.floor(edge), math.floor(edge + length) + 1) for edge in (left, top))
    height, width = mask.shape
    around = np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))
    inside = np.ix_((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
    drawn = np.zeros((len(rows), len(columns)), np.uint8)
    drawn[inside] = 255 * mask[around][inside]
    x, y = left - columns[0], top - rows[0]
    square = (x, y, x + length, y + length)
    picture, resized = (
        np.array(Image.fromarray(part).resize((side, side), Image.Resampling.BILINEAR, box=square))
        for part in (image[around], drawn)
    )
    return picture, resized > 127


def _example_from_nearby(example: MaskReference, side: int) -> MaskReference:
    """An example cut out; as it is where nothing of its mask would be left."""
    image = load_image(example.image)
    mask = load_mask(example.mask, image.shape[:2], object_id=example.object_id)
    if mask.any():
        picture, drawn = cut_out(image, mask, side)
        if drawn.any():
            return MaskReference(picture, drawn)
    return example
