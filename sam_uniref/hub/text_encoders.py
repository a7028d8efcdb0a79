"""Text encoders by name: packaged, known by their SHA-256, or anything the hub has."""

from __future__ import annotations

from pathlib import Path

from sam_uniref import packaged
from sam_uniref.hub.folders import fetch_folder
from sam_uniref.hub.known import find_text_encoder

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
    if known is None:
        return packaged.text_encoder(name)
    return fetch_folder(known, _FILES, local_files_only=local_files_only)
