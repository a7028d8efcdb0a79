"""Which hosts there are, by name; each family's code is imported when one of it is first asked for."""

from __future__ import annotations

import difflib
import importlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_uniref.config import BaseSamConfig
from sam_uniref.hub.known import find_folder, find_known
from sam_uniref.hub.weights import base_checkpoint, fetch_weights
from sam_uniref.state import file_sha256, read_tensors

if TYPE_CHECKING:
    from torch import nn

    from sam_uniref.hosts.family import HostFamily
    from sam_uniref.hosts.host import Host

logger = logging.getLogger(__name__)

# Module and class of a family, and the names of its hosts.
_FAMILIES = {
    ("sam_uniref.hosts.segment_anything", "SegmentAnything"): ("tiny", "vit_b", "vit_l", "vit_h"),
    ("sam_uniref.hosts.mobile_sam", "MobileSam"): ("mobile_sam",),
    ("sam_uniref.hosts.sam_hq", "SamHq"): ("sam_hq_vit_b", "sam_hq_vit_l", "sam_hq_vit_h"),
    ("sam_uniref.hosts.sam2", "Sam2"): (
        "sam2.1_hiera_tiny",
        "sam2.1_hiera_small",
        "sam2.1_hiera_base_plus",
        "sam2.1_hiera_large",
    ),
    ("sam_uniref.hosts.edgetam", "EdgeTam"): ("edgetam",),
}
# What transformers' configurations call their kind of model. Such a host is not named but given, as a folder or a
# model, and `BaseSamConfig.architecture` says what it is.
_MODEL_TYPES = {
    "sam_hq": ("sam_uniref.hosts.sam_hq", "SamHq"),
    "sam2": ("sam_uniref.hosts.sam2", "Sam2"),
    "sam2_video": ("sam_uniref.hosts.sam2", "Sam2"),
    "edgetam": ("sam_uniref.hosts.edgetam", "EdgeTam"),
    "edgetam_video": ("sam_uniref.hosts.edgetam", "EdgeTam"),
}
PUBLISHED = "published"
"""In place of a checkpoint: the one that was released for a host's name."""
HOST_NAMES = tuple(name for names in _FAMILIES.values() for name in names)
"""All hosts that are known by name."""


def family_of(base: BaseSamConfig) -> HostFamily:
    """The family of a host; its code is imported now.

    Raises:
        ValueError: If there is none of that name.
    """
    if base.architecture is not None:
        return _given_family(base.architecture)
    for home, names in _FAMILIES.items():
        if base.size in names:
            return _imported(home)
    near = difflib.get_close_matches(base.size, HOST_NAMES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"SAM size must be one of {HOST_NAMES}, or a folder that transformers wrote, got {base.size!r}{hint}"
    )


def build_host(
    size: str | Path | nn.Module,
    checkpoint: str | Path | None = None,
    *,
    image_size: int | None = None,
    local_files_only: bool = False,
) -> tuple[Host, BaseSamConfig]:
    """A host, and what a configuration must say of it.

    Args:
        size: One of `HOST_NAMES`, of those that are released as folders also with a revision (``"edgetam@1a2b3c4"``); a
            folder that one of transformers' models was saved to, which is then the checkpoint too; or such a model,
            whose weights become the host's.
        checkpoint: Of a name: the file or folder of its weights; ``"tiny"`` for the packaged SAM, or another name of
            `sam_uniref.hub.known`; or `PUBLISHED`. Without one they are random, with a warning.
        image_size: Side of the input square in pixels; the host's own by default.
        local_files_only: Never ask the net for released weights.

    Raises:
        ImportError: If the host needs a package that is not there, naming it.
        FileNotFoundError: If the checkpoint is not there, or released weights are neither here nor to be had.
        ValueError: If there is no such host, the image size does not fit, or the checkpoint is broken or of another
            one; or a checkpoint is given beside a model or a folder.
    """
    asked, checkpoint = checkpoint == PUBLISHED, None if checkpoint == PUBLISHED else checkpoint
    if not isinstance(size, str | Path):
        return _given_model(size, checkpoint, image_size)
    base = _named_base(size, image_size)
    if base.architecture is not None:
        if checkpoint is not None:
            raise ValueError(f"{size} holds a model's configuration and its weights; leave checkpoint={checkpoint} out")
        checkpoint = Path(size)
    family = family_of(base)
    model = family.build(base)
    family.check_image_size(model, image_size)  # before a checkpoint is read, which takes its time
    if asked and checkpoint is None:
        revision = str(size).partition("@")[2]
        checkpoint = published_weights(base, revision or None, local_files_only=local_files_only)
    if checkpoint is None:
        logger.warning("%s %s has random weights: no checkpoint was given", family.title, base.size)
    else:
        given = base_checkpoint(checkpoint, local_files_only=local_files_only)
        file = family.weights_file(given)
        family.load(model, file, base)
        named = given.absolute()
        if named == family.weights_file(named.parent):  # what such folders hold has one name; theirs tells more
            named = named.parent
        base.checkpoint, base.sha256 = named.name, file_sha256(file)
    return family.plug(model, image_size), base


def repository_of(base: BaseSamConfig) -> str | None:
    """The hub id of a host's released weights, where these are a folder of transformers'."""
    known = None if base.architecture is not None else find_folder(base.size)
    return None if known is None else known.repository


def published_weights(
    base: BaseSamConfig, revision: str | None = None, *, local_files_only: bool = False
) -> Path | None:
    """The file or the folder of a host's released weights, found on this machine or fetched; None if there are none.

    Args:
        base: Says which.
        revision: Of a folder, in place of the known one.
        local_files_only: Never ask the net.

    Raises:
        FileNotFoundError: If they are neither here nor to be had.
        ValueError: If what is published is not what was released.
    """
    folder = None if repository_of(base) is None else find_folder(f"{base.size}@{revision or ''}")
    known = find_known(base.size) or folder
    return None if known is None else fetch_weights(known, local_files_only=local_files_only)


def saved_host(base: BaseSamConfig, checkpoint: Path | None, own_weights: Path) -> Host:
    """The host of a saved model.

    Args:
        base: As it was saved.
        checkpoint: The host's released file, already the right one; None where it has none.
        own_weights: The file that is read in place of one.

    Raises:
        ImportError: If the host needs a package that is not there, naming it.
        FileNotFoundError: If the file is not there.
        ValueError: If it is broken or does not fit, or the image size does not.
    """
    family = family_of(base)
    model = family.build(base)
    family.check_image_size(model, base.image_size)
    if checkpoint is None:
        family.load_own(model, read_tensors(own_weights), str(own_weights))
    else:
        family.load(model, checkpoint, base)
    return family.plug(model, base.image_size)


def skeleton_host(size: str, image_size: int | None = None, architecture: dict[str, Any] | None = None) -> Host:
    """As `build_host` without weights: shapes alone on the ``meta`` device, random weights on others.

    Args:
        size: As in `build_host`, or what a saved model's configuration calls its host.
        image_size: As in `build_host`.
        architecture: `BaseSamConfig.architecture` of a saved model.
    """
    base = _named_base(size, image_size)
    base.architecture = base.architecture or architecture
    family = family_of(base)
    model = family.build(base)
    family.check_image_size(model, image_size)
    return family.plug(model, image_size)


def _named_base(size: str | Path, image_size: int | None) -> BaseSamConfig:
    """What is known of a host by its name, or by the folder that it was saved to."""
    base = BaseSamConfig(size=str(size), image_size=image_size)
    name = base.size.partition("@")[0]
    if name != base.size and find_folder(name) is not None:
        base.size = name
    elif size not in HOST_NAMES and (Path(size) / "config.json").is_file():
        base.architecture = _read_architecture(Path(size))
        base.size = str(base.architecture["model_type"])
    return base


def _given_model(model: nn.Module, checkpoint: str | Path | None, image_size: int | None) -> tuple[Host, BaseSamConfig]:
    """A model of transformers' as a host."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        raise ValueError(
            f"a host is one of {HOST_NAMES}, a folder, or a model of transformers', got a {type(model).__name__}"
        )
    if checkpoint is not None:
        raise ValueError(f"a model has its weights already; leave checkpoint={checkpoint} out")
    family = _given_family(config.to_dict())
    architecture = family.architecture_of(model)
    family.check_image_size(model, image_size)
    base = BaseSamConfig(size=str(architecture["model_type"]), image_size=image_size, architecture=architecture)
    return family.plug(model, image_size), base


def _given_family(architecture: dict[str, Any]) -> HostFamily:
    """The family of a configuration of transformers'."""
    kind = architecture.get("model_type")
    if kind not in _MODEL_TYPES:
        raise ValueError(f"a host's configuration has a model_type of {sorted(_MODEL_TYPES)}, got {kind!r}")
    return _imported(_MODEL_TYPES[kind])


def _read_architecture(folder: Path) -> dict[str, Any]:
    """Of a folder that transformers wrote."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return _given_family(values).architecture_of(values)
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"{path} is no model's configuration ({error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _imported(home: tuple[str, str]) -> HostFamily:
    """A family by its module and class."""
    family: HostFamily = getattr(importlib.import_module(home[0]), home[1])()
    return family
