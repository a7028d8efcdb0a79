"""``sam-uniref segment``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    numbers,
    one_sentence,
)
from sam_uniref.commands.output import complain, print_beside, print_json, progress
from sam_uniref.output_checks import check_output_folder
from sam_uniref.sentences import check_characters, check_known_words

if TYPE_CHECKING:
    from sam_uniref.commands.mask_files import MaskFiles
    from sam_uniref.commands.pictures import NamedPicture
    from sam_uniref.reference import MaskReference, Reference
    from sam_uniref.segmentation import Segmentation
    from sam_uniref.trainable import TrainableModel

FormatOption = Annotated[
    list[str] | None,
    typer.Option("--format", help="png, palette, coco, label-studio, yolo or rle; may be repeated; png by default."),
]


@dataclass(frozen=True)
class _Asked:
    """What is to be found in every picture."""

    text: str | None
    examples: Sequence[MaskReference]
    reference: Path | None
    points: Sequence[Sequence[float]]
    box: Sequence[float] | None

    def files(self) -> list[Path]:
        """What is read beside the pictures."""
        shown = [Path(str(part)) for example in self.examples for part in (example.image, example.mask)]
        return shown if self.reference is None else [*shown, self.reference]

    def encoded(self, model: TrainableModel) -> Reference | None:
        """The reference, encoded once; None where points and box are all."""
        if self.text is None and not self.examples:
            return None
        if self.text is not None:
            check_known_words(self.text, model)
        return model.encode_reference(text=self.text, examples=self.examples or None)


def segment(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Pictures, folders of pictures, or 'globs'.")
    ],
    text: TextOption = None,
    example: ExampleOption = None,
    reference: Annotated[Path | None, typer.Option("--reference", help="A file that encode wrote.")] = None,
    point: Annotated[
        list[str] | None, typer.Option("--point", metavar="X,Y", help="A point on the object; may be repeated.")
    ] = None,
    box: Annotated[str | None, typer.Option("--box", metavar="X0,Y0,X1,Y1", help="A box around the object.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path("segmented"),
    formats: FormatOption = None,
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Also the picture with the mask painted on.")
    ] = True,
    label: Annotated[
        str | None, typer.Option("--label", help="What the object is called in files; the sentence by default.")
    ] = None,
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    image_size: ImageSizeOption = None,
    device: DeviceOption = None,
    max_pixels: Annotated[
        int | None, typer.Option("--max-pixels", help="Larger pictures are refused; 178,956,970 by default.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Segment one object in each of the pictures; the model is loaded once, the reference encoded once."""
    asked = _asked(text, example, reference, point, box)
    check_characters(label or "", "--label")
    check_output_folder(out)
    from sam_uniref.commands.mask_files import RESULT_ENDINGS, MaskFiles, checked_formats
    from sam_uniref.commands.pictures import find_pictures
    from sam_uniref.images import check_still, pixel_limit
    from sam_uniref.reference import Reference

    kinds = checked_formats(formats or ["png"])
    with pixel_limit(max_pixels):
        pictures = find_pictures(images)
        read = [picture.path for picture in pictures]
        if all(source.is_file() for source in images):
            read = [path for path in (*read, *asked.files()) if path.name.endswith(RESULT_ENDINGS)]
        check_output_folder(out, read=read)
        if len(pictures) == 1:
            check_still(pictures[0].path)  # refuses what is no picture before a model is loaded
        encoded = None if asked.reference is None else Reference.load(asked.reference)
        network = load_model(model, checkpoint, device, image_size, quiet=quiet)
        encoded = encoded or asked.encoded(network)
        files = MaskFiles(out, kinds, label or asked.text or "", overlay=overlay)
        refused = _segment_all(network, pictures, asked, encoded, files, as_json=as_json, quiet=quiet)
    if refused:
        if len(pictures) > 1:
            complain(f"{refused} of {len(pictures)} pictures were left out, as said above")
        raise typer.Exit(2)


def _asked(
    text: Sequence[str] | None,
    example: Sequence[str] | None,
    reference: Path | None,
    point: Sequence[str] | None,
    box: str | None,
) -> _Asked:
    """What the options say, which must be something."""
    sentence = one_sentence(text)
    if not (sentence is not None or example or reference or point or box):
        raise ValueError("say what to segment: --text, --example, --reference, --point or --box")
    points = [numbers(given, 2, "--point") for given in point or []]
    corners = None if box is None else numbers(box, 4, "--box")
    if reference is not None and (sentence is not None or example):
        raise ValueError("give --reference, or --text and --example, not both; encode joins them in one file")
    return _Asked(sentence, annotated_images(example), reference, points, corners)


def _segment_all(
    network: TrainableModel,
    pictures: Sequence[NamedPicture],
    asked: _Asked,
    encoded: Reference | None,
    files: MaskFiles,
    *,
    as_json: bool,
    quiet: bool,
) -> int:
    """Ask about every picture, write and tell; how many could not be read, each of which is told too."""
    from sam_uniref.images import check_still, load_image

    refused = 0
    bar = progress(what="segmenting", unit="pictures", total=len(pictures), quiet=quiet or len(pictures) == 1)
    with bar, files:
        for picture in pictures:
            try:
                check_still(picture.path)
                image = load_image(picture.path)
                _check_inside(asked.points, picture, image.shape[:2])
            except (ValueError, OSError) as error:
                refused += 1
                complain(str(error))
                if as_json:
                    print_json({"image": picture.path, "error": str(error)})
                bar.update()
                continue
            found = network.segment(image, reference=encoded, points=asked.points or None, box=asked.box)
            written = files.write(picture, image, found)
            bar.update()
            if as_json:
                print_json(_answer(picture, found, written))
            elif not quiet:
                print_beside(bar, _line(picture, found, written))
    return refused


def _check_inside(points: Sequence[Sequence[float]], picture: NamedPicture, size: tuple[int, ...]) -> None:
    """Refuse a point that is not in the picture, ``(height, width)``."""
    height, width = size
    for x, y in points:
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(f"--point {x:g},{y:g} is outside of {picture.path}, which is {width} x {height} pixels")


def _answer(picture: NamedPicture, found: Segmentation, written: dict[str, Path]) -> dict[str, Any]:
    """A picture's line of JSON."""
    return {"image": picture.path, "score": found.score, "box": found.box, "mask": None, "overlay": None, **written}


def _line(picture: NamedPicture, found: Segmentation, written: dict[str, Path]) -> str:
    """A picture's line for people."""
    box = "nothing found" if found.box is None else "box " + ",".join(map(str, found.box))
    return f"{picture.path}  score {found.score:.3f}  {box}  {'  '.join(map(str, written.values()))}".rstrip()
