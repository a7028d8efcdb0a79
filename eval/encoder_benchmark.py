"""SAM's image encoder beside segment-anything's own and transformers', in one run: time, memory, floor.

All encoders have the same random weights and encode the same pictures of noise, each in its turn, round after round,
so that a machine that is busy for a while is so for all. In the same rounds stand a large matrix product in each
precision and a large copy. The *floor* is what the encoder's matrix products would take at the speed of the one, or
their bytes at that of the other, whichever is longer; the *gap* is the time over the floor. *Speed* and *memory* are
ratios to the first row's.

*Peak memory* is that of one batch in a fresh process with nothing but this encoder in it: all its resident memory on
the CPU, tensors on a GPU. *Error* is the embedding's largest difference from segment-anything's in float32, over its
largest value. *Mask IoU* is the mean agreement of the masks that one and the same decoder, in float32, makes of this
embedding and of segment-anything's float32 one, for nine points a picture, three masks a point. With random weights
masks are ragged, which makes agreement harder; it compares implementations and precisions, and is no quality.

With ``--pictures`` rows of a picture and a point to masks are measured in the same rounds: segment-anything's
``Sam.forward``, transformers' ``SamModel``, and ours, each with its own encoder and decoder; their floor has the
decoder's products too, and their mask IoU is that of the whole answer, to ``Sam.forward``'s in float32.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from segment_anything.modeling import Sam
from torch import Tensor
from tqdm.auto import tqdm

from sam_uniref.eval.benchmark_table import BenchmarkRow, add_common_arguments, check_positive, chosen_device, report
from sam_uniref.eval.commands import names_of
from sam_uniref.eval.encoder_costs import COPY, Probe, peak_probes, products
from sam_uniref.eval.encoders import COMPILED, IMPLEMENTATIONS, ORIGINAL, Case, noise, random_sam
from sam_uniref.eval.floor import counted_flops
from sam_uniref.eval.machine import wait_for
from sam_uniref.eval.whole_pictures import (
    build_task,
    decoded,
    masks_of_points,
    mean_iou,
    peak_alone,
    prompted_host,
)
from sam_uniref.sam import SAM_SIZES, ImageEncoder
from sam_uniref.sam.image_encoder import PRECISIONS

_UNITS = {COPY: "B"}


@dataclass(frozen=True, kw_only=True)
class EncoderRow(BenchmarkRow):
    """One implementation in one precision. The benchmark is ``encoder``, or ``picture``: a point's masks.

    Attributes:
        image_size: Side of the input square in pixels.
        batch_size: Pictures at once.
        images_per_second: By the median.
        seconds_fastest: A batch.
        speed: Times the pictures a second of the first row of the benchmark.
        memory: The peak over that row's.
        error: Of the embedding; None for masks.
        mask_iou: Agreement of masks.
    """

    image_size: int
    batch_size: int
    images_per_second: float
    seconds_fastest: float
    speed: float
    memory: float
    error: float | None
    mask_iou: float


@dataclass(frozen=True)
class Answer:
    """How near a case's answer is to segment-anything's in float32; see `EncoderRow`."""

    error: float | None
    mask_iou: float


@dataclass(frozen=True)
class Floor:
    """What can't be done without, and how fast the machine does it.

    Attributes:
        operations: Of all matrix products of a batch in the encoder.
        elements: That they read and write.
        decoder_operations: Of a point's masks, for a batch; in float32 whatever the encoder is in.
        per_second: Operations by precision, and bytes copied.
    """

    operations: int
    elements: int
    decoder_operations: float
    per_second: dict[str, float]

    def seconds(self, case: Case) -> float:
        """Of a batch. The decoder's share is told at the speed of the case's precision: no more than the truth."""
        moved = self.elements * PRECISIONS[case.precision].itemsize
        operations = self.operations + (self.decoder_operations if case.picture else 0)
        return max(operations / self.per_second[case.precision], moved / self.per_second[COPY])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``benchmark.py encoder``."""
    parser.add_argument("--size", choices=SAM_SIZES, default="vit_b", help="of SAM, with random weights")
    parser.add_argument("--image-size", type=int, help="side of the input square in pixels; SAM's own by default")
    parser.add_argument("--batch-size", type=int, default=1, help="pictures at once")
    parser.add_argument(
        "--implementations",
        type=names_of(IMPLEMENTATIONS),
        default=[name for name in IMPLEMENTATIONS if name != COMPILED],
        help=f"of: {', '.join(IMPLEMENTATIONS)}",
    )
    add_choices(parser)
    add_common_arguments(parser, precision=["float32", "bf16"])


def add_choices(parser: argparse.ArgumentParser) -> None:
    """What is measured beside the rest."""
    parser.add_argument("--pictures", action="store_true", help="a picture and a point to masks, beside the encoder")
    parser.add_argument("--compile", action="store_true", help="our image encoder compiled too")


def run(arguments: argparse.Namespace) -> None:
    """Measure, show, write.

    Raises:
        ValueError: If a number is too small, or the image size does not fit.
    """
    check_positive(arguments, "batch_size")
    device = chosen_device(arguments)
    rows, floor = measure(arguments, device)
    report(rows, device, arguments.json, runs=arguments.runs, floor=asdict(floor))
    sys.stdout.write(f"\n{in_words(floor)}\n")


def measure(arguments: argparse.Namespace, device: torch.device) -> tuple[list[EncoderRow], Floor]:
    """All implementations in all precisions, one after the other in each round; then the memory of each alone."""
    sam = random_sam(arguments.size, arguments.image_size)
    names = list(dict.fromkeys([*arguments.implementations, *([COMPILED] if arguments.compile else [])]))
    asked = (arguments.size, sam.image_encoder.img_size, arguments.batch_size, str(device), torch.get_num_threads())
    cases = [
        Case(name, asked[0], precision, *asked[1:], picture)
        for picture in ((False, True) if arguments.pictures else (False,))
        for precision in arguments.precision
        for name in names
    ]
    probes = peak_probes(device, {name: PRECISIONS[name] for name in arguments.precision})
    seconds, answers = time_in_turn(cases, probes, sam, arguments.runs, device)
    needed = list(products(ImageEncoder(sam.image_encoder), arguments.batch_size))
    floor = Floor(
        sum(product.operations for product in needed),
        sum(product.elements for product in needed),
        decoder_operations(sam, arguments.batch_size),
        {name: probe.work / min(seconds[name]) for name, probe in probes.items()},
    )
    del sam
    peaks = {case: peak_alone(case) for case in tqdm(cases, desc="memory", unit="process")}
    return rows_of(cases, seconds, peaks, answers, floor), floor


def rows_of(
    cases: Sequence[Case],
    seconds: Mapping[Case | str, list[float]],
    peaks: Mapping[Case, float],
    answers: Mapping[Case, Answer],
    floor: Floor,
) -> list[EncoderRow]:
    """What was measured, with the first case of its kind beside each."""
    medians = {case: statistics.median(seconds[case]) for case in cases}
    rows = []
    for case in cases:
        first = next(other for other in cases if other.picture == case.picture)
        rows.append(
            EncoderRow(
                benchmark="picture" if case.picture else "encoder",
                implementation=case.implementation,
                model=case.model,
                precision=case.precision,
                seconds=medians[case],
                peak_memory_mb=peaks[case],
                floor_seconds=floor.seconds(case),
                image_size=case.image_size,
                batch_size=case.batch_size,
                images_per_second=case.batch_size / medians[case],
                seconds_fastest=min(seconds[case]),
                speed=medians[first] / medians[case],
                memory=peaks[case] / peaks[first],
                error=answers[case].error,
                mask_iou=answers[case].mask_iou,
            )
        )
    return rows


@torch.no_grad()
def time_in_turn(
    cases: Sequence[Case], probes: Mapping[str, Probe], sam: Sam, runs: int, device: torch.device
) -> tuple[dict[Case | str, list[float]], dict[Case, Answer]]:
    """Seconds of each case and probe in each round, and how near the answers of the cases are.

    Args:
        cases: All of one model, size and device.
        probes: By name.
        sam: segment-anything's, whose weights all have.
        runs: Rounds that count; the one before them compiles and warms up.
        device: To wait for.
    """
    pixels = noise(cases[0])
    sam.to(device).eval()
    near = nearness(cases, sam, pixels)
    tasks: dict[Case | str, Callable[[], Tensor]] = {name: probe.run for name, probe in probes.items()}
    for case in cases:
        tasks[case] = partial(build_task(case, sam), pixels)
    seconds: dict[Case | str, list[float]] = {task: [] for task in tasks}
    answers = {}
    for number in tqdm(range(runs + 1), desc="time", unit="round"):
        for task, function in tasks.items():
            start = time.perf_counter()
            result = function()
            wait_for(device)
            if number:
                seconds[task].append(time.perf_counter() - start)
            elif isinstance(task, Case):
                answers[task] = near(task, result)
    return seconds, answers


def nearness(cases: Sequence[Case], sam: Sam, pixels: Tensor) -> Callable[[Case, Tensor], Answer]:
    """Compares what cases give with what segment-anything gives in float32."""
    host = prompted_host(sam)
    wanted = sam.image_encoder(pixels)
    masks = masks_of_points(host, wanted)
    pictures = [replace(case, implementation=ORIGINAL, precision="float32") for case in cases if case.picture]
    whole = build_task(pictures[0], sam)(pixels) if pictures else None

    def near(case: Case, result: Tensor) -> Answer:
        if whole is not None and case.picture:
            return Answer(None, mean_iou(result, whole))
        error = float((result.float() - wanted).abs().max() / wanted.abs().max())
        return Answer(error, mean_iou(masks_of_points(host, result), masks))

    return near


@torch.no_grad()
def decoder_operations(sam: Sam, batch_size: int) -> float:
    """Of a point's three masks in each picture of a batch."""
    host = prompted_host(sam)
    embedding = torch.zeros(1, host.channels, *sam.prompt_encoder.image_embedding_size, device=sam.device)
    middle = embedding.new_full((1, 1, 2), host.transform.size / 2)
    label = torch.ones(1, 1, dtype=torch.int64, device=sam.device)
    return batch_size * counted_flops(lambda: decoded(host, embedding, middle, label))


def in_words(floor: Floor) -> str:
    """A line under the table."""
    speeds = ", ".join(f"{value / 1e9:.0f} G{_UNITS.get(of, 'FLOP')}/s {of}" for of, value in floor.per_second.items())
    counted = f"{floor.operations / 1e9:.1f} GFLOP and {floor.elements / 1e6:.0f} M elements of matrix products a batch"
    masks = f"{floor.decoder_operations / 1e9:.1f} GFLOP of a point's masks"
    return f"Floor: {counted}; {masks}; measured in the same run: {speeds}."
