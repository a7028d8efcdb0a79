"""Base checkpoints by name: found on this machine, or fetched once and kept."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from sam_uniref import packaged
from sam_uniref.hub.download import download, has_content
from sam_uniref.hub.folders import fetch_folder
from sam_uniref.hub.known import KnownFolder, KnownWeights, find_folder, find_known, known_weights
from sam_uniref.hub.offline import is_offline

logger = logging.getLogger(__name__)

# Where base checkpoints are looked for by name, beside the places that are given.
CHECKPOINT_FOLDER_VARIABLE = "SAM_UNIREF_CHECKPOINTS"
# Where fetched ones are kept.
WEIGHTS_FOLDER_VARIABLE = "SAM_UNIREF_WEIGHTS"


def weights_folder() -> Path:
    """Where fetched weights are kept: ``$SAM_UNIREF_WEIGHTS``, or ``sam_uniref/weights`` in the user's cache folder."""
    given = os.environ.get(WEIGHTS_FOLDER_VARIABLE)
    if given:
        return Path(given).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "sam_uniref" / "weights"


def checkpoint_folders() -> list[Path]:
    """Folders of this machine in which base checkpoints lie: ``$SAM_UNIREF_CHECKPOINTS``, and that of fetched ones."""
    given = os.environ.get(CHECKPOINT_FOLDER_VARIABLE)
    return [*([Path(given)] if given else []), weights_folder()]


def base_checkpoint(name: str | Path, *, local_files_only: bool = False) -> Path:
    """A base SAM's file or folder: a packaged or a published one's by its name, or the path itself.

    Published ones (`sam_uniref.hub.known`) are fetched unless they are on this machine; those that are folders take a
    revision (``"edgetam@1a2b3c4"``). Only a bare string is a name, and what has that name in the working folder comes
    first.

    Raises:
        FileNotFoundError: If a published one is neither here nor to be had.
        ValueError: If what is published there now is another file.
    """
    known = (find_known(name) or find_folder(name)) if isinstance(name, str) else None
    there = Path(name).is_dir() if isinstance(known, KnownFolder) else Path(name).is_file()
    if known is None or there:
        return packaged.base_checkpoint(name)
    return fetch_weights(known, local_files_only=local_files_only)


def fetch_weights(weights: str | KnownWeights | KnownFolder, *, local_files_only: bool = False) -> Path:
    """The file or folder of published weights, downloaded unless it is on this machine.

    Its SHA-256 is checked every time, where it is known.

    Args:
        weights: Their name, such as ``"vit_b"`` or ``"sam_vit_b_01ec64.pth"``, or what is known of them.
        local_files_only: Never ask the net; so it is too with ``HF_HUB_OFFLINE=1``.

    Raises:
        FileNotFoundError: If they are neither here nor to be had; the message says what to do by hand.
        ValueError: If there are no such weights, or what came is another file.
        OSError: If the disk has no room.
    """
    if isinstance(weights, str):
        weights = known_weights(weights)
    if isinstance(weights, KnownFolder):
        return fetch_folder(weights, local_files_only=local_files_only)
    for folder in checkpoint_folders():
        path = folder / weights.file
        if has_content(path, weights.size, weights.sha256):
            return path
        if path.is_file():
            logger.warning("%s is not the published file of that name (another sha256) and is passed over", path)
    target = weights_folder() / weights.file
    if local_files_only or is_offline():
        raise FileNotFoundError(f"{_missing(weights)}, and the net is not to be asked. {_by_hand(weights)}")
    logger.info("fetching %s, %d MB, from %s into %s", weights.title, weights.size // 10**6, weights.url, target)
    try:
        download(weights.url, target, size=weights.size, sha256=weights.sha256)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{_missing(weights)}, and {error}. {_by_hand(weights)}") from error
    return target


def _missing(weights: KnownWeights) -> str:
    """What is not there."""
    return f"{weights.title} ({weights.file}) is not on this machine"


def _by_hand(weights: KnownWeights) -> str:
    """How somebody brings the file."""
    return (
        f"To bring it by hand: get {weights.url} ({weights.size:,} bytes, sha256 {weights.sha256}) where there is a "
        f"network, and put it into {weights_folder()}, or name its folder in {CHECKPOINT_FOLDER_VARIABLE}, or its path "
        "with checkpoint="
    )
