"""The ``sam-uniref weights`` command.

Heavy imports stand inside the command, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def weights(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Of weights to fetch; without one, the list of them.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the net: find them, or fail.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Published base checkpoints: list them, or fetch them and print where they are."""
    from sam_uniref.hub.known import KNOWN_WEIGHTS, known_weights
    from sam_uniref.hub.weights import checkpoint_folders, fetch_weights

    if names:
        wanted = [known_weights(name) for name in names]  # a slip of the pen before a long download
        paths = {entry.name: str(fetch_weights(entry, local_files_only=offline)) for entry in wanted}
        typer.echo(json.dumps(paths) if as_json else "\n".join(paths.values()))
        return
    rows: list[dict[str, Any]] = []
    for entry in KNOWN_WEIGHTS:
        places = [folder / entry.file for folder in checkpoint_folders()]
        here = next((str(path) for path in places if path.is_file() and path.stat().st_size == entry.size), None)
        rows.append(
            {
                "name": entry.name,
                "title": entry.title,
                "bytes": entry.size,
                "licence": entry.licence,
                "sha256": entry.sha256,
                "url": entry.url,
                "path": here,
            }
        )
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo(f"{row['name']:16} {row['bytes'] // 10**6:5} MB  {row['title']:18} {row['path'] or 'not here'}")
