"""What a benchmark's server asks for: videos, their frames, and the ids that may be in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sam_uniref.data.formats.files import load_palette_ids
from sam_uniref.data.formats.video_listing import read_videos, value_of
from sam_uniref.eval.id_maps import ids_in
from sam_uniref.eval.youtube_vos import read_objects
from sam_uniref.images import IMAGE_SUFFIXES, image_size
from sam_uniref.video import by_number


@dataclass(frozen=True)
class AskedVideo:
    """One video, or in Ref-YouTube-VOS one sentence about one.

    Attributes:
        name: ``<video>``, or ``<video>/<sentence's number>``.
        stems: Of the frames whose masks are asked for.
        object_ids: That may be in them.
        size: ``(height, width)`` of its masks; None where nothing tells it, and they must only be alike.
    """

    name: str
    stems: tuple[str, ...]
    object_ids: frozenset[int]
    size: tuple[int, int] | None = None


def asked_of_youtube_vos(meta: Path) -> list[AskedVideo]:
    """YouTube-VOS: what ``valid/meta.json`` lists, frames of all objects of a video together.

    Masks are of the size of those given in ``valid/Annotations``, or of the pictures in ``valid/JPEGImages``, if these
    are there.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is broken, or another release's.
    """
    ids: dict[str, set[int]] = {}
    stems: dict[str, set[str]] = {}
    for (name, object_id), listed in read_objects(meta).items():
        ids.setdefault(name, set()).add(object_id)
        stems.setdefault(name, set()).update(listed.stems)
    masks, pictures = meta.parent / "Annotations", meta.parent / "JPEGImages"
    return [
        AskedVideo(
            name, tuple(sorted(stems[name])), frozenset(ids[name]), _size_in(masks / name) or _size_in(pictures / name)
        )
        for name in sorted(ids)
    ]


def asked_of_ref_youtube_vos(valid: Path, test: Path | None = None) -> list[AskedVideo]:
    """Ref-YouTube-VOS: every sentence of the file for validation about a video that is not in the one for the test.

    Args:
        valid: ``meta_expressions/valid/meta_expressions.json``, which lists the test videos as well. Masks are of the
            size of the pictures in ``valid/JPEGImages`` beside ``meta_expressions``, if these are there.
        test: ``meta_expressions/test/meta_expressions.json``; None: all videos are asked for.

    Raises:
        FileNotFoundError: If one is not there.
        ValueError: If one is broken, or another release's.
    """
    left_out = read_videos(test).keys() if test is not None else set[str]()
    asked = []
    for name, entry in sorted(read_videos(valid).items()):
        if name not in left_out:
            where = f"{valid} video {name}"
            size = _size_in(valid.parent.parent.parent / "valid" / "JPEGImages" / name)
            stems = tuple(str(stem) for stem in value_of(entry, "frames", list, where))
            for number in value_of(entry, "expressions", dict, where):
                asked.append(AskedVideo(f"{name}/{number}", stems, frozenset({1}), size))
    return asked


def asked_of_folders(frames: Path, masks: Path, videos: Iterable[str] | None = None) -> list[AskedVideo]:
    """MOSE, LVOS, DAVIS: every frame of a video, and the ids and the size of the masks that are given of it.

    Args:
        frames: Folder of the videos' folders of pictures, ``JPEGImages``.
        masks: Folder of the videos' folders of given masks, ``Annotations``.
        videos: Which; by default all of ``frames``.

    Raises:
        FileNotFoundError: If a video has no frames or no mask.
        ValueError: If a mask is broken, or a video's are not of one size.
    """
    if not frames.is_dir():
        raise FileNotFoundError(f"there is no folder {frames}")
    names = sorted(videos) if videos is not None else sorted(f.name for f in frames.iterdir() if f.is_dir())
    asked = []
    for name in names:
        folder = frames / name
        pictures = [f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES] if folder.is_dir() else []
        given = sorted((masks / name).glob("*.png"))
        for found, place in ((pictures, folder), (given, masks / name)):
            if not found:
                raise FileNotFoundError(f"there is no picture in {place}")
        object_ids: set[int] = set()
        sizes: dict[tuple[int, int], Path] = {}
        for mask in given:
            try:
                ids = load_palette_ids(mask)
            except ValueError as error:
                raise ValueError(f"{mask}: {error}") from error
            object_ids.update(ids_in(ids))
            sizes.setdefault((ids.shape[0], ids.shape[1]), mask)
        if len(sizes) > 1:
            raise ValueError(f"the masks of one video are not of one size: {' and '.join(map(str, sizes.values()))}")
        stems = tuple(picture.stem for picture in sorted(pictures, key=by_number))
        asked.append(AskedVideo(name, stems, frozenset(object_ids), next(iter(sizes))))
    return asked


def _size_in(folder: Path) -> tuple[int, int] | None:
    """``(height, width)`` of a video's first picture; None where its pictures are not there."""
    pictures = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES] if folder.is_dir() else []
    return image_size(min(pictures, key=by_number)) if pictures else None
