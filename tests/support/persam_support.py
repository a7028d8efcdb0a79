"""The recorded SAM and pictures of the published PerSAM, and what the tests of baselines share."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from parity import blob_mask, recorded, tensor, weights
from segment_anything.build_sam import _build_sam

from sam_uniref.eval.baselines.prompting import Prompt, PromptedSam
from sam_uniref.interfaces import ImageFeatures
from sam_uniref.sam import SamHost
from sam_uniref.samref import SamRef
from sam_uniref.segmentation import Segmentation

FOLDER = Path(__file__).parent.parent / "fixtures" / "baselines"
NOTES = json.loads((FOLDER / "persam.json").read_text())
HEIGHT, WIDTH = 480, 640


def recorded_host() -> SamHost:
    """The small SAM at 1024 px with the recorded weights."""
    sam = _build_sam(64, 2, 2, [1])
    sam.load_state_dict(weights("persam", FOLDER))
    return SamHost(sam.eval())


def recorded_arrays(case: str) -> dict[str, NDArray[Any]]:
    """All arrays of ``persam`` or ``persam_f``."""
    return recorded(case, FOLDER)


def recorded_picture(name: str) -> NDArray[np.uint8]:
    """The picture ``ref`` or ``test``, drawn by its recipe and checked by its hash."""
    noise = np.kron(tensor(f"persam/{name}/image", (30, 40, 3)).double().numpy(), np.ones((16, 16, 1)))
    ellipse = blob_mask(f"persam/{name}/mask", HEIGHT, WIDTH).double().numpy()[..., None]
    drawn = np.rint(110 + 30 * noise + ellipse * [90, -60, 40]).clip(0, 255).astype(np.uint8)
    assert hashlib.sha256(drawn.tobytes()).hexdigest() == NOTES[f"{name}_image_sha256"]
    return drawn


def recorded_mask() -> NDArray[np.bool_]:
    """The mask of the picture ``ref``."""
    return blob_mask("persam/ref/mask", HEIGHT, WIDTH).numpy() > 0


class Listener:
    """Writes down what SAM is asked and what it answers."""

    def __init__(self, sam: PromptedSam) -> None:
        self._ask = sam.candidates
        self.asked: list[Prompt] = []
        self.answers: list[list[Segmentation]] = []
        sam.candidates = self  # type: ignore[method-assign, assignment]

    def __call__(self, features: ImageFeatures, prompt: Prompt, **options: Any) -> list[Segmentation]:
        answer = self._ask(features, prompt, **options)
        self.asked.append(prompt)
        self.answers.append(answer)
        return answer


@functools.cache
def tiny_host() -> SamHost:
    """The packaged tiny SAM."""
    return SamRef.from_pretrained("tiny").sam.eval()


def random_host(image_size: int | None = None) -> SamHost:
    """A tiny SAM with seeded random weights."""
    from sam_uniref.sam import build_sam

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SamHost(build_sam("tiny"), image_size)
