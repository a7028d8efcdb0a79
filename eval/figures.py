"""Pictures beside a page, and how they stand on it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image as PILImage

from sam_uniref import page
from sam_uniref.images import RGB

PICTURES = "pictures"
"""The folder of pictures beside a page."""


def write_figure(folder: Path, name: str, picture: RGB, alternative: str, caption: str, *, wide: bool = False) -> str:
    """Write a picture into a page's folder, and return its figure.

    Args:
        folder: Of the page; it has a folder `PICTURES`.
        name: Of the file, without its ending.
        picture: ``(H, W, 3)`` uint8 RGB.
        alternative: What it shows, for those who do not see it.
        caption: Below it.
        wide: Over the page's whole width.
    """
    source = f"{PICTURES}/{name}.png"
    PILImage.fromarray(picture).save(folder / source)
    return page.figure(source, alternative, caption, wide=wide)
