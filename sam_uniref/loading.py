"""Loading a model for use, as the command line and the evaluation do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from sam_uniref.hub.repositories import model_folder
from sam_uniref.models import kind_of, model_class

if TYPE_CHECKING:
    from sam_uniref.trainable import TrainableModel

Model = TypeVar("Model", bound="TrainableModel")


def best_device() -> torch.device:
    """CUDA, else MPS, else the CPU."""
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(best)


def named_device(name: str) -> torch.device:
    """A device by name.

    Raises:
        ValueError: If it is not there.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"there is no device {name!r} here ({str(error).splitlines()[0]})") from error


def load_for_use(
    folder: str | Path, checkpoint: str | Path | None, device: torch.device, image_size: int | None = None
) -> TrainableModel:
    """A saved model of whatever kind, by its folder, packaged name or hub id; see `load_class_for_use`."""
    folder = model_folder(folder)
    return load_class_for_use(model_class(kind_of(folder)), folder, checkpoint, device, image_size)


def load_class_for_use(
    kind: type[Model],
    folder: str | Path,
    checkpoint: str | Path | None,
    device: torch.device,
    image_size: int | None = None,
) -> Model:
    """A saved model on a device, in evaluation mode, without the loaders' chatter; see its ``from_pretrained``.

    Raises:
        FileNotFoundError: If the folder or the base checkpoint is not there.
        ValueError: If a file is broken or does not fit, the model is of another kind, or the image size does not fit.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    return kind.from_pretrained(folder, checkpoint, image_size=image_size).to(device).eval()
