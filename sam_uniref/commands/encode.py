"""``sam-uniref encode``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sam_uniref.commands.options import (
    CheckpointOption,
    DeviceOption,
    ExampleOption,
    ImageSizeOption,
    JsonOption,
    ModelOption,
    QuietOption,
    TextOption,
    annotated_images,
    load_model,
    one_sentence,
)
from sam_uniref.commands.output import print_json
from sam_uniref.output_checks import check_output_file
from sam_uniref.sentences import check_known_words


def encode(
    out: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    model: ModelOption = None,
    text: TextOption = None,
    example: ExampleOption = None,
    checkpoint: CheckpointOption = None,
    image_size: ImageSizeOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Encode a sentence or annotated images once, for segment --reference."""
    sentence, examples = one_sentence(text), annotated_images(example)
    if sentence is None and not examples:
        raise ValueError("a reference needs --text, --example, or both")
    if out.is_dir():
        raise ValueError(f"{out} is a folder; --out must name a file, such as {out / 'ref.safetensors'}")
    check_output_file(out)
    network = load_model(model, checkpoint, device, image_size, quiet=quiet)
    if sentence is not None:
        check_known_words(sentence, network)
    reference = network.encode_reference(text=sentence, examples=examples or None)
    reference.save(out)
    if as_json:
        print_json(
            {"reference": out, "fingerprint": reference.fingerprint, "text": sentence, "examples": example or []}
        )
    elif not quiet:
        typer.echo(str(out))
