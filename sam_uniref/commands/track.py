"""``sam-uniref track``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sam_uniref.commands.options import (
    CheckpointOption,
    DeviceOption,
    ImageSizeOption,
    JsonOption,
    ModelOption,
    QuietOption,
    by_number,
    load_model,
)
from sam_uniref.commands.output import complain, print_json, progress
from sam_uniref.output_checks import check_output_file, check_output_folder
from sam_uniref.sentences import check_known_words, check_one_sentence

if TYPE_CHECKING:
    from sam_uniref.track_files import TrackFiles
    from sam_uniref.tracking import FrameResult
    from sam_uniref.video import FrameReader

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


def track(
    frames: FramesArgument,
    model: ModelOption = None,
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
    quiet: QuietOption = False,
) -> None:
    """Follow objects through a video."""
    joining = by_number(new_mask, "--new-mask", Path)
    texts = by_number(text, "--text", check_one_sentence)
    names = {**texts, **by_number(name, "--name", str)}
    if masks is None and not joining and not texts:
        raise ValueError("nothing to track: give --masks, --new-mask or --text")
    written = [path for path in (out, overlay, rle) if path is not None]
    if not written:
        raise ValueError("nothing to write: give --out, --overlay or --rle")
    pictures = _checked_places(frames, out, overlay, rle, read=[*([masks] if masks else []), *joining.values()])
    from sam_uniref.track_files import TrackFiles
    from sam_uniref.video import read_frames

    reader = read_frames(_camera_or_path(frames))
    files = TrackFiles(
        masks=out,
        overlay=overlay,
        rle=rle,
        pictures=pictures,
        names=names,
        frames_per_second=reader.frames_per_second or frames_per_second,
    )
    network = load_model(model, checkpoint, device, image_size, quiet=quiet)
    for sentence in texts.values():
        check_known_words(sentence, network)
    results = network.track(
        reader,
        masks=masks,
        texts=texts,
        new_masks=joining,
        score_threshold=score_threshold,
        frame_references=frame_references,
    )
    with reader, files:
        count, seen = write_track(results, reader, files, quiet=quiet)
    if as_json:
        print_json({"out": out, "overlay": overlay, "rle": rle, "frames": count, "frames_visible": seen})
    elif not quiet:
        typer.echo(f"{count} frames in {', '.join(map(str, written))}")
        for object_id, frames_visible in seen.items():
            typer.echo(f"object {object_id}: visible in {frames_visible} frames")
    if reader.broke_off is not None:
        complain(f"{reader.broke_off}; what was found until then is written")
        raise typer.Exit(1)


def write_track(
    results: Iterator[FrameResult], reader: FrameReader, files: TrackFiles, *, quiet: bool = False
) -> tuple[int, dict[int, int]]:
    """Write every frame's result, with a progress bar where somebody watches.

    Returns:
        How many frames there were, and per object id in how many of them it was visible.
    """
    seen: dict[int, int] = {}
    count = 0
    for result in progress(results, what="tracking", total=reader.expected, unit="frames", quiet=quiet):
        if reader.latest is not None:
            files.write(reader.latest, result)
        count += 1
        for object_id, visible in result.visible.items():
            seen[object_id] = seen.get(object_id, 0) + visible
    return count, seen


def _checked_places(
    frames: Path, out: Path | None, overlay: Path | None, rle: Path | None, read: Sequence[Path]
) -> list[Path] | None:
    """The pictures that are read, if it is not a video, after a look at where results are to go."""
    from sam_uniref.video import picture_files

    pictures = picture_files(frames)
    read = [*read, *(pictures or [])]
    for path in (path for path in (out, overlay, rle) if path is not None):
        if path == out:
            check_output_folder(path, read=read)
        else:
            check_output_file(path, read=[*read, frames])
    if out is not None:
        _check_names(frames, pictures or [])
    return pictures


def _camera_or_path(frames: Path) -> Path | int:
    """The number of a camera, if it is one and there is no file of that name."""
    return int(str(frames)) if str(frames).isdecimal() and not frames.exists() else frames


def _check_names(frames: Path, pictures: Sequence[Path]) -> None:
    """Refuse pictures that differ in their suffix or folder alone, since masks are named after them."""
    stems = Counter(path.stem for path in pictures)
    twice = sorted(stem for stem, count in stems.items() if count > 1)
    if twice:
        raise ValueError(f"{frames} has more than one picture called {twice[0]}; masks are named after them")
