"""Running the ``sam-uniref`` command, and what it is given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image as PILImage
from tiny import disc, picture
from typer.testing import CliRunner, Result

from sam_uniref import SamRef
from sam_uniref.cli import app

HEIGHT, WIDTH = 60, 80


def material(root: Path, model: SamRef) -> Path:
    """A saved model, pictures, masks and a clip of three frames in the folder ``root``."""
    model.save_pretrained(root / "model")
    PILImage.fromarray(picture(HEIGHT, WIDTH)).save(root / "street.png")
    PILImage.fromarray(picture(HEIGHT, WIDTH, 5)).save(root / "support.png")
    PILImage.fromarray(disc(HEIGHT, WIDTH)).save(root / "support-mask.png")
    (root / "clip").mkdir()
    for frame in range(3):
        PILImage.fromarray(picture(HEIGHT, WIDTH, frame)).save(root / "clip" / f"{frame:05d}.jpg")
    save_ids(root / "first.png", {1: disc(HEIGHT, WIDTH, center=(0.3, 0.3)), 3: disc(HEIGHT, WIDTH, center=(0.7, 0.7))})
    save_ids(root / "new.png", {2: disc(HEIGHT, WIDTH, center=(0.4, 0.7))})
    return root


def save_ids(path: Path, masks: dict[int, np.ndarray]) -> None:
    ids = sum((object_id * mask.astype(np.uint8) for object_id, mask in masks.items()), np.zeros((), np.uint8))
    image = PILImage.fromarray(ids)
    image.putpalette(list(range(256)) * 3)
    image.save(path)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: object) -> dict:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def assert_refused(result: Result, message: str) -> None:
    """Exit code 2, one line on stderr, nothing on stdout, and no traceback."""
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
