"""The frozen SAM that a method works on which learns nothing: a released one, or the one of a saved model."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from sam_uniref.config import BaseSamConfig
from sam_uniref.hosts import HOST_NAMES, PUBLISHED, Host, build_host
from sam_uniref.hub.known import KNOWN_WEIGHTS, find_known
from sam_uniref.loading import load_class_for_use
from sam_uniref.models import CONFIG_FILE
from sam_uniref.packaged import PACKAGED
from sam_uniref.samref import SamRef

MadeOf = dict[str, str | int]


def is_released(model: str | Path) -> bool:
    """Whether a name, a file or a folder is a SAM's own, and not a saved model's."""
    if str(model) in HOST_NAMES:
        return str(model) not in PACKAGED
    path = Path(model)
    if path.is_file():
        return True
    try:
        config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "model_type" in config  # as transformers writes it


def load_base_sam(
    model: str | Path, checkpoint: str | Path | None, device: torch.device, image_size: int | None = None
) -> tuple[Host, MadeOf]:
    """A frozen SAM on a device, and what tells it from others.

    Args:
        model: A name of `sam_uniref.hosts.HOST_NAMES`, a released checkpoint by its published file name, a folder of
            transformers; or a saved SamRef, whose SAM is taken.
        checkpoint: The SAM's file, if it is not found by its name.
        device: Where it runs.
        image_size: What the input's size is called by, in pixels; its own by default.

    Raises:
        FileNotFoundError: If the model or the checkpoint is not there.
        ValueError: If a file is broken or does not fit, or does not tell which SAM it is of.
    """
    if not is_released(model):
        samref = load_class_for_use(SamRef, model, checkpoint, device, image_size)
        return samref.sam, {"model": samref.fingerprint(), "image_size": samref.transform.size}
    host, base = _released(model, checkpoint, image_size)
    return host.to(device), {"model": str(base.sha256), "image_size": host.transform.size}


def _released(model: str | Path, checkpoint: str | Path | None, image_size: int | None) -> tuple[Host, BaseSamConfig]:
    """By its name, its file, or its folder."""
    path = Path(model)
    if not path.is_file():
        return build_host(model, PUBLISHED if checkpoint is None else checkpoint, image_size=image_size)
    known = find_known(path.name)
    if known is None or checkpoint is not None:
        raise ValueError(
            f"a file is known as a model by its published name ({', '.join(w.file for w in KNOWN_WEIGHTS)}) and alone; "
            f"for {path} give a name of {', '.join(HOST_NAMES)} as the model, and the file as its checkpoint"
        )
    return build_host(known.name, path, image_size=image_size)
