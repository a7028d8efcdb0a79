"""The folder that a reader of the documentation is taken to work in, and small models in place of those not at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import make_folder, save_ids
from PIL import Image
from prepared_sets import image_row, write_prepared

from sam_uniref import SamRef, UniRef
from sam_uniref.data.refshapes import RefShapesDataset
from sam_uniref.hosts import HOST_NAMES
from sam_uniref.video_writing import write_video

FRAMES = 3


def make_reader_folder(root: Path) -> Path:
    """Pictures, an example, a clip as a video and as pictures, a folder to train on: small, and by the pages' names."""
    few = RefShapesDataset("shapes", "fss").episode(0)
    example = few.references[0]
    for name in ("street.jpg", "new.jpg", "pictures/1.jpg", "pictures/2.jpg"):
        _save(root / name, few.image)
    for name in ("cat", "examples/cat-1", "examples/cat-2"):
        _save(root / f"{name}.jpg", example.image)
        _save(root / f"{name}.png", example.mask.astype(np.uint8) * 255)
    clip = RefShapesDataset("shapes", "vos").clip(0)
    for number, frame in enumerate(clip.frames[:FRAMES]):
        _save(root / f"frames/{number:05d}.jpg", frame)
    save_ids(root / "first.png", clip.ids[0])
    write_video(root / "video.mp4", clip.frames[:FRAMES], frames_per_second=10)
    make_folder(root / "my_data")
    rows = [image_row(root / "pictures", number) for number in range(2)]
    write_prepared(root / "data" / "refcoco", root / "pictures", {"val": rows})
    return root


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every model that is asked for by a size or a folder be the packaged one, or a fresh UniRef as small.

    What is saved while the page runs is read as it is.
    """
    build, load = SamRef.from_sam, SamRef.from_pretrained
    fresh, load_uniref = UniRef.fresh, UniRef.from_pretrained

    def from_sam(size: Any, *given: Any, **options: Any) -> SamRef:
        if not isinstance(size, str):  # a model that the page has built
            return build(size, *given, **options)
        assert size in HOST_NAMES
        return build("tiny", checkpoint="tiny", text_encoder="tiny")

    def from_pretrained(folder: str | Path, *given: Any, **options: Any) -> SamRef:
        if str(folder) == "tiny" or Path(folder).is_dir():
            return load(folder, *given, **options)
        return load("tiny")

    def uniref_from_pretrained(folder: str | Path, *given: Any, **options: Any) -> UniRef:
        if Path(folder).is_dir():
            return load_uniref(folder, *given, **options)
        return fresh("tiny", text_encoder="tiny")

    monkeypatch.setattr(SamRef, "from_sam", from_sam)
    monkeypatch.setattr(SamRef, "from_pretrained", from_pretrained)
    monkeypatch.setattr(UniRef, "from_pretrained", uniref_from_pretrained)
