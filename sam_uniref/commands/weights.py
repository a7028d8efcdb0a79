"""The ``sam-uniref weights`` command.

Heavy imports stand inside the command, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sam_uniref.hub.known import KnownFolder, KnownWeights


def weights(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Of weights to fetch; without one, the list of them.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the net: find them, or fail.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Published base checkpoints: list them, or fetch them and print where they are.

    Those that are folders of the hub take a revision: sam-uniref weights edgetam@COMMIT
    """
    from sam_uniref.hub.known import known_weights
    from sam_uniref.hub.weights import fetch_weights

    if names:
        wanted = [known_weights(name) for name in names]  # a slip of the pen before a long download
        paths = {
            name: str(fetch_weights(entry, local_files_only=offline)) for name, entry in zip(names, wanted, strict=True)
        }
        typer.echo(json.dumps(paths) if as_json else "\n".join(paths.values()))
        return
    rows = [*_files(), *_folders()]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        size = f"{row['bytes'] // 10**6:5} MB" if row["bytes"] else "       -"
        checked = "" if row["sha256"] else "  (unchecked: no SHA-256 is known)"
        typer.echo(f"{row['name']:22} {size}  {row['title']:18} {row['path'] or 'not here'}{checked}")


def _files() -> list[dict[str, Any]]:
    """Checkpoints of one file, and where they are."""
    from sam_uniref.hub.known import KNOWN_WEIGHTS
    from sam_uniref.hub.weights import checkpoint_folders

    rows: list[dict[str, Any]] = []
    for entry in KNOWN_WEIGHTS:
        places = [folder / entry.file for folder in checkpoint_folders()]
        here = next((str(path) for path in places if path.is_file() and path.stat().st_size == entry.size), None)
        rows.append({**_row(entry), "url": entry.url, "path": here})
    return rows


def _folders() -> list[dict[str, Any]]:
    """Hosts that are folders of the hub, and where the hub's client keeps them."""
    from huggingface_hub import constants, try_to_load_from_cache

    from sam_uniref.hub.known import KNOWN_FOLDERS

    rows: list[dict[str, Any]] = []
    for entry in KNOWN_FOLDERS:
        kept = try_to_load_from_cache(entry.repository, "model.safetensors", revision=entry.revision)
        url = f"{constants.ENDPOINT}/{entry.repository}"
        path = str(Path(kept).parent) if isinstance(kept, str) else None
        rows.append({**_row(entry), "revision": entry.revision, "url": url, "path": path})
    return rows


def _row(entry: KnownWeights | KnownFolder) -> dict[str, Any]:
    """What is known of either."""
    return {
        "name": entry.name,
        "title": entry.title,
        "bytes": entry.size,
        "licence": entry.licence,
        "sha256": entry.sha256,
    }
