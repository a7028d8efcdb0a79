"""The ``sam-uniref`` command: the list of all its commands, which live in `sam_uniref.commands`."""

from __future__ import annotations

from typing import Annotated

import typer

from sam_uniref.commands.app import OneLineErrors, end_at_sigterm, examples
from sam_uniref.commands.cache import cache
from sam_uniref.commands.convert import convert
from sam_uniref.commands.data import data_app
from sam_uniref.commands.demo import demo
from sam_uniref.commands.encode import encode
from sam_uniref.commands.export import export
from sam_uniref.commands.info import info
from sam_uniref.commands.scripts import PASSES_ON, benchmark, compare, evaluate, train
from sam_uniref.commands.segment import segment
from sam_uniref.commands.track import track
from sam_uniref.commands.weights import weights
from sam_uniref.version import __version__

app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Segment the object that a reference points at - a sentence, annotated examples, a first frame.",
    epilog="COMMAND --help has examples. Exit codes: 0 done, 2 what was given can't be used, 1 anything else.",
)

_USE, _TRAIN, _DATA = "Use", "Train and measure", "Data and files"

# ---- One entry a command, in the order of --help ----

app.command(
    rich_help_panel=_USE,
    epilog=examples(
        'sam-uniref segment street.jpg --text "the man on the left"',
        "sam-uniref segment pictures --example cat.jpg:cat.png --out masks",
        "sam-uniref segment 'pictures/**/*.jpg' --reference cat.safetensors --format coco",
        "sam-uniref segment street.jpg --point 320,200 --no-overlay --json",
    ),
)(segment)
app.command(
    rich_help_panel=_USE,
    epilog=examples(
        "sam-uniref track clip.mp4 --masks first.png --overlay tracked.mp4",
        'sam-uniref track frames --text "1:the red car" --out masks --rle masks.json',
        "sam-uniref track clip.mp4 --masks first.png --new-mask 40:late.png --out masks",
    ),
)(track)
app.command(
    rich_help_panel=_USE,
    epilog=examples(
        "sam-uniref encode --example cat.jpg:cat.png --out cat.safetensors",
        'sam-uniref encode --text "the cat" --model runs/folder/model --out cat.safetensors',
    ),
)(encode)
app.command(
    rich_help_panel=_USE, epilog=examples("sam-uniref demo", "sam-uniref demo --model runs/folder/model --port 8000")
)(demo)
app.command(rich_help_panel=_USE, epilog=examples("sam-uniref info", "sam-uniref info --json"))(info)

app.command(
    rich_help_panel=_TRAIN,
    context_settings=PASSES_ON,
    epilog=examples(
        "sam-uniref train quickstart",
        "sam-uniref train folder data.fss.root=my_data data.vos.weight=0 data.ris.weight=0",
        "sam-uniref train sam_vit_h_image --accelerate 8gpu --resume",
        "sam-uniref train sam_vit_h_video --plan",
    ),
)(train)
app.command(
    "eval",
    rich_help_panel=_TRAIN,
    context_settings=PASSES_ON,
    epilog=examples(
        "sam-uniref eval --model tiny --task ris --episodes 20 --out results/tiny",
        "sam-uniref eval --model runs/folder/model --data data/davis2017 --split val --task vos --out results/davis",
    ),
)(evaluate)
app.command(
    rich_help_panel=_TRAIN,
    context_settings=PASSES_ON,
    epilog=examples("sam-uniref compare compare_tiny --out runs/compare"),
)(compare)
app.command(
    rich_help_panel=_TRAIN,
    context_settings=PASSES_ON,
    epilog=examples(
        "sam-uniref benchmark encoder --size tiny", "sam-uniref benchmark track --model tiny --objects 1,4 --frames 10"
    ),
)(benchmark)

app.add_typer(data_app, name="data", rich_help_panel=_DATA)
app.command(
    rich_help_panel=_DATA,
    epilog=examples("sam-uniref cache --data refshapes --task ris --model tiny --out runs/features length=200"),
)(cache)
app.command(rich_help_panel=_DATA, epilog=examples("sam-uniref convert published.pth runs/uniref"))(convert)
app.command(
    rich_help_panel=_DATA,
    epilog=examples("sam-uniref export tiny exported", "sam-uniref export runs/folder/model exported --format torch"),
)(export)
app.command(rich_help_panel=_DATA, epilog=examples("sam-uniref weights", "sam-uniref weights vit_b"))(weights)


def main() -> None:
    """The ``sam-uniref`` entry point."""
    end_at_sigterm()
    app()


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; anywhere in a line.")] = False,
) -> None:
    """Options before the command."""


if __name__ == "__main__":
    main()
