"""RefShapes on disk, in the layouts of published data sets, so that their readers can be tried without them.

Every file is written whole or not at all. Pictures are JPEG as in the originals; masks give every pixel back.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sam_uniref.data.refshapes.dataset import RefShapesDataset
from sam_uniref.data.refshapes.draws import Draws
from sam_uniref.data.refshapes.export_referring import write_coco, write_refcoco
from sam_uniref.data.refshapes.export_segmentations import write_mevis, write_ovis
from sam_uniref.data.refshapes.export_videos import (
    write_davis,
    write_lvos,
    write_mose,
    write_ref_youtube_vos,
    write_youtube_vos,
)
from sam_uniref.data.refshapes.fewshot import draw_class_scene
from sam_uniref.data.refshapes.files import write_binary, write_jpeg, write_text
from sam_uniref.data.refshapes.palette import STYLES
from sam_uniref.data.refshapes.scene import render
from sam_uniref.data.refshapes.shapes import SEEN_SHAPES, UNSEEN_SHAPES
from sam_uniref.images import RGB, Mask

PICTURES_A_CLASS = 10


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


LAYOUTS: dict[str, Callable[[Path, RefShapesDataset, int], Path]] = {
    "refcoco": write_refcoco,
    "coco": write_coco,
    "fss1000": write_fss1000,
    "davis2017": write_davis,
    "youtube_vos": write_youtube_vos,
    "ref_youtube_vos": write_ref_youtube_vos,
    "lvos": write_lvos,
    "mose": write_mose,
    "ovis": write_ovis,
    "mevis": write_mevis,
}
"""What writes each layout."""
