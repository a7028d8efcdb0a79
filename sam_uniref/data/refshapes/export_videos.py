"""RefShapes clips in the layouts of video data sets whose masks are PNGs of object ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sam_uniref.data.refshapes.dataset import SPLITS, NamedClip, RefShapesDataset
from sam_uniref.data.refshapes.files import write_ids, write_jpeg, write_json, write_text

# YouTube-VOS and LVOS give every 5th frame of their videos.
_STEP = 5


def clips_of(dataset: RefShapesDataset, split: str, count: int) -> dict[str, NamedClip]:
    """So many clips by name; of ``train``, or of validation."""
    return {f"{split}{i:04d}": dataset.clip(i, "train" if split == "train" else "validation") for i in range(count)}


def write_davis(root: Path, dataset: RefShapesDataset, count: int) -> Path:
    """``DAVIS/JPEGImages/480p``, ``Annotations/480p``, ``ImageSets/2017``; the ids of the first frame alone."""
    folder = root / "DAVIS"
    for split, listed in (("train", "train"), ("validation", "val")):
        clips = clips_of(dataset, split, count)
        for name, clip in clips.items():
            # DAVIS annotates what is there from the start; objects that enter later are background.
            there = sum(first == 0 for first in clip.first_frames.values())
            for t, (image, ids) in enumerate(zip(clip.frames, clip.ids, strict=True)):
                write_jpeg(folder / "JPEGImages" / "480p" / name / f"{plain_stem(t)}.jpg", image)
                write_ids(
                    folder / "Annotations" / "480p" / name / f"{plain_stem(t)}.png", np.where(ids <= there, ids, 0)
                )
        write_text(folder / "ImageSets" / "2017" / f"{listed}.txt", "".join(f"{name}\n" for name in clips))
    return folder


def write_youtube_vos(root: Path, dataset: RefShapesDataset, count: int) -> Path:
    """``train`` and ``valid`` of YouTube-VOS; in ``valid`` the masks of first appearances alone."""
    folder = root / "youtube-vos"
    for split in SPLITS:
        clips = clips_of(dataset, split, count)
        target = folder / ("train" if split == "train" else "valid")
        for name, clip in clips.items():
            write_frames(target / "JPEGImages" / name, clip, _stem)
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
    train = clips_of(dataset, "train", count)
    for name, clip in train.items():
        write_frames(folder / "train" / "JPEGImages" / name, clip, _stem)
        for t, ids in enumerate(clip.ids):
            write_ids(folder / "train" / "Annotations" / name / f"{_stem(t)}.png", ids)
    write_json(folder / "train" / "meta.json", {"videos": {n: _objects(c, True) for n, c in train.items()}})
    # The second half of the validation clips stands for the test videos.
    others = {f"validation{i:04d}": dataset.clip(i) for i in range(2 * count)}
    test = dict(list(others.items())[count:])
    for name, clip in others.items():
        place = folder / ("test" if name in test else "valid")
        write_frames(place / "JPEGImages" / name, clip, _stem)
    for split, clips in (("train", train), ("valid", others), ("test", test)):
        videos = {name: _expressions(clip, with_ids=split == "train") for name, clip in clips.items()}
        write_json(folder / "meta_expressions" / split / "meta_expressions.json", {"videos": videos})
    return folder


def plain_stem(frame: int) -> str:
    """The name of a frame where every frame of the video is given."""
    return f"{frame:05d}"


def _stem(frame: int) -> str:
    """The name of a clip's frame among those of the video that it would be every 5th frame of."""
    return f"{_STEP * frame:05d}"


def write_frames(folder: Path, clip: NamedClip, stem: Callable[[int], str]) -> None:
    """All frames of a clip; ``stem`` gives their names."""
    for t, image in enumerate(clip.frames):
        write_jpeg(folder / f"{stem(t)}.jpg", image)


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


# ---- LVOS ----


def write_lvos(root: Path, dataset: RefShapesDataset, count: int) -> Path:
    """``train``, ``valid`` and ``test`` of LVOS version 1; in ``test`` the masks of first appearances alone."""
    folder = root / "LVOS"
    others = clips_of(dataset, "validation", 2 * count)
    names = list(others)
    splits = {
        "train": clips_of(dataset, "train", count),
        "valid": {name: others[name] for name in names[:count]},
        "test": {name: others[name] for name in names[count:]},
    }
    for split, clips in splits.items():
        for name, clip in clips.items():
            write_frames(folder / split / "JPEGImages" / name, clip, _long_stem)
            for t, ids in enumerate(clip.ids):
                if split != "test" or t in clip.first_frames.values():
                    write_ids(folder / split / "Annotations" / name / f"{_long_stem(t)}.png", ids)
        meta = {name: _ranges(clip) for name, clip in clips.items()}
        write_json(folder / split / f"{split}_meta.json", {"videos": meta})
        if split != "test":
            said = {name: _captions(clip, meta[name]) for name, clip in clips.items()}
            write_json(folder / split / f"{split}_expression_meta.json", {"videos": said})
    return folder


def _long_stem(frame: int) -> str:
    """Of eight digits, from 1."""
    return f"{_STEP * frame + 1:08d}"


def _ranges(clip: NamedClip) -> dict[str, Any]:
    """A video of the meta file; as in the original, numbers are strings."""
    objects = {}
    for number, first in clip.first_frames.items():
        last = int(np.flatnonzero((clip.ids == number).any(axis=(1, 2)))[-1])
        span = {"start": _long_stem(first), "end": _long_stem(last), "frame_nums": str(last - first)}
        objects[str(number)] = {"frame_range": span}
    return {"objects": objects}


def _captions(clip: NamedClip, video: dict[str, Any]) -> dict[str, Any]:
    """The same with a sentence an object, of those that have one."""
    said = {str(number): texts[0] for number, texts in clip.sentences.items() if texts}
    return {"objects": {key: video["objects"][key] | {"caption": text} for key, text in said.items()}}


# ---- MOSE ----


def write_mose(root: Path, dataset: RefShapesDataset, count: int) -> Path:
    """``train`` and ``valid`` of MOSE with their meta files; in ``valid`` the first frame's masks alone."""
    folder = root / "MOSE"
    for split in SPLITS:
        place = "train" if split == "train" else "valid"
        videos: dict[str, Any] = {}
        for name, clip in clips_of(dataset, split, count).items():
            write_frames(folder / place / "JPEGImages" / name, clip, plain_stem)
            for t, ids in enumerate(clip.ids[: None if place == "train" else 1]):
                write_ids(folder / place / "Annotations" / name / f"{plain_stem(t)}.png", ids)
            there = [str(k) for k, first in clip.first_frames.items() if place == "train" or first == 0]
            # Both forms occur.
            videos[name] = {"objects": there if place == "train" else {key: {} for key in there}}
        write_json(folder / place / f"meta_{place}.json", {"videos": videos})
    return folder
