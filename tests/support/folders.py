"""A small made-up folder in the layouts that the folder reader knows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

_PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [0] * (252 * 3)
SIZE = (48, 64)


def save_ids(path: Path, ids: np.ndarray) -> None:
    """A palette PNG of object ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(ids.astype(np.uint8), mode="P")
    picture.putpalette(_PALETTE)
    picture.save(path)


def save_picture(path: Path, ids: np.ndarray, seed: int) -> None:
    """Noise with one flat colour an object id."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 80, (*ids.shape, 3), dtype=np.uint8)
    for object_id in np.unique(ids)[1:]:
        pixels[ids == object_id] = (90 + 60 * object_id, 255 - 60 * object_id, 128)
    Image.fromarray(pixels).save(path, quality=95)


def boxes(*corners: tuple[int, int, int, int]) -> np.ndarray:
    """A map of ids: box k, as (top, left, bottom, right), is object k + 1."""
    ids = np.zeros(SIZE, np.int64)
    for k, (top, left, bottom, right) in enumerate(corners):
        ids[top:bottom, left:right] = k + 1
    return ids


def make_folder(root: Path) -> Path:
    """Two classes of three pictures, a clip of four frames with masks for two of them, a still, sentences."""
    for kind, name in enumerate(("disc", "bar")):
        for number in range(3):
            ids = boxes((8 + 4 * number, 8 + 20 * kind, 28 + 4 * number, 30 + 20 * kind))
            save_picture(root / "classes" / name / f"{number}.jpg", ids, 10 * kind + number)
            save_ids(root / "classes" / name / f"{number}.png", ids)
    for frame in range(4):
        ids = boxes((10, 5 + 3 * frame, 30, 20 + 3 * frame), (20, 40, 44, 60))
        save_picture(root / "clips" / "walk" / "images" / f"{frame:05d}.jpg", ids, 100 + frame)
        if frame in (0, 2):
            save_ids(root / "clips" / "walk" / "masks" / f"{frame:05d}.png", ids)
    still = boxes((5, 5, 40, 30))
    save_picture(root / "images" / "still.jpg", still, 7)
    (root / "masks").mkdir(exist_ok=True)
    Image.fromarray((still > 0).astype(np.uint8) * 255).save(root / "masks" / "still.png")
    sentences = [
        {"image": "classes/disc/0.jpg", "object": 1, "text": "the red thing on the left"},
        {"image": "classes/bar/0.jpg", "object": 1, "text": "a bright bar"},
        {"image": "images/still.jpg", "object": 1, "text": "the large box"},
        {"clip": "walk", "object": 1, "text": "the walking box"},
        {"clip": "walk", "object": 2, "text": "the standing box"},
    ]
    (root / "expressions.jsonl").write_text("\n".join(json.dumps(s) for s in sentences) + "\n")
    return root


def make_video(
    frames: Path, masks: Path | None, maps: dict[str, np.ndarray], *, masked: set[str] | None = None
) -> None:
    """A folder of pictures of id maps, by stem, and one of masks, of all of them or of those ``masked``."""
    for number, (stem, ids) in enumerate(maps.items()):
        save_picture(frames / f"{stem}.jpg", ids, number)
        if masks is not None and (masked is None or stem in masked):
            save_ids(masks / f"{stem}.png", ids)
