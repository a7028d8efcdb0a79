"""The README: its first lines run as they stand and give what they say. See test_documentation for all pages."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from PIL import Image
from runs import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [code for language, code in BLOCKS if language == "bash"]


def test_the_first_lines_run_and_give_what_they_say() -> None:
    names: dict[str, Any] = {}
    exec(compile(PYTHON[0], "README.md", "exec"), names)  # noqa: S102 - our own README
    scene, few, clip = names["scene"], names["few"], names["clip"]
    assert (scene.image.shape, scene.image.dtype) == ((128, 128, 3), np.uint8)
    assert (scene.mask.shape, scene.mask.dtype) == ((128, 128), np.bool_)
    assert len(few.references) == 5
    seg = names["seg"]
    assert (seg.mask.shape, seg.mask.dtype, seg.logits.dtype) == ((128, 128), np.bool_, np.float32)
    assert isinstance(seg.score, float)
    assert len(seg.box) == 4
    assert clip.frames.shape == (12, 128, 128, 3)
    assert (clip.ids.shape, clip.ids.dtype) == ((12, 128, 128), np.uint8)
    frame = names["frame"]
    assert (frame.labels.shape, frame.labels.dtype) == ((128, 128), np.int32)
    assert (frame.masks[1].shape, type(frame.scores[1])) == ((128, 128), float)


def test_every_file_of_a_command_is_there() -> None:
    ours = re.findall(r"(?:(?:train|eval|configs|tests)/[\w/.{},]+\.(?:py|yaml|jsonl))", "\n".join(SHELL) + README)
    assert len(ours) > 5
    missing = {name for name in ours if "{" not in name and not (ROOT / name).is_file()}
    assert missing == set()


def test_the_moving_picture_is_small_and_moves() -> None:
    shown = re.search(r"!\[[^\]]*\]\(([^)]+\.webp)\)", README)
    assert shown
    path = ROOT / shown[1]
    assert path.stat().st_size < 1_500_000
    with Image.open(path) as picture:
        assert getattr(picture, "n_frames", 1) > 10
