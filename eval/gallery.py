"""Look at what models answer: a page of pictures and a video of RefShapes validation, for one model or several.

    python eval/gallery.py --model runs/folder/model --out runs/gallery
    python eval/gallery.py --model before=runs/first/model --model after=runs/second/model --out runs/gallery

Writes FOLDER/index.html, FOLDER/pictures/ and FOLDER/tracking.mp4. The folder is whole or not there. A gallery that
is there already is replaced; a folder that holds anything else is refused. What is shown is not chosen: it is always
the first episodes of those that `sam_uniref.eval.refshapes_protocol` scores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sam_uniref import page
from sam_uniref.data.refshapes import STYLES, Style
from sam_uniref.eval.commands import OneLineParser, say_error
from sam_uniref.eval.exhibits import Exhibits
from sam_uniref.eval.figures import PICTURES
from sam_uniref.loading import best_device, load_for_use, named_device
from sam_uniref.predictor import Predictor
from sam_uniref.state import whole_folder

GENERATOR = "sam_uniref.eval.gallery"


def write_gallery(
    models: Mapping[str, Predictor], out: str | Path, *, count: int = 6, style: Style = "textured"
) -> Path:
    """Write a page on which models answer the first episodes of RefShapes validation, and a video of the last model.

    Args:
        models: In evaluation mode, by what the page calls them; shown in this order.
        out: Folder to write. A gallery that is there is replaced.
        count: Scenes or clips of each task.
        style: ``textured`` as in training, or ``plain``, which no training has seen.

    Returns:
        The page, ``out/index.html``.

    Raises:
        FileExistsError: If there is something else than a gallery, which would be replaced.
        ValueError: If there is no model, the count is below 1, or a model cannot be asked one of the tasks.
    """
    if not models:
        raise ValueError("a gallery needs at least one model")
    if count < 1:
        raise ValueError(f"a gallery shows at least 1 episode of each task, got {count}")
    out = Path(out)
    check_place(out)
    with whole_folder(out) as folder:
        (folder / PICTURES).mkdir()
        (folder / page.PAGE).write_text(Exhibits(models, folder, count, style).page(GENERATOR), encoding="utf-8")
    return out / page.PAGE


def check_place(out: Path) -> None:
    """Refuse to write a gallery where anything but a gallery is.

    Raises:
        FileExistsError: Naming what is there.
    """
    page.check_place(out, "gallery", GENERATOR, others=(PICTURES,))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        required=True,
        action="append",
        metavar="[LABEL=]FOLDER",
        help="folder that save_pretrained wrote, or a packaged model's name; may be repeated",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the gallery goes")
    parser.add_argument("--checkpoint", help="the models' base SAM's file, if it is not found by its name")
    parser.add_argument("--count", type=int, default=6, help="scenes or clips of each task")
    parser.add_argument("--style", choices=STYLES, default="textured", help="plain: unlike anything trained on")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; the best there is by default")
    return parser.parse_args(arguments)


def named_models(given: Sequence[str]) -> dict[str, str]:
    """``{label: folder}`` from ``LABEL=FOLDER``, or ``FOLDER``, which is then called by its name.

    Raises:
        ValueError: If a label or a folder is empty, or two models have the same label.
    """
    folders: dict[str, str] = {}
    for argument in given:
        label, equals, folder = argument.partition("=")
        if not equals or Path(argument).is_dir():
            label, folder = Path(argument).resolve().name, argument
        if not label or not folder:
            raise ValueError(f"--model takes FOLDER or LABEL=FOLDER, got {argument!r}")
        if label in folders:
            raise ValueError(f"two models are called {label!r}; tell them apart with --model LABEL=FOLDER")
        folders[label] = folder
    return folders


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    given = parse_arguments(arguments)
    try:
        folders = named_models(given.model)
        check_place(given.out)  # before models are loaded, which takes its time
        device = best_device() if given.device is None else named_device(given.device)
        models = {label: load_for_use(folder, given.checkpoint, device) for label, folder in folders.items()}
        written = write_gallery(models, given.out, count=given.count, style=given.style)
    except (ValueError, OSError) as error:
        return say_error(error)
    sys.stdout.write(f"{written}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
