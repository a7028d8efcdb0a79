"""Videos as maps of ids, and their folders of PNGs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image as PILImage

from sam_uniref.track_files import save_palette

Maps = NDArray[np.uint8]

RECORDED = Path(__file__).parent.parent / "fixtures" / "metrics"
SEQUENCES = ("car-shadow", "judo", "lab-coat", "shooting")


def read_ids(folder: Path) -> Maps:
    """``(T, H, W)`` of a folder of palette PNGs."""
    return np.stack([np.array(PILImage.open(path)) for path in sorted(folder.glob("*.png"))])


def write_ids(folder: Path, maps: Maps, stems: Sequence[str] | None = None) -> Path:
    """A PNG a frame, 00000.png and on, or by stems."""
    for number, ids in enumerate(maps):
        save_palette(ids, folder / f"{stems[number] if stems else f'{number:05d}'}.png")
    return folder


def moving_objects(frames: int, objects: int, height: int = 24, width: int = 40, late: int = 0) -> Maps:
    """Squares that move to the right, a row of pictures each; the last one comes in frame ``late``."""
    maps = np.zeros((frames, height, width), np.uint8)
    side = height // (objects + 1)
    for t in range(frames):
        for k in range(objects):
            if k + 1 < objects or t >= late:
                top, left = k * side + k + 1, 2 + t
                maps[t, top : top + side - 1, left : left + side] = k + 1
    return maps


def recorded_davis(shared: Path) -> dict[str, Any]:
    """What the official programs say of the shared results."""
    recorded: dict[str, Any] = json.loads((shared / "reference" / "metrics" / "davis_jf.json").read_text())
    return recorded


def matched_ids(recorded: Mapping[str, Any], raw: Maps) -> Maps:
    """Proposals by the ids of the objects they were matched with; others are background."""
    relabelled = np.zeros(256, np.uint8)
    for true_id, predicted_id in recorded["gt_id_to_pred_id"].items():
        relabelled[predicted_id] = int(true_id)
    return relabelled[raw]


maps_of_one_size = st.tuples(st.integers(3, 5), st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(*(arrays(np.uint8, shape, elements=st.integers(0, 3)) for _ in range(2)))
)
