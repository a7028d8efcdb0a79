"""Models in repositories of the hub that are known by name: fetched at a fixed revision, their weights checked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from sam_uniref.hub.known import KnownFolder
from sam_uniref.hub.repositories import HubOptions, snapshot
from sam_uniref.state import file_sha256

logger = logging.getLogger(__name__)

# What is fetched of a host's repository; a text encoder's has a tokenizer besides.
HOST_FILES = ("config.json", "model.safetensors")
_WEIGHTS_FILE = "model.safetensors"


def fetch_folder(known: KnownFolder, files: Sequence[str] = HOST_FILES, *, local_files_only: bool = False) -> Path:
    """The folder of a known model, found on this machine or fetched; checked where its SHA-256 is known.

    Where neither a revision nor a SHA-256 is known, a warning says so.

    Args:
        known: Of `sam_uniref.hub.known`.
        files: Patterns of the files' names.
        local_files_only: Never ask the net.

    Raises:
        FileNotFoundError: If it is neither here nor to be had.
        ValueError: If its weights are others.
    """
    options: HubOptions = {"revision": known.revision, "local_files_only": local_files_only}
    folder = snapshot(known.repository, known.title, files, **options)
    weights = folder / _WEIGHTS_FILE
    if not weights.is_file():
        raise FileNotFoundError(
            f"the {known.title} {known.repository} is on this machine without its {_WEIGHTS_FILE}; load it once with a "
            "network, or give a folder that has it"
        )
    if known.sha256 is not None:
        _check(known, weights)
    elif known.revision is None:
        logger.warning(
            "%s is the newest %s of %s, unchecked: its SHA-256 is not known before; %s@REVISION pins a commit",
            weights,
            known.title,
            known.repository,
            known.name,
        )
    return folder


def _check(known: KnownFolder, weights: Path) -> None:
    """Refuse a file that is not the one that is known."""
    size = weights.stat().st_size
    got = f"{size:,} bytes" if size != known.size else f"sha256 {file_sha256(weights)}"
    expected = f"{known.size:,} bytes" if size != known.size else f"sha256 {known.sha256}"
    if got != expected:
        raise ValueError(
            f"{weights} is not the {known.title} {known.repository}: it has {got} and not {expected}; delete it, and "
            "it is fetched anew"
        )
