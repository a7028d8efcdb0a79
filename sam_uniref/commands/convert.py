"""The ``sam-uniref convert`` command.

Heavy imports stand inside the command, so that ``--help`` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sam_uniref.output_checks import check_output_folder

_TITLES = {"uniref": "UniRef", "samref": "SamRef"}


def convert(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A published checkpoint; with --back a model's folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The model's folder; with --back the checkpoint.")],
    back: Annotated[bool, typer.Option("--back", help="From ours to the published names.")] = False,
    text_encoder: Annotated[
        str | None,
        typer.Option("--text-encoder", help="For the tokenizer: hub id or folder; bert-base-uncased by default."),
    ] = None,
    sam_checkpoint: Annotated[
        Path | None, typer.Option("--sam-checkpoint", help="The original SAM's file, for the SAM variant.")
    ] = None,
) -> None:
    """Published UniRef++ checkpoints (R50, Swin-L, or the SAM variant) into a model's folder, and back."""
    if back and (text_encoder or sam_checkpoint):
        raise ValueError("--text-encoder and --sam-checkpoint are for the way in; leave them out with --back")
    if back:
        from sam_uniref.conversion import convert_back

        typer.echo(f"{_TITLES[convert_back(path, out)]} for the published code: {out}")
        return
    check_output_folder(out)
    from sam_uniref.conversion import convert_checkpoint

    source = text_encoder or "bert-base-uncased"
    kind, fresh = convert_checkpoint(path, out, text_encoder=source, sam_checkpoint=sam_checkpoint)
    if fresh:
        typer.echo(f"not in {path}, so to be trained before they are of use: {', '.join(fresh)}", err=True)
    typer.echo(f"{_TITLES[kind]}.from_pretrained({str(out)!r})")
