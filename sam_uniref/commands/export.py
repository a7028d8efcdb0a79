"""The ``sam-uniref export`` command.

Heavy imports stand inside the command, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sam_uniref.commands.options import CheckpointOption

if TYPE_CHECKING:
    from sam_uniref.export import Difference
    from sam_uniref.images import RGB, Mask


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A saved model's folder, a hub id, or tiny: packaged.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    form: Annotated[str, typer.Option("--format", help="onnx, or torch for torch.export programs.")] = "onnx",
    checkpoint: CheckpointOption = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Side of the input square, fixed in what is written.")
    ] = None,
    picture: Annotated[
        str | None,
        typer.Option("--compare-on", metavar="IMG:MASK", help="A picture and an object in it; by default a drawn one."),
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="A sentence about that object.")] = None,
    tolerance: Annotated[float, typer.Option("--tolerance", help="Largest difference that is taken.")] = 1e-3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a SamRef as ONNX or torch.export graphs, and compare them with the model; exit code 1 if they differ."""
    if not tolerance > 0:
        raise ValueError(f"--tolerance must be above 0, got {tolerance}")
    import torch

    from sam_uniref.export.comparison import compare, runners
    from sam_uniref.export.graphs import graphs_of
    from sam_uniref.export.writing import FORMATS, export_model, prepared
    from sam_uniref.loading import load_for_use

    if form not in FORMATS:
        raise ValueError(f"--format must be one of {', '.join(FORMATS)}, got {form!r}")
    _check_packages(form)
    shown, mask, sentence = _compared_on(picture)
    network = prepared(load_for_use(model, checkpoint, torch.device("cpu"), image_size))
    export_model(network, out, form)
    found = compare(network, runners(out, form, graphs_of(network)), shown, mask, text or sentence)
    largest = max(difference.largest for difference in found)
    if as_json:
        report = {"out": str(out), "format": form, "largest": largest, "tolerance": tolerance, "files": _sizes(out)}
        typer.echo(json.dumps({**report, "differences": [asdict(difference) for difference in found]}))
    else:
        _print(out, found)
        typer.echo(f"largest difference {largest:.2g}, {'within' if largest <= tolerance else 'over'} {tolerance:g}")
    if not largest <= tolerance:
        raise typer.Exit(1)


def _check_packages(form: str) -> None:
    """Refuse what needs packages that are not there, before anything is computed."""
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if form == "onnx" and missing:
        raise ValueError(f"--format onnx needs {', '.join(missing)}: pip install 'sam_uniref[export]'")


def _compared_on(given: str | None) -> tuple[RGB, Mask, str | None]:
    """A picture, an object's mask in it, and what is said of it."""
    from sam_uniref.images import load_image, load_mask

    if given is None:
        from sam_uniref.data.refshapes import RefShapesDataset

        scene = RefShapesDataset("drawn", "ris").scene_sentences(0)
        number, sentence = scene.sentences[0]
        return scene.image, scene.ids == number, sentence
    image, _, mask = given.rpartition(":")
    if not image or not mask:
        raise ValueError(f"--compare-on takes IMG:MASK, got {given!r}")
    loaded = load_image(image)
    return loaded, load_mask(mask, (loaded.shape[0], loaded.shape[1])), None


def _sizes(out: Path) -> dict[str, int]:
    """Bytes of each file."""
    return {path.name: path.stat().st_size for path in sorted(out.iterdir())}


def _print(out: Path, found: list[Difference]) -> None:
    """Files, then what was compared."""
    for name, size in _sizes(out).items():
        typer.echo(f"{out / name!s:<50} {size / 1e6:10.2f} MB")
    rows: list[tuple[Any, ...]] = [("graph", "output", "difference", "magnitude", "ms", "model's ms")]
    rows += [
        (
            one.graph,
            one.output,
            f"{one.largest:.2g}",
            f"{one.magnitude:.3g}",
            f"{one.seconds * 1e3:.0f}",
            f"{one.model_seconds * 1e3:.0f}",
        )
        for one in found
    ]
    for graph, output, *numbers in rows:
        typer.echo(f"{graph:<14} {output:<10}" + "".join(f"{number:>12}" for number in numbers))
