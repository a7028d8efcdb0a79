"""RefShapes clips in the layouts of video data sets whose masks stand in a JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sam_uniref.data.refshapes.dataset import SPLITS, NamedClip, RefShapesDataset
from sam_uniref.data.refshapes.export_videos import clips_of, plain_stem, write_frames
from sam_uniref.data.refshapes.files import write_json
from sam_uniref.images import Mask
from sam_uniref.segmentation import encode_rle


def write_ovis(root: Path, dataset: RefShapesDataset, count: int) -> Path:
    """``train`` and ``valid`` of OVIS; the masks of ``valid`` are not given away."""
    folder = root / "ovis"
    for split in SPLITS:
        place = "train" if split == "train" else "valid"
        videos: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for name, clip in clips_of(dataset, split, count).items():
            write_frames(folder / place / name, clip, _image_stem)
            length, height, width = clip.ids.shape
            names = [f"{name}/{_image_stem(t)}.jpg" for t in range(length)]
            size = {"height": height, "width": width, "length": length}
            videos.append({"id": len(videos) + 1, "file_names": names, "license": 1, **size})
            for number in clip.first_frames:
                annotations.append(_annotation(len(annotations) + 1, len(videos), clip.ids == number))
        content: dict[str, Any] = {"info": {}, "licenses": [], "categories": [{"id": 1, "name": "shape"}]}
        content |= {"videos": videos, "annotations": annotations if place == "train" else None}
        write_json(folder / f"annotations_{place}.json", content)
    return folder


def _image_stem(frame: int) -> str:
    return f"img_{frame + 1:07d}"


def _annotation(number: int, video: int, masks: Mask) -> dict[str, Any]:
    """An object of a video, ``(T, H, W)`` bool; null where it is not seen."""
    return {
        "id": number,
        "video_id": video,
        "category_id": 1,
        "iscrowd": 0,
        "segmentations": [_uncompressed(mask) if mask.any() else None for mask in masks],
        "areas": [int(mask.sum()) or None for mask in masks],
    }


def _uncompressed(mask: Mask) -> dict[str, Any]:
    """Run-length encoding as a list of runs, column by column, beginning with background."""
    values = np.concatenate([[False], mask.ravel(order="F"), [not mask[-1, -1]]])
    changes = np.flatnonzero(values[1:] != values[:-1])
    return {"size": list(mask.shape), "counts": np.diff(changes, prepend=0).tolist()}


def write_mevis(root: Path, dataset: RefShapesDataset, count: int) -> Path:
    """``train``, ``valid_u`` and ``valid`` of MeViS; the masks of ``valid`` are not given away."""
    folder = root / "mevis"
    others = clips_of(dataset, "validation", 2 * count)
    names = list(others)
    splits = {
        "train": clips_of(dataset, "train", count),
        "valid_u": {name: others[name] for name in names[:count]},
        "valid": {name: others[name] for name in names[count:]},
    }
    for split, clips in splits.items():
        videos: dict[str, Any] = {}
        masks: dict[str, Any] = {}
        for name, clip in clips.items():
            write_frames(folder / split / "JPEGImages" / name, clip, plain_stem)
            first_id = len(masks)
            for number in clip.first_frames:
                masks[str(len(masks))] = [encode_rle(mask) if mask.any() else None for mask in clip.ids == number]
            videos[name] = _expressions(clip, first_id if split != "valid" else None)
        write_json(folder / split / "meta_expressions.json", {"videos": videos})
        if split != "valid":
            write_json(folder / split / "mask_dict.json", masks)
    return folder


def _expressions(clip: NamedClip, first_id: int | None) -> dict[str, Any]:
    """A video of ``meta_expressions.json``; the last expression means all objects.

    Args:
        clip: The video.
        first_id: Key of its first object's masks; None where they are not told.
    """
    numbers = list(clip.first_frames)
    said = [([number], text) for number, texts in clip.sentences.items() for text in texts]
    entries: dict[str, dict[str, Any]] = {}
    for key, (meant, text) in enumerate([*said, (numbers, "all shapes")]):
        entries[str(key)] = {"exp": text}
        if first_id is not None:
            places = [numbers.index(number) for number in meant]
            entries[str(key)] |= {"obj_id": places, "anno_id": [first_id + place for place in places]}
    return {"expressions": entries, "frames": [plain_stem(t) for t in range(len(clip.frames))]}
