"""Archives for the servers that score videos: each in its server's layout, checked before anything is written.

| layout | member of the zip | mask |
|---|---|---|
| ``youtube_vos_2018``, ``youtube_vos_2019`` | ``Annotations/<video>/<stem>.png`` | palette, ids |
| ``ref_youtube_vos`` | ``Annotations/<video>/<sentence's number>/<stem>.png`` | grey, 0 and 255 |
| ``mose``, ``lvos``, ``davis`` | ``<video>/<stem>.png`` | palette, ids |

An archive is whole or not there. Its members are sorted and bear no time, so that the same masks give the same bytes.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from sam_uniref.data.formats.files import load_palette_ids, relative_path
from sam_uniref.eval.asked_videos import AskedVideo
from sam_uniref.eval.id_maps import BACKGROUND, IdMap, values_in
from sam_uniref.state import whole_file
from sam_uniref.track_files import LARGEST_PALETTE_ID, palette_png

MaskSource = Callable[[str, str], IdMap | None]
"""The map of ids ``(H, W)`` of a video's name and a frame's stem; None: there is none."""

# The earliest time that a zip file can tell.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_READABLE = 0o644 << 16
_UNIX = 3
_WHITE = 255


@dataclass(frozen=True)
class Layout:
    """How a server wants its archive.

    Attributes:
        folder: That all videos are in; empty for the archive's root.
        binary: Whether masks are 0 and 255 of one object each.
    """

    folder: str = ""
    binary: bool = False

    def member(self, video: str, stem: str) -> str:
        """Name of a frame's mask in the archive."""
        return "/".join(part for part in (self.folder, video, f"{stem}.png") if part)

    def encode(self, ids: IdMap) -> bytes:
        """A mask as the server's PNG."""
        if not self.binary:
            return palette_png(ids)
        file = io.BytesIO()
        PILImage.fromarray(np.where(ids != BACKGROUND, _WHITE, 0).astype(np.uint8)).save(file, format="PNG")
        return file.getvalue()


LAYOUTS = {
    "youtube_vos_2018": Layout("Annotations"),
    "youtube_vos_2019": Layout("Annotations"),
    "ref_youtube_vos": Layout("Annotations", binary=True),
    "mose": Layout(),
    "lvos": Layout(),
    "davis": Layout(),
}


def masks_in_folder(folder: str | Path) -> MaskSource:
    """Masks that are PNGs of ids, ``<video>/<stem>.png``, in whatever colours and sizes people wrote them.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")

    def load(video: str, stem: str) -> IdMap | None:
        path = root / video / f"{stem}.png"
        return load_palette_ids(path) if path.is_file() else None

    return load


def write_submission(path: str | Path, layout: str, asked: Sequence[AskedVideo], masks: MaskSource) -> None:
    """Write an archive, after every mask was checked.

    Args:
        path: The zip file. An old one stays until the new one is whole.
        layout: One of :data:`LAYOUTS`.
        asked: What the server wants.
        masks: Where they come from; asked twice for each, and has the same answer.

    Raises:
        ValueError: If the layout is unknown, or naming the first mask that is missing or odd.
        OSError: If the archive cannot be written.
    """
    form = named_layout(layout)
    check_masks(asked, masks)
    members = sorted((form.member(video.name, stem), video.name, stem) for video in asked for stem in video.stems)
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for member, video, stem in members:
            info = zipfile.ZipInfo(member, date_time=_NO_TIME)
            info.create_system, info.external_attr = _UNIX, _READABLE
            ids = masks(video, stem)
            if ids is None:
                raise ValueError(f"the mask of {video}/{stem} was there, and is not there any more")
            # A PNG is compressed already.
            archive.writestr(info, form.encode(ids), compress_type=zipfile.ZIP_STORED)


def check_masks(asked: Sequence[AskedVideo], masks: MaskSource) -> None:
    """Look at every mask that is asked for.

    Raises:
        ValueError: Naming the first that is missing, broken, of another size, or has an id that is not asked for; or
            if what is asked for can't be in an archive.
    """
    _check_asked(asked)
    for video in asked:
        size = video.size
        for stem in video.stems:
            where = f"{video.name}/{stem}"
            try:
                ids = masks(video.name, stem)
            except ValueError as error:
                raise ValueError(f"the mask of {where} is broken: {error}") from error
            if ids is None:
                raise ValueError(f"the mask of {where} is missing; the server asks for it")
            _check_ids(where, ids, video.object_ids, size)
            size = (ids.shape[0], ids.shape[1])


def check_submission(path: str | Path, layout: str, asked: Sequence[AskedVideo]) -> None:
    """Look at an archive as it would be sent, whoever wrote it.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If the layout is unknown, the file is no zip, or naming the first member that is missing, not asked
            for, broken, of the wrong kind or size, or has an id that is not asked for.
    """
    form = named_layout(layout)
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no archive {path}")
    wanted = {form.member(video.name, stem) for video in asked for stem in video.stems}
    try:
        with zipfile.ZipFile(path) as archive:
            there = {name for name in archive.namelist() if not name.endswith("/")}
            for names, problem in ((wanted - there, "is missing"), (there - wanted, "is not asked for")):
                if names:
                    raise ValueError(f"{path}: {min(names)} {problem}, as the first of {len(names)}")
            check_masks(asked, lambda video, stem: _decode(archive.read(form.member(video, stem)), form))
    except (
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
    ) as error:  # the last: of a password
        raise ValueError(f"{path} is no zip file that can be read ({error})") from error


def named_layout(name: str) -> Layout:
    """A server's layout.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in LAYOUTS:
        raise ValueError(f"a layout is one of {sorted(LAYOUTS)}, got {name!r}")
    return LAYOUTS[name]


def _check_asked(asked: Sequence[AskedVideo]) -> None:
    """Refuse what no archive can hold."""
    if not any(video.stems for video in asked):
        raise ValueError("no frame of any video is asked for")
    names = [f"{video.name}/{stem}" for video in asked for stem in video.stems]
    if len({*names}) < len(names):
        raise ValueError(f"{next(name for name, times in Counter(names).items() if times > 1)} is asked for twice")
    for video in asked:
        relative_path(video.name)
        most = max(video.object_ids, default=0)
        if most > LARGEST_PALETTE_ID:
            raise ValueError(f"video {video.name} has the id {most}; a PNG holds ids up to {LARGEST_PALETTE_ID}")


def _check_ids(where: str, ids: IdMap, allowed: frozenset[int], size: tuple[int, int] | None) -> None:
    """Refuse a map of another shape, or with other ids."""
    if ids.ndim != 2 or 0 in ids.shape:
        raise ValueError(f"the mask of {where} must be (H, W), got {ids.shape}")
    if size is not None and ids.shape != size:
        raise ValueError(
            f"the mask of {where} is {ids.shape[1]}x{ids.shape[0]}, but those of its video are {size[1]}x{size[0]} "
            "(width x height)"
        )
    strange = [value for value in values_in(ids) if value != BACKGROUND and value not in allowed]
    if strange:
        raise ValueError(f"the mask of {where} has the id {strange[0]}; asked for are {sorted(allowed)}")


def _decode(png: bytes, form: Layout) -> IdMap:
    """What a server reads from a member.

    Raises:
        ValueError: If it is no whole PNG, or has colours in place of ids.
    """
    try:
        with PILImage.open(io.BytesIO(png), formats=["PNG"]) as picture:
            values = np.array(picture)
            mode = picture.mode
    except (OSError, SyntaxError, PILImage.DecompressionBombError) as error:
        raise ValueError(f"it is no whole PNG ({error})") from error
    if mode not in ("P", "L", "1"):
        raise ValueError(f"it must be a palette or a grey picture, got one of mode {mode}")
    if not form.binary:
        return values.astype(np.uint8)
    if len({*values_in(values)} - {BACKGROUND}) > 1:
        raise ValueError("it must have one value beside 0, since it is of one object")
    return (values != BACKGROUND).astype(np.uint8)
