"""RefShapes on disk, in the layouts of published data sets, so that their readers can be tried without them.

Every file is written whole or not at all. Pictures are JPEG as in the originals; masks give every pixel back.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sam_uniref.data.refshapes.dataset import SPLITS, NamedClip, RefShapesDataset
from sam_uniref.data.refshapes.draws import Draws
from sam_uniref.data.refshapes.export_referring import write_coco, write_refcoco
from sam_uniref.data.refshapes.fewshot import draw_class_scene
from sam_uniref.data.refshapes.files import write_binary, write_ids, write_jpeg, write_json, write_text
from sam_uniref.data.refshapes.palette import STYLES
from sam_uniref.data.refshapes.scene import render
from sam_uniref.data.refshapes.shapes import SEEN_SHAPES, UNSEEN_SHAPES
from sam_uniref.images import RGB, Mask

PICTURES_A_CLASS = 10
# YouTube-VOS gives every 5th frame of its videos.
_STEP = 5


def export(layout: str, root: str | Path, count: int, *, seed: int = 0, side: int = 128) -> Path:
    """Write samples in the layout of a published data set.

    Args:
        layout: One of `LAYOUTS`.
        root: Folder to write into; made if it is not there.
        count: Scenes of each split (``refcoco``, ``coco``), classes of each split, at most as many as there are
            shapes for it (``fss1000``), or clips of each split (the others).
        seed: Of RefShapes.
        side: Of the pictures in pixels.

    Returns:
        The data set's own folder under ``root``.

    Raises:
        ValueError: If the layout is unknown, or the count or side is too small.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {sorted(LAYOUTS)}, got {layout!r}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    task = {"refcoco": "ris", "coco": "ris", "fss1000": "fss"}.get(layout, "rvos")
    dataset = RefShapesDataset(layout, task, seed=seed, side=side, episodes=2 * count)  # type: ignore[arg-type]
    return LAYOUTS[layout](Path(root), dataset, count)


# ---- FSS-1000 ----


def write_fss1000(root: Path, dataset: RefShapesDataset, count: int) -> Path:
    """``FSS-1000/<class>/{1..10}.jpg`` and ``.png``, and ``trn.txt``, ``val.txt``, ``test.txt`` beside the classes."""
    folder = root / "FSS-1000"
    half = len(UNSEEN_SHAPES) // 2
    splits = {"trn": SEEN_SHAPES[:count], "val": UNSEEN_SHAPES[:half][:count], "test": UNSEEN_SHAPES[half:][:count]}
    for split, shapes in splits.items():
        for shape in shapes:
            for number in range(1, PICTURES_A_CLASS + 1):
                image, mask = class_picture(dataset, shape, number)
                write_jpeg(folder / shape / f"{number}.jpg", image)
                write_binary(folder / shape / f"{number}.png", mask)
        # The published test.txt has the line ends of another system: readers must strip them.
        end = "\r\n" if split == "test" else "\n"
        write_text(folder / f"{split}.txt", "".join(f"{shape}{end}" for shape in shapes))
    return folder


def class_picture(dataset: RefShapesDataset, shape: str, number: int) -> tuple[RGB, Mask]:
    """A picture of a class: ``(side, side, 3)`` uint8 RGB, and the mask of its one object, ``(side, side)`` bool."""
    pool = SEEN_SHAPES if shape in SEEN_SHAPES else UNSEEN_SHAPES
    draws = Draws(dataset.seed, STYLES.index(dataset.style), len(pool), pool.index(shape), number)
    drawn = draw_class_scene(draws, dataset.style, shape, pool, (0, 2))
    image, ids = render(drawn.scene, dataset.side)
    return image, ids == drawn.target + 1


# ---- Videos ----


def _clips(dataset: RefShapesDataset, split: str, count: int) -> dict[str, NamedClip]:
    """Clips by name."""
    return {f"{split}{i:04d}": dataset.clip(i, "train" if split == "train" else "validation") for i in range(count)}


def write_davis(root: Path, dataset: RefShapesDataset, count: int) -> Path:
    """``DAVIS/JPEGImages/480p``, ``Annotations/480p``, ``ImageSets/2017``; the ids of the first frame alone."""
    folder = root / "DAVIS"
    for split, listed in (("train", "train"), ("validation", "val")):
        clips = _clips(dataset, split, count)
        for name, clip in clips.items():
            # DAVIS annotates what is there from the start; objects that enter later are background.
            there = sum(first == 0 for first in clip.first_frames.values())
            for t, (image, ids) in enumerate(zip(clip.frames, clip.ids, strict=True)):
                write_jpeg(folder / "JPEGImages" / "480p" / name / f"{t:05d}.jpg", image)
                write_ids(folder / "Annotations" / "480p" / name / f"{t:05d}.png", np.where(ids <= there, ids, 0))
        write_text(folder / "ImageSets" / "2017" / f"{listed}.txt", "".join(f"{name}\n" for name in clips))
    return folder


def write_youtube_vos(root: Path, dataset: RefShapesDataset, count: int) -> Path:
    """``train`` and ``valid`` of YouTube-VOS; in ``valid`` the masks of first appearances alone."""
    folder = root / "youtube-vos"
    for split in SPLITS:
        clips = _clips(dataset, split, count)
        target = folder / ("train" if split == "train" else "valid")
        for name, clip in clips.items():
            _write_frames(target / "JPEGImages" / name, clip)
            for t, ids in enumerate(clip.ids):
                new = [number for number, first in clip.first_frames.items() if first == t]
                if split == "train":
                    write_ids(target / "Annotations" / name / f"{_stem(t)}.png", ids)
                elif new:
                    write_ids(target / "Annotations" / name / f"{_stem(t)}.png", np.where(np.isin(ids, new), ids, 0))
        write_json(target / "meta.json", {"videos": {n: _objects(c, split == "train") for n, c in clips.items()}})
    return folder


def write_ref_youtube_vos(root: Path, dataset: RefShapesDataset, count: int) -> Path:
    """``train``, ``valid`` and ``meta_expressions`` of Ref-YouTube-VOS; ``valid`` lists the test videos as well."""
    folder = root / "ref-youtube-vos"
    train = _clips(dataset, "train", count)
    for name, clip in train.items():
        _write_frames(folder / "train" / "JPEGImages" / name, clip)
        for t, ids in enumerate(clip.ids):
            write_ids(folder / "train" / "Annotations" / name / f"{_stem(t)}.png", ids)
    write_json(folder / "train" / "meta.json", {"videos": {n: _objects(c, True) for n, c in train.items()}})
    # The second half of the validation clips stands for the test videos.
    others = {f"validation{i:04d}": dataset.clip(i) for i in range(2 * count)}
    test = dict(list(others.items())[count:])
    for name, clip in others.items():
        place = folder / ("test" if name in test else "valid")
        _write_frames(place / "JPEGImages" / name, clip)
    for split, clips in (("train", train), ("valid", others), ("test", test)):
        videos = {name: _expressions(clip, with_ids=split == "train") for name, clip in clips.items()}
        write_json(folder / "meta_expressions" / split / "meta_expressions.json", {"videos": videos})
    return folder


def _stem(frame: int) -> str:
    """The name of a clip's frame among those of the video that it would be every 5th frame of."""
    return f"{_STEP * frame:05d}"


def _write_frames(folder: Path, clip: NamedClip) -> None:
    for t, image in enumerate(clip.frames):
        write_jpeg(folder / f"{_stem(t)}.jpg", image)


def _objects(clip: NamedClip, only_seen: bool) -> dict[str, Any]:
    """A video of ``meta.json``: each object's frames, where it is seen or from where on it is asked for."""
    return {
        "objects": {
            str(number): {
                "category": "shape",
                "frames": [
                    _stem(t) for t, ids in enumerate(clip.ids) if ((ids == number).any() if only_seen else t >= first)
                ],
            }
            for number, first in clip.first_frames.items()
        }
    }


def _expressions(clip: NamedClip, *, with_ids: bool) -> dict[str, Any]:
    """A video of ``meta_expressions.json``."""
    said = [(number, text) for number, texts in clip.sentences.items() for text in texts]
    entries = [{"exp": text, "obj_id": str(number)} if with_ids else {"exp": text} for number, text in said]
    return {
        "expressions": {str(k): entry for k, entry in enumerate(entries)},
        "frames": [_stem(t) for t in range(len(clip.frames))],
    }


LAYOUTS: dict[str, Callable[[Path, RefShapesDataset, int], Path]] = {
    "refcoco": write_refcoco,
    "coco": write_coco,
    "fss1000": write_fss1000,
    "davis2017": write_davis,
    "youtube_vos": write_youtube_vos,
    "ref_youtube_vos": write_ref_youtube_vos,
}
"""What writes each layout."""
