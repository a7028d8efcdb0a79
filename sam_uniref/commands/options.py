"""Options that several commands have, and how their values are read."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from sam_uniref.commands.output import note
from sam_uniref.sentences import check_one_sentence

if TYPE_CHECKING:
    import torch

    from sam_uniref.reference import MaskReference
    from sam_uniref.trainable import TrainableModel

T = TypeVar("T")

_MOST_DIGITS = 9
DEFAULT_MODEL = "tiny"


def _hush(context: typer.Context, quiet: bool) -> bool:
    """With --quiet the package's warnings are left out, too, as long as the command runs."""
    package = logging.getLogger("sam_uniref")
    before = package.level
    if quiet:
        package.setLevel(logging.ERROR)
        context.call_on_close(lambda: package.setLevel(before))
    return quiet


ModelOption = Annotated[
    str | None, typer.Option("--model", help="A saved model's folder, or a hub id; by default tiny, packaged.")
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint", help="The base SAM: its file, or a published one's name (see weights); by default looked for."
    ),
]
ImageSizeOption = Annotated[
    int | None,
    typer.Option("--image-size", help="Side of the input square: smaller is faster; the model's own by default."),
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps; the best there is by default.")]
ExampleOption = Annotated[
    list[str] | None, typer.Option("--example", metavar="IMG:MASK", help="An annotated image; may be repeated.")
]
TextOption = Annotated[list[str] | None, typer.Option("--text", help="One sentence that names one object.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=_hush, help="No progress, no notes, no warnings, no lines: errors alone."),
]


def load_model(
    folder: str | None, checkpoint: str | None, device: str | None, image_size: int | None, *, quiet: bool
) -> TrainableModel:
    """The model, ready to be asked; without a name the packaged one, which is said."""
    if folder is None:
        note(
            "no --model was given: this is the packaged tiny one, which knows drawn shapes, not photographs",
            quiet=quiet,
        )
    from sam_uniref.loading import load_for_use

    return load_for_use(folder or DEFAULT_MODEL, checkpoint, chosen_device(device), image_size)


def chosen_device(name: str | None) -> torch.device:
    """The named device, which must be there; or the best there is."""
    from sam_uniref.loading import best_device, named_device

    return best_device() if name is None else named_device(name)


def one_sentence(given: Sequence[str] | None) -> str | None:
    """What --text was given, at most once."""
    if given and len(given) > 1:
        raise ValueError(f"--text takes one sentence, got {len(given)}; a sentence names one object, so ask twice")
    return check_one_sentence(given[0]) if given else None


def numbers(given: str, count: int, option: str) -> list[float]:
    """``count`` numbers with commas between."""
    try:
        values = [float(part) for part in given.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise ValueError(f"{option} takes {count} numbers with commas between, got {given!r}")
    return values


def annotated_images(given: Sequence[str] | None) -> list[MaskReference]:
    """Annotated images from ``IMG:MASK``, split at the last colon."""
    if not given:
        return []
    from sam_uniref.reference import MaskReference

    examples = []
    for pair in given:
        image, _, mask = pair.rpartition(":")
        if not image or not mask:
            raise ValueError(f"--example takes IMG:MASK, got {pair!r}")
        examples.append(MaskReference(image, mask))
    return examples


def by_number(given: Sequence[str] | None, option: str, kind: Callable[[str], T]) -> dict[int, T]:
    """``{number: value}`` from ``NUMBER:VALUE``, split at the first colon."""
    values: dict[int, T] = {}
    for pair in given or []:
        number, _, value = pair.partition(":")
        if not (number.isascii() and number.isdecimal()) or not value:
            raise ValueError(f"{option} takes a number, a colon and a value, got {pair!r}")
        if len(number) > _MOST_DIGITS:
            raise ValueError(f"{option} takes numbers of at most {_MOST_DIGITS} digits, got {pair[:60]!r}")
        if int(number) in values:
            raise ValueError(f"{option} was given twice for {number}")
        values[int(number)] = kind(value)
    return values
