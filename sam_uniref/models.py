"""The kinds of model, by the name that saved folders and configurations of runs call them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from sam_uniref import packaged
from sam_uniref.hub.repositories import model_folder
from sam_uniref.nearest import did_you_mean, nearest_path

if TYPE_CHECKING:
    from sam_uniref.trainable import TrainableModel

_HOMES = {
    "samref": ("sam_uniref.samref", "SamRef"),
    "refsam": ("sam_uniref.refsam", "RefSam"),
    "uniref": ("sam_uniref.detr", "UniRef"),
}
KINDS = tuple(_HOMES)
CONFIG_FILE = "config.json"


def model_class(kind: str) -> type[TrainableModel]:
    """The class of a kind of model; it is imported now.

    Raises:
        ValueError: If there is no such kind.
    """
    if kind not in _HOMES:
        raise ValueError(f"the kind of model must be one of {sorted(_HOMES)}, got {kind!r}")
    module, name = _HOMES[kind]
    return getattr(importlib.import_module(module), name)


def class_name(kind: str) -> str:
    """The name of a kind's class, which a model's own type may bear with additions while it is trained."""
    return _HOMES[kind][1]


def kind_of(folder: str | Path) -> str:
    """The kind of the model in a folder that ``save_pretrained`` wrote, of a packaged one, or of one on the hub.

    Raises:
        FileNotFoundError: If there is no model.
        ValueError: If its configuration can't be read, or names no kind that is known.
    """
    path = model_folder(folder) / CONFIG_FILE
    if not path.is_file():
        hint = did_you_mean(str(folder), packaged.PACKAGED) or nearest_path(path.parent)
        raise FileNotFoundError(
            f"{path.parent} holds no model: there is no {CONFIG_FILE}{hint or '; save one with save_pretrained'}"
        )
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("kind", "samref")  # the first ones saved do not say
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"{path} is no model's configuration ({error})") from error
    if kind not in _HOMES:
        raise ValueError(f"{path}: the kind of model must be one of {sorted(_HOMES)}, got {kind!r}")
    return kind
