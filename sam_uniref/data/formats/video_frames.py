"""Frames of a video, looked at one by one: what is left of them, at one size, and which number each has then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as PILImage

from sam_uniref.data.formats.files import sound_picture
from sam_uniref.data.prepared.problems import Problems


@dataclass(frozen=True)
class SoundFrames:
    """Frames that are whole.

    Attributes:
        size: ``(height, width)`` of each in pixels.
        numbers: Of each, by its key, rising.
        paths: Relative to the root, by number.
    """

    size: tuple[int, int]
    numbers: Mapping[str, int]
    paths: tuple[str, ...]


def sound_frames(
    root: Path,
    frames: Mapping[str, str],
    masked: Collection[str],
    name: str,
    problems: Problems,
    *,
    size: tuple[int, int] | None = None,
) -> SoundFrames | None:
    """The frames that can be used; None if there are none. Each that can't is counted in ``problems``.

    Args:
        root: Of the download.
        frames: Paths relative to it, in order, by a key that masks are joined by.
        masked: Keys of frames that have a mask: these are decoded to their end, of the others the header and the
            end of the file are looked at.
        name: Of the video.
        problems: Takes the reasons.
        size: ``(height, width)`` that the annotations tell; by default the one that most frames have.
    """
    sizes: dict[str, tuple[int, int]] = {}
    for key, relative in frames.items():
        found = sound_picture(root, relative, problems, size=size)
        if found is None:
            continue
        if key in masked and not _decodes(root / relative):
            problems.broken("broken or cut-off picture", relative)
            continue
        sizes[key] = found
    if not sizes:
        problems.broken("video without a usable frame", name)
        return None
    usual = Counter(sizes.values()).most_common(1)[0][0]
    for key, found in sizes.items():
        if found != usual:
            problems.broken(
                "frame of another size than its video",
                f"{frames[key]}: {found[1]}x{found[0]}, not {usual[1]}x{usual[0]}",
            )
    kept = [key for key, found in sizes.items() if found == usual]
    return SoundFrames(usual, {key: number for number, key in enumerate(kept)}, tuple(frames[key] for key in kept))


def _decodes(path: Path) -> bool:
    """Whether all of a picture can be read. A JPEG is read at an eighth of its size, which takes all of its data."""
    try:
        with PILImage.open(path) as picture:
            picture.draft("RGB", (1, 1))
            picture.load()
    except (OSError, SyntaxError, PILImage.DecompressionBombError):
        return False
    return True
