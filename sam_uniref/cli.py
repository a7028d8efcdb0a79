"""The ``sam-uniref`` command: info, segment, encode, track.

Heavy imports stand inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from sam_uniref.version import __version__

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL import Image as PILImage

    from sam_uniref.reference import MaskReference
    from sam_uniref.samref import SamRef
    from sam_uniref.tracking import FrameResult

T = TypeVar("T")

_PACKAGES = ("torch", "torchvision", "transformers", "segment-anything", "peft", "numpy", "pillow", "av", "flash-attn")
# 255 is void in palette masks.
_LARGEST_PALETTE_ID = 254


class _OneLineErrors(TyperGroup):
    """What a user did wrong is told in one line on stderr, with exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:
            from rich.console import Console
            from rich.text import Text

            line = " ".join(f"error: {error}".split())
            Console(stderr=True).print(Text(line, style="bold red"), soft_wrap=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Segment the object that a reference points at - a sentence, annotated examples, a first frame.",
)

ModelOption = Annotated[str, typer.Option("--model", help="Folder that save_pretrained wrote, or tiny: packaged.")]
CheckpointOption = Annotated[
    Path | None, typer.Option("--checkpoint", help="The base SAM's file, where it is not beside the model.")
]
ImageSizeOption = Annotated[
    int | None,
    typer.Option("--image-size", help="Side of the input square: smaller is faster; the model's own by default."),
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps; the best there is by default.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ExampleOption = Annotated[
    list[str] | None, typer.Option("--example", metavar="IMG:MASK", help="An annotated image; may be repeated.")
]


def main() -> None:
    """The ``sam-uniref`` entry point."""
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
) -> None:
    """Options before the command."""


@app.command()
def info(device: DeviceOption = None, as_json: JsonOption = False) -> None:
    """Versions, the device, and which attention is used."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from sam_uniref.adapters.attention import flash_is_usable

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    chosen = _device(device)
    flash = flash_is_usable(torch.empty(0, dtype=torch.bfloat16, device=chosen), 256)
    report = {
        "sam_uniref": __version__,
        "python": platform.python_version(),
        **{package: installed(package) for package in _PACKAGES},
        "device": str(chosen),
        "device_name": torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else platform.machine(),
        "attention": "flash-attn in half precision, torch SDPA otherwise" if flash else "torch SDPA",
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    for name, value in report.items():
        typer.echo(f"{name:<18}{value or 'not installed'}")


@app.command()
def segment(
    image: Annotated[Path, typer.Argument(help="The picture.")],
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", help="Folder for <stem>.mask.png and <stem>.overlay.png.")],
    checkpoint: CheckpointOption = None,
    image_size: ImageSizeOption = None,
    text: Annotated[str | None, typer.Option("--text", help="A sentence that names one object.")] = None,
    example: ExampleOption = None,
    reference: Annotated[Path | None, typer.Option("--reference", help="A file that encode wrote.")] = None,
    point: Annotated[
        list[str] | None, typer.Option("--point", metavar="X,Y", help="A point on the object; may be repeated.")
    ] = None,
    box: Annotated[str | None, typer.Option("--box", metavar="X0,Y0,X1,Y1", help="A box around the object.")] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Segment one object in a picture."""
    if not (text is not None or example or reference or point or box):
        raise ValueError("say what to segment: --text, --example, --reference, --point or --box")
    points = [_numbers(given, 2, "--point") for given in point or []]
    corners = None if box is None else _numbers(box, 4, "--box")
    examples = _examples(example)
    _check_output_folder(out)
    from PIL import Image as PILImage

    from sam_uniref.images import load_image
    from sam_uniref.reference import Reference

    picture = load_image(image)
    encoded = None if reference is None else Reference.load(reference)
    network = _load_model(model, checkpoint, device, image_size)
    found = network.segment(
        picture, text=text, examples=examples or None, reference=encoded, points=points or None, box=corners
    )
    mask_file, overlay_file = out / f"{image.stem}.mask.png", out / f"{image.stem}.overlay.png"
    _save_picture(PILImage.fromarray(found.mask.astype("uint8") * 255), mask_file)
    _save_picture(PILImage.fromarray(found.overlay(picture)), overlay_file)
    if as_json:
        answer = {"image": image, "score": found.score, "box": found.box, "mask": mask_file, "overlay": overlay_file}
        typer.echo(json.dumps(answer, default=str))
        return
    typer.echo(f"score {found.score:.3f}")
    typer.echo("box   " + ("none: the mask is empty" if found.box is None else ",".join(map(str, found.box))))
    typer.echo(f"mask  {mask_file}\nover  {overlay_file}")


@app.command()
def encode(
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    text: Annotated[str | None, typer.Option("--text", help="A sentence that names one object.")] = None,
    example: ExampleOption = None,
    checkpoint: CheckpointOption = None,
    image_size: ImageSizeOption = None,
    device: DeviceOption = None,
) -> None:
    """Encode a sentence or annotated images once, for segment --reference."""
    examples = _examples(example)
    if text is None and not examples:
        raise ValueError("a reference needs --text, --example, or both")
    if out.is_dir():
        raise ValueError(f"{out} is a folder; --out must name a file, such as {out / 'ref.safetensors'}")
    _load_model(model, checkpoint, device, image_size).encode_reference(text=text, examples=examples or None).save(out)
    typer.echo(str(out))


@app.command()
def track(
    frames: Annotated[Path, typer.Argument(metavar="VIDEO_OR_FOLDER", help="A video, or a folder of pictures.")],
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", help="Folder for a palette PNG a frame, named after it.")],
    masks: Annotated[Path | None, typer.Option("--masks", help="Objects in the first frame: a palette PNG.")] = None,
    new_mask: Annotated[
        list[str] | None,
        typer.Option("--new-mask", metavar="FRAME:PNG", help="Objects that join at a frame, counted from 0."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="ID:SENTENCE", help="An object that a sentence names.")
    ] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option("--score-threshold", help="Below it an object is not visible; by default 0.4, by sentence 0.3."),
    ] = None,
    frame_references: Annotated[
        str,
        typer.Option(
            "--frame-references",
            help="Frames whose masks an object is found by: both (first and previous), first, previous or none.",
        ),
    ] = "both",
    checkpoint: CheckpointOption = None,
    image_size: ImageSizeOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow objects through a video."""
    joining = _by_number(new_mask, "--new-mask", Path)
    texts = _by_number(text, "--text", str)
    if masks is None and not joining and not texts:
        raise ValueError("nothing to track: give --masks, --new-mask or --text")
    _check_output_folder(out, keep=[*([masks] if masks else []), *joining.values()], frames=frames)
    names = _frame_names(frames)
    network = _load_model(model, checkpoint, device, image_size)
    results = network.track(
        frames,
        masks=masks,
        texts=texts,
        new_masks=joining,
        score_threshold=score_threshold,
        frame_references=frame_references,
    )
    seen: dict[int, int] = {}
    count = 0
    for result in _with_progress(results, names):
        _save_labels(result, out / f"{names[result.index] if names else f'{result.index:05d}'}.png")
        count += 1
        for object_id, visible in result.visible.items():
            seen[object_id] = seen.get(object_id, 0) + visible
    if as_json:
        typer.echo(json.dumps({"out": str(out), "frames": count, "frames_visible": seen}))
        return
    typer.echo(f"{count} frames in {out}")
    for object_id, frames_visible in seen.items():
        typer.echo(f"object {object_id}: visible in {frames_visible} frames")


def _load_model(folder: str, checkpoint: Path | None, device: str | None, image_size: int | None) -> SamRef:
    """The model, ready to be asked."""
    from sam_uniref.loading import load_for_use

    return load_for_use(folder, checkpoint, _device(device), image_size)


def _device(name: str | None) -> torch.device:
    """The named device, which must be there; or the best there is."""
    from sam_uniref.loading import best_device, named_device

    return best_device() if name is None else named_device(name)


def _numbers(given: str, count: int, option: str) -> list[float]:
    """``count`` numbers with commas between."""
    try:
        numbers = [float(part) for part in given.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise ValueError(f"{option} takes {count} numbers with commas between, got {given!r}")
    return numbers


def _examples(given: Sequence[str] | None) -> list[MaskReference]:
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


def _by_number(given: Sequence[str] | None, option: str, kind: Callable[[str], T]) -> dict[int, T]:
    """``{number: value}`` from ``NUMBER:VALUE``, split at the first colon."""
    values: dict[int, T] = {}
    for pair in given or []:
        number, _, value = pair.partition(":")
        if not number.isdecimal() or not value:
            raise ValueError(f"{option} takes a number, a colon and a value, got {pair!r}")
        if int(number) in values:
            raise ValueError(f"{option} was given twice for {number}")
        values[int(number)] = kind(value)
    return values


def _check_output_folder(out: Path, *, keep: Sequence[Path] = (), frames: Path | None = None) -> None:
    """Refuse to write where it can't be, or over what is read."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a folder, and {out} is a file")
    read = [file for file in keep if file.resolve().parent == out.resolve()]
    if frames is not None and frames.resolve() == out.resolve():
        read.append(frames)
    if read:
        raise ValueError(f"--out {out} is where {read[0]} is read from; give another folder")


def _frame_names(frames: Path) -> list[str] | None:
    """What the frames of a folder are called; None for a video, whose frames have numbers."""
    if not frames.is_dir():
        return None
    from sam_uniref.video import picture_files

    names = [path.stem for path in picture_files(frames)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{frames} has more than one picture called {twice[0]}; masks are named after them")
    return names


def _with_progress(results: Iterable[FrameResult], names: Sequence[str] | None) -> Iterator[FrameResult]:
    """The results, with a progress bar where somebody watches."""
    from rich.console import Console
    from rich.progress import track as progress

    console = Console(stderr=True)
    total = None if names is None else len(names)
    yield from progress(results, "tracking", total=total, console=console, disable=not console.is_terminal)


def _save_labels(result: FrameResult, path: Path) -> None:
    """A frame's object ids as a palette PNG in PASCAL VOC's colours."""
    from PIL import Image as PILImage

    from sam_uniref.segmentation import id_color

    labels: NDArray[Any] = result.labels
    if labels.max() > _LARGEST_PALETTE_ID:
        raise ValueError(f"a palette PNG holds ids up to {_LARGEST_PALETTE_ID}, got {labels.max()}")
    picture = PILImage.fromarray(labels.astype("uint8"))
    picture.putpalette([channel for object_id in range(256) for channel in id_color(object_id)])
    _save_picture(picture, path)


def _save_picture(picture: PILImage.Image, path: Path) -> None:
    """Write a PNG; it is whole or not there."""
    from sam_uniref.state import whole_file

    with whole_file(path) as temporary:
        picture.save(temporary, format="PNG")


if __name__ == "__main__":
    main()
