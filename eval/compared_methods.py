"""Compared methods by name: how each is loaded, what it can be asked, and what of it was trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from sam_uniref.data.batch import TASKS, Task
from sam_uniref.eval.baselines import BASELINES
from sam_uniref.eval.baselines.base_sam import load_base_sam
from sam_uniref.eval.baselines.refsam import load_refsam
from sam_uniref.eval.methods import Method
from sam_uniref.eval.predictor_method import CarefulMethod, PredictorMethod, TrackingOptions
from sam_uniref.loading import load_class_for_use
from sam_uniref.models import model_class
from sam_uniref.predictor import Predictor
from sam_uniref.samref import SamRef

OURS = {"samref": "samref", "samref_careful": "samref", "uniref": "uniref"}
"""Our own models by the kind that each is, which the options of tracking are for. Careful: see `CarefulMethod`."""

TRAINED: dict[str, tuple[Task, ...]] = {**dict.fromkeys(OURS, TASKS), "refsam": ("ris", "rvos")}
"""Methods that `train/finetune.py` trains, and what they are asked."""

METHODS: dict[str, tuple[Task, ...]] = {**TRAINED, **{name: entry.tasks for name, entry in BASELINES.items()}}
"""All methods, and what they are asked."""


@dataclass(frozen=True)
class LoadedMethod:
    """A method that is ready.

    Attributes:
        method: To be asked.
        made_of: What tells its answers from another's, in JSON's types.
        trained_parameters: How many numbers training found.
        tracking: How it follows objects, if it is one of `OURS`.
    """

    method: Method
    made_of: dict[str, str | int]
    trained_parameters: int
    tracking: TrackingOptions | None = None

    def following(self, tracking: TrackingOptions) -> LoadedMethod:
        """The same model with other options of tracking; what has none stays as it is."""
        if not isinstance(self.method, PredictorMethod | CarefulMethod):
            return self
        return replace(self, method=self.method.following(tracking), tracking=tracking)

    def settings(self, task: Task) -> dict[str, Any]:
        """What its answers to a task are made of, in JSON's types."""
        follows = self.tracking is not None and task in ("vos", "rvos")
        return {**self.made_of, **(vars(self.tracking) if follows else {})}


def load_method(
    name: str,
    model: str | Path,
    device: torch.device,
    *,
    checkpoint: str | Path | None = None,
    image_size: int | None = None,
) -> LoadedMethod:
    """A method on a device, in evaluation mode.

    Args:
        name: One of `METHODS`.
        model: What was trained: a folder, or a packaged model's name. A baseline takes the frozen SAM of it, or a
            released SAM; see `load_base_sam`.
        device: Where it runs.
        checkpoint: The base SAM's file, if it is not found by its name.
        image_size: What the input's size is called by, in pixels; the model's own by default.

    Raises:
        FileNotFoundError: If the model or the base checkpoint is not there.
        ValueError: If the name is unknown, or a file is broken or does not fit.
    """
    if name not in METHODS:
        raise ValueError(f"the method must be one of {sorted(METHODS)}, got {name!r}")
    if name == "refsam":
        refsam = load_refsam(model, checkpoint, device, image_size)
        count = sum(p.numel() for part in refsam.parts() for p in part.module.parameters() if p.requires_grad)
        return LoadedMethod(refsam, {"method": name, "model": refsam.fingerprint()}, count)
    if name in OURS:
        own = load_class_for_use(model_class(OURS[name]), model, checkpoint, device, image_size)
        count = sum(p.numel() for part in own.parts() for p in part.module.parameters() if p.requires_grad)
        asked = CarefulMethod(cast(SamRef, own)) if name == "samref_careful" else PredictorMethod(own)
        return LoadedMethod(asked, {"method": name, **_made_of(own)}, count, TrackingOptions())
    baseline, (host, made_of) = BASELINES[name], load_base_sam(model, checkpoint, device, image_size)
    return LoadedMethod(baseline.build(host), {"method": name, **made_of}, baseline.trained_parameters)


def _made_of(model: Predictor) -> dict[str, str | int]:
    """What a model's answers depend on."""
    return {"model": model.fingerprint(), "image_size": model.transform.size}
