"""The ``sam-uniref`` command: info, segment, encode, track, convert, cache; and data, which has commands of its own.

Heavy imports stand inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from sam_uniref.cache_cli import cache
from sam_uniref.convert_cli import convert
from sam_uniref.data_cli import JsonOption, data_app
from sam_uniref.output_checks import check_output_file, check_output_folder
from sam_uniref.version import __version__
from sam_uniref.weights_cli import weights

if TYPE_CHECKING:
    import torch
    from PIL import Image as PILImage

    from sam_uniref.reference import MaskReference
    from sam_uniref.track_files import TrackFiles
    from sam_uniref.tracking import FrameResult
    from sam_uniref.trainable import TrainableModel
    from sam_uniref.video import FrameReader

T = TypeVar("T")

_PACKAGES = ("torch", "torchvision", "transformers", "segment-anything", "peft", "numpy", "pillow", "av", "flash-attn")


class _OneLineErrors(TyperGroup):
    """What a user did wrong is told in one line on stderr, with exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:
            _complain(str(error))
            raise typer.Exit(2) from error


def _complain(message: str) -> None:
    """Tell in one line on stderr what went wrong."""
    from rich.console import Console
    from rich.text import Text

    line = " ".join(f"error: {message}".split())
    Console(stderr=True).print(Text(line, style="bold red"), soft_wrap=True)


app = typer.Typer(
    cls=_OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Segment the object that a reference points at - a sentence, annotated examples, a first frame.",
)
app.add_typer(data_app, name="data")
app.command()(convert)
app.command()(cache)
app.command()(weights)

ModelOption = Annotated[str, typer.Option("--model", help="A saved model's folder, tiny: packaged, or a hub id.")]
CheckpointOption = Annotated[
    Path | None, typer.Option("--checkpoint", help="The base SAM's file, where it is not beside the model.")
]
ImageSizeOption = Annotated[
    int | None,
    typer.Option("--image-size", help="Side of the input square: smaller is faster; the model's own by default."),
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps; the best there is by default.")]
FramesArgument = Annotated[
    Path, typer.Argument(metavar="FRAMES", help="A video, a folder or 'glob' of pictures, or a camera's number.")
]
NameOption = Annotated[
    list[str] | None, typer.Option("--name", metavar="ID:NAME", help="What an object is called in the results.")
]
FramesPerSecondOption = Annotated[
    float, typer.Option("--frames-per-second", help="Of --overlay, where the frames have no times of their own.")
]
NewMaskOption = Annotated[
    list[str] | None,
    typer.Option("--new-mask", metavar="FRAME:PNG", help="Objects that join at a frame, counted from 0."),
]
ScoreThresholdOption = Annotated[
    float | None,
    typer.Option("--score-threshold", help="Below it an object is not visible; by default 0.4, by sentence 0.3."),
]
FrameReferencesOption = Annotated[
    str,
    typer.Option(
        "--frame-references",
        help="Frames whose masks an object is found by: both (first and previous), first, previous or none.",
    ),
]
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
    check_output_folder(out)
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
    frames: FramesArgument,
    model: ModelOption,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for a palette PNG a frame, named after it.")] = None,
    overlay: Annotated[Path | None, typer.Option("--overlay", help="An .mp4 with the objects painted on.")] = None,
    rle: Annotated[Path | None, typer.Option("--rle", help="A COCO .json with the masks run-length encoded.")] = None,
    masks: Annotated[Path | None, typer.Option("--masks", help="Objects in the first frame: a palette PNG.")] = None,
    new_mask: NewMaskOption = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="ID:SENTENCE", help="An object that a sentence names.")
    ] = None,
    name: NameOption = None,
    score_threshold: ScoreThresholdOption = None,
    frame_references: FrameReferencesOption = "both",
    frames_per_second: FramesPerSecondOption = 10,
    checkpoint: CheckpointOption = None,
    image_size: ImageSizeOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow objects through a video."""
    joining = _by_number(new_mask, "--new-mask", Path)
    texts = _by_number(text, "--text", str)
    names = {**texts, **_by_number(name, "--name", str)}
    if masks is None and not joining and not texts:
        raise ValueError("nothing to track: give --masks, --new-mask or --text")
    written = [path for path in (out, overlay, rle) if path is not None]
    if not written:
        raise ValueError("nothing to write: give --out, --overlay or --rle")
    from sam_uniref.track_files import TrackFiles
    from sam_uniref.video import picture_files, read_frames

    pictures = picture_files(frames)
    read = [*([masks] if masks else []), *joining.values(), *(pictures or [])]
    for path in written:
        if path == out:
            check_output_folder(path, read=read)
        else:
            check_output_file(path, read=[*read, frames])
    if out is not None:
        _check_names(frames, pictures or [])
    reader = read_frames(_camera_or_path(frames))
    files = TrackFiles(
        masks=out,
        overlay=overlay,
        rle=rle,
        pictures=pictures,
        names=names,
        frames_per_second=reader.frames_per_second or frames_per_second,
    )
    results = _load_model(model, checkpoint, device, image_size).track(
        reader,
        masks=masks,
        texts=texts,
        new_masks=joining,
        score_threshold=score_threshold,
        frame_references=frame_references,
    )
    with reader, files:
        count, seen = _write_track(results, reader, files)
    if as_json:
        answer = {"out": out, "overlay": overlay, "rle": rle, "frames": count, "frames_visible": seen}
        typer.echo(json.dumps(answer, default=str))
    else:
        typer.echo(f"{count} frames in {', '.join(map(str, written))}")
        for object_id, frames_visible in seen.items():
            typer.echo(f"object {object_id}: visible in {frames_visible} frames")
    if reader.broke_off is not None:
        _complain(f"{reader.broke_off}; what was found until then is written")
        raise typer.Exit(1)


def _load_model(folder: str, checkpoint: Path | None, device: str | None, image_size: int | None) -> TrainableModel:
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


def _camera_or_path(frames: Path) -> Path | int:
    """The number of a camera, if it is one and there is no file of that name."""
    return int(str(frames)) if str(frames).isdecimal() and not frames.exists() else frames


def _check_names(frames: Path, pictures: Sequence[Path]) -> None:
    """Refuse pictures that differ in their suffix or folder alone, since masks are named after them."""
    stems = Counter(path.stem for path in pictures)
    twice = sorted(stem for stem, count in stems.items() if count > 1)
    if twice:
        raise ValueError(f"{frames} has more than one picture called {twice[0]}; masks are named after them")


def _write_track(results: Iterator[FrameResult], reader: FrameReader, files: TrackFiles) -> tuple[int, dict[int, int]]:
    """Write every frame's result, with a progress bar where somebody watches.

    Returns:
        How many frames there were, and per object id in how many of them it was visible.
    """
    from tqdm.auto import tqdm

    seen: dict[int, int] = {}
    count = 0
    for result in tqdm(results, desc="tracking", total=reader.expected, unit=" frames", disable=None):
        if reader.latest is not None:
            files.write(reader.latest, result)
        count += 1
        for object_id, visible in result.visible.items():
            seen[object_id] = seen.get(object_id, 0) + visible
    return count, seen


def _save_picture(picture: PILImage.Image, path: Path) -> None:
    """Write a PNG; it is whole or not there."""
    from sam_uniref.state import whole_file

    with whole_file(path) as temporary:
        picture.save(temporary, format="PNG")


if __name__ == "__main__":
    main()
