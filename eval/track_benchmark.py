"""What tracking costs: time a frame, encoder passes and peak memory against objects, frames and image size.

Every row is a run of its own. All objects are seen in every frame, whatever the weights say: their masks are discs
that take the place of the answers, since costs are asked for here and not answers. So random weights cost what
trained ones do.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F
from tqdm.auto import tqdm

from sam_uniref.adapters import ReferenceFeatures, concat
from sam_uniref.eval.commands import counts
from sam_uniref.eval.machine import device_line, wait_for
from sam_uniref.eval.object_cost import unavoidable_parts
from sam_uniref.interfaces import MaskPrediction
from sam_uniref.loading import best_device, load_class_for_use, named_device
from sam_uniref.memory import peak_megabytes, reset_peak
from sam_uniref.packaged import PACKAGED
from sam_uniref.sam import SAM_SIZES
from sam_uniref.sam.image_encoder import PRECISIONS
from sam_uniref.samref import SamRef
from sam_uniref.state import whole_file, write_json
from sam_uniref.tracking import VideoTracker

# A 480p frame, as the paper rescales videos to.
HEIGHT, WIDTH = 480, 854


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        procedure: ``ours``, or ``published``.
        model: Its name, as given.
        objects: Tracked at once.
        frames: That were timed, each with a first and a previous frame as references.
        image_size: Side of the model's input square.
        precision: Of the computation.
        encoder_passes_per_frame: Pictures that went through the image encoder.
        seconds_per_frame_median: Of the timed frames.
        seconds_per_frame_p95: 95th percentile.
        peak_memory_mb: Of the whole process on the CPU, of tensors on a GPU, since the run began.
    """

    procedure: str
    model: str
    objects: int
    frames: int
    image_size: int
    precision: str
    encoder_passes_per_frame: float
    seconds_per_frame_median: float
    seconds_per_frame_p95: float
    peak_memory_mb: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``benchmark.py track``."""
    parser.add_argument("--model", required=True, help="vit_b, vit_l, vit_h, a saved model's folder, or tiny: packaged")
    parser.add_argument("--checkpoint", help="the base SAM's file")
    parser.add_argument(
        "--random-weights", action="store_true", help="for a size without --checkpoint; costs are the same"
    )
    parser.add_argument("--objects", type=counts, default=[1, 2, 4, 8, 16], help="such as 1,2,4")
    parser.add_argument("--frames", type=counts, default=[10], help="timed frames, such as 10,100,1000")
    parser.add_argument("--image-size", type=counts, help="such as 512,768,1024; the model's own by default")
    parser.add_argument("--reference-cost", action="store_true", help="the published procedure too, side by side")
    parser.add_argument("--object-cost", action="store_true", help="what an object adds, beside its unavoidable parts")
    parser.add_argument("--published-frames", type=int, default=3, help="timed frames of the published procedure")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the computation, by autocast")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; the best there is by default")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="write a picture of them, .png or .svg")


def load_model(arguments: argparse.Namespace, image_size: int | None, device: torch.device) -> SamRef:
    """The model at an image size.

    Raises:
        FileNotFoundError: If there is no such folder or checkpoint.
        ValueError: If a size has neither a checkpoint nor random weights.
    """
    name = arguments.model
    if name in PACKAGED or name not in SAM_SIZES:
        return load_class_for_use(SamRef, name, arguments.checkpoint, device, image_size)
    if arguments.checkpoint is None and not arguments.random_weights:
        raise ValueError(f"{name} has no weights: give --checkpoint or --random-weights")
    torch.manual_seed(0)
    return SamRef.from_sam(name, arguments.checkpoint, image_size=image_size).to(device).eval()


def picture(number: int) -> NDArray[np.uint8]:
    """A frame of noise, always the same."""
    return np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def discs(count: int) -> dict[int, NDArray[np.bool_]]:
    """So many objects side by side, none hiding another."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    across = int(np.ceil(np.sqrt(count * WIDTH / HEIGHT)))
    down = -(-count // across)
    radius = 0.4 * min(HEIGHT / down, WIDTH / across)
    centers = [((k // across + 0.5) * HEIGHT / down, (k % across + 0.5) * WIDTH / across) for k in range(count)]
    return {k: (rows - y) ** 2 + (columns - x) ** 2 < radius**2 for k, (y, x) in enumerate(centers, start=1)}


@contextmanager
def all_seen(model: SamRef, masks: Mapping[int, NDArray[np.bool_]]) -> Iterator[None]:
    """Answer with the objects' masks, after what the model would answer was computed."""
    scaled = torch.stack([model.transform.mask(mask) for mask in masks.values()])[:, None].to(model.device)
    predict = model.predict

    def answer(*given: Any, **options: Any) -> MaskPrediction:
        computed = predict(*given, **options)
        logits = F.interpolate(scaled, computed.logits.shape[-2:], mode="area") * 20 - 10
        return replace(computed, logits=logits, scores=torch.ones_like(computed.scores))

    model.predict = answer  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.predict  # the class's own is there again


@contextmanager
def counted_passes(model: SamRef) -> Iterator[list[int]]:
    """How many pictures each call of the image encoder took."""
    passes: list[int] = []
    handle = model.sam.image_encoder.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    try:
        yield passes
    finally:
        handle.remove()


def our_steps(model: SamRef, masks: Mapping[int, NDArray[np.bool_]]) -> Iterator[None]:
    """The tracker, a frame a step; ready at the first one, with a first and a previous frame."""
    tracker = VideoTracker(model)
    for object_id, mask in masks.items():
        tracker.add(object_id, mask=mask)
    with all_seen(model, masks):
        for number in count():
            result = tracker.step(picture(number))
            if not all(result.visible.values()):
                raise RuntimeError("an object was lost, and with it what it costs")
            if number >= 1:  # the second frame is the first one's previous one; its own step is not timed
                yield


@torch.no_grad()
def published_steps(model: SamRef, masks: Mapping[int, NDArray[np.bool_]]) -> Iterator[None]:
    """The published procedure on the same weights: objects one by one, the previous frame encoded again for each."""

    def reference(number: int, mask: NDArray[np.bool_]) -> ReferenceFeatures:
        features = model.encode_image(picture(number))
        scaled = model.transform.mask(mask)[None].to(model.device)
        return model.encode_mask(features, scaled, torch.zeros(1, dtype=torch.int64, device=model.device))

    first = {object_id: reference(0, mask) for object_id, mask in masks.items()}
    yield
    for number in count(1):
        features = model.encode_image(picture(number + 1))
        for object_id, mask in masks.items():
            model.predict(features, [concat([first[object_id], reference(number, mask)])])
        yield


PROCEDURES = {"ours": our_steps, "published": published_steps}


def measure(procedure: str, model: SamRef, arguments: argparse.Namespace, objects: int, frames: int) -> Row:
    """Time so many frames."""
    device = model.device
    precision = PRECISIONS[arguments.precision]
    autocast = torch.autocast(device.type, precision, enabled=precision != torch.float32)
    reset_peak(device)
    seconds = []
    with counted_passes(model) as passes, autocast:
        steps = PROCEDURES[procedure](model, discs(objects))
        next(steps)
        passes.clear()
        title = f"{procedure}, {objects} objects, {model.transform.size} px"
        for _ in tqdm(range(frames), desc=title, unit="frame", mininterval=1.0):
            start = time.perf_counter()
            next(steps)
            wait_for(device)
            seconds.append(time.perf_counter() - start)
        row = Row(
            procedure,
            arguments.model,
            objects,
            frames,
            model.transform.size,
            arguments.precision,
            sum(passes) / frames,
            statistics.median(seconds),
            float(np.percentile(seconds, 95)),
            peak_megabytes(device),
        )
        steps.close()  # type: ignore[attr-defined]
    return row


def run(arguments: argparse.Namespace) -> None:
    """Measure, show, write."""
    if arguments.published_frames < 1:
        raise ValueError(f"--published-frames must be at least 1, got {arguments.published_frames}")
    device = best_device() if arguments.device is None else named_device(arguments.device)
    rows: list[Row] = []
    costs: list[dict[str, float]] = []
    for image_size in arguments.image_size or [None]:
        model = load_model(arguments, image_size, device)
        for objects in arguments.objects:
            for frames in arguments.frames:
                rows.append(measure("ours", model, arguments, objects, frames))
            if arguments.reference_cost:
                rows.append(measure("published", model, arguments, objects, arguments.published_frames))
        if arguments.object_cost:
            costs.append(object_cost(model, arguments, rows))
    line = device_line(device)
    if arguments.json is not None:
        rest = {"object_cost": costs} if costs else {}
        write_json(arguments.json, {"device": line, "rows": [asdict(row) for row in rows], **rest})
    if arguments.plot is not None:
        draw(rows, line, arguments.plot)
    console = Console(width=130)
    console.print(table(rows, line))
    for cost in costs:
        console.print("Seconds: " + ", ".join(f"{part} {value:.3f}" for part, value in cost.items()))


def object_cost(model: SamRef, arguments: argparse.Namespace, rows: Sequence[Row]) -> dict[str, float]:
    """Seconds that one more object adds to a frame, and those of the parts of it that can't be shared.

    Raises:
        ValueError: If there is only one number of objects to compare.
    """
    ours = [r for r in rows if r.procedure == "ours" and r.image_size == model.transform.size]
    fewest, most = (choose(ours, key=lambda row: row.objects) for choose in (min, max))
    if fewest.objects == most.objects:
        raise ValueError("--object-cost needs two numbers of objects, such as --objects 1,4")
    precision = PRECISIONS[arguments.precision]
    with torch.no_grad(), torch.autocast(model.device.type, precision, enabled=precision != torch.float32):
        parts = unavoidable_parts(model, model.encode_image(picture(0)))
    added = most.seconds_per_frame_median - fewest.seconds_per_frame_median
    per_object = added / (most.objects - fewest.objects)
    whole = sum(parts.values())
    return {
        "image_size": model.transform.size,
        **parts,
        "sum of parts": whole,
        "an object adds": per_object,
        "ratio": per_object / whole,
    }


def table(rows: Sequence[Row], title: str) -> Table:
    """A row a run; published runs beside the ratio that ours take."""
    shown = Table("procedure", "px", title=title)
    for head in ("objects", "frames", "passes a frame", "s a frame, median", "95 %", "peak MB", "of published"):
        shown.add_column(head, justify="right")
    published = {(r.image_size, r.objects): r.seconds_per_frame_median for r in rows if r.procedure == "published"}
    for row in rows:
        whole = published.get((row.image_size, row.objects)) if row.procedure == "ours" else None
        shown.add_row(
            row.procedure,
            str(row.image_size),
            str(row.objects),
            str(row.frames),
            f"{row.encoder_passes_per_frame:g}",
            f"{row.seconds_per_frame_median:.3f}",
            f"{row.seconds_per_frame_p95:.3f}",
            f"{row.peak_memory_mb:.0f}",
            "" if whole is None else f"{row.seconds_per_frame_median / whole:.2f}",
        )
    return shown


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Time and memory against whatever varies, a line a procedure and image size."""
    from matplotlib.figure import Figure

    by_frames = len({row.objects for row in rows}) == 1
    figure = Figure(figsize=(10, 4), layout="constrained")
    lines = sorted({(row.procedure, row.image_size) for row in rows})
    for axes, field, label in zip(
        figure.subplots(1, 2),
        ("seconds_per_frame_median", "peak_memory_mb"),
        ("seconds a frame (median)", "peak memory (MB)"),
        strict=True,
    ):
        for line in lines:
            chosen = [row for row in rows if (row.procedure, row.image_size) == line]
            across = [row.frames if by_frames else row.objects for row in chosen]
            axes.plot(across, [getattr(row, field) for row in chosen], marker="o", label=f"{line[0]}, {line[1]} px")
        axes.set(xlabel="frames" if by_frames else "objects", ylabel=label, ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"{rows[0].model}: {title}", fontsize="medium")
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
