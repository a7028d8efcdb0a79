"""Text encoders by name: packaged, known by their SHA-256, or anything the hub has."""

from __future__ import annotations

from pathlib import Path

from sam_uniref import packaged
from sam_uniref.hub.known import KnownTextEncoder, find_text_encoder
from sam_uniref.hub.repositories import HubOptions, snapshot
from sam_uniref.state import file_sha256

# What a text encoder is made of; weights of other formats stay where they are.
_FILES = ("config.json", "tokenizer*.json", "special_tokens_map.json", "vocab.txt", "model.safetensors")


def text_encoder(name: str | Path, *, local_files_only: bool = False) -> str | Path:
    """What `sam_uniref.adapters.load_text_model` is to load.

    Returns:
        A packaged text encoder's folder; one whose weights are known (`sam_uniref.hub.known`) as a folder at a fixed
        revision, its SHA-256 checked; else the name itself, a hub id or a folder of the caller's own.

    Raises:
        FileNotFoundError: If a known one is neither here nor to be had.
        ValueError: If its weights are others.
    """
    known = find_text_encoder(str(name)) if isinstance(name, str) and not Path(name).is_dir() else None
    return packaged.text_encoder(name) if known is None else _checked(known, local_files_only)


def _checked(known: KnownTextEncoder, local_files_only: bool) -> Path:
    """The folder of a known one, with the right weights in it."""
    options: HubOptions = {"revision": known.revision, "local_files_only": local_files_only}
    folder = snapshot(known.repository, "text encoder", _FILES, **options)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(
            f"the text encoder {known.repository} is on this machine without its model.safetensors; load it once with "
            "a network, or give a folder that has it as text_encoder"
        )
    got = file_sha256(weights)
    if got != known.sha256:
        raise ValueError(
            f"{weights} is not the text encoder {known.repository}: its sha256 is {got} and not {known.sha256}; delete "
            "it, and it is fetched anew"
        )
    return folder
