"""SAM's image encoder beside segment-anything's own and transformers', in one run: time, memory, floor.

All encoders have the same random weights and encode the same pictures of noise, each in its turn, round after round,
so that a machine that is busy for a while is so for all. In the same rounds stand a large matrix product in each
precision and a large copy. The *floor* is what the encoder's matrix products would take at the speed of the one, or
their bytes at that of the other, whichever is longer; *of floor* is the floor over the time measured.

*Peak memory* is that of one batch in a fresh process with nothing but this encoder in it: all its resident memory on
the CPU, tensors on a GPU. *Error* is the embedding's largest difference from segment-anything's in float32, over its
largest value.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor
from tqdm.auto import tqdm

from sam_uniref.eval.encoder_costs import COPY, Probe, peak_probes, products
from sam_uniref.eval.encoders import COMPILED, IMPLEMENTATIONS, Case, build, noise, peak_alone, random_encoder
from sam_uniref.eval.machine import device_line, wait_for
from sam_uniref.loading import best_device, named_device
from sam_uniref.sam import SAM_SIZES, ImageEncoder
from sam_uniref.sam.image_encoder import PRECISIONS
from sam_uniref.state import write_json

_LIBRARIES = ("segment-anything", "transformers")
_UNITS = {COPY: "B"}


@dataclass(frozen=True)
class Row(Case):
    """What it took.

    Attributes:
        images_per_second: By the median.
        seconds_median: A batch.
        seconds_fastest: A batch.
        peak_memory_mb: Alone.
        error: Of the embedding.
        floor_seconds: Of a batch in this precision.
        of_floor: The floor over the median.
    """

    images_per_second: float
    seconds_median: float
    seconds_fastest: float
    peak_memory_mb: float
    error: float
    floor_seconds: float
    of_floor: float


@dataclass(frozen=True)
class Floor:
    """What can't be done without, and how fast the machine does it.

    Attributes:
        operations: Of all matrix products of a batch.
        elements: That they read and write.
        per_second: Operations by precision, and bytes copied.
    """

    operations: int
    elements: int
    per_second: dict[str, float]

    def seconds(self, precision: str) -> float:
        """Of a batch."""
        moved = self.elements * PRECISIONS[precision].itemsize
        return max(self.operations / self.per_second[precision], moved / self.per_second[COPY])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``benchmark.py encoder``."""
    parser.add_argument("--size", choices=SAM_SIZES, default="vit_b", help="of SAM, with random weights")
    parser.add_argument("--image-size", type=int, help="side of the input square in pixels; SAM's own by default")
    parser.add_argument("--batch-size", type=int, default=1, help="pictures at once")
    parser.add_argument(
        "--precisions", type=_names(tuple(PRECISIONS)), default=["float32", "bf16"], help="such as float32,bf16"
    )
    parser.add_argument(
        "--implementations",
        type=_names(IMPLEMENTATIONS),
        default=[name for name in IMPLEMENTATIONS if name != COMPILED],
        help=f"of: {', '.join(IMPLEMENTATIONS)}",
    )
    parser.add_argument("--compile", action="store_true", help="ours compiled too")
    parser.add_argument("--runs", type=int, default=5, help="rounds, after one that warms up")
    parser.add_argument("--threads", type=int, help="of the CPU; as many as PyTorch takes by default")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; the best there is by default")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows, and what was counted and measured")


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """For an argument of some of these names, with commas between them."""

    def parse(given: str) -> list[str]:
        names = given.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


def run(arguments: argparse.Namespace) -> None:
    """Measure, show, write.

    Raises:
        ValueError: If a number is too small, or the image size does not fit.
    """
    for name in ("batch_size", "runs", "threads"):
        given = getattr(arguments, name)
        if given is not None and given < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {given}")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    device = best_device() if arguments.device is None else named_device(arguments.device)
    rows, floor = measure(arguments, device)
    title = f"{device_line(device)}, " + ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    if arguments.json is not None:
        rest = {"runs": arguments.runs, "floor": asdict(floor), "rows": [asdict(row) for row in rows]}
        write_json(arguments.json, {"device": title, **rest})
    sys.stdout.write(markdown(rows, floor, f"{title}; medians of {arguments.runs}"))


def measure(arguments: argparse.Namespace, device: torch.device) -> tuple[list[Row], Floor]:
    """All implementations in all precisions, one after the other in each round; then the memory of each alone."""
    encoder = random_encoder(arguments.size, arguments.image_size)
    names = list(dict.fromkeys([*arguments.implementations, *([COMPILED] if arguments.compile else [])]))
    asked = (arguments.size, encoder.img_size, arguments.batch_size, str(device), torch.get_num_threads())
    cases = [Case(name, asked[0], precision, *asked[1:]) for precision in arguments.precisions for name in names]
    probes = peak_probes(device, {name: PRECISIONS[name] for name in arguments.precisions})
    seconds, errors = time_in_turn(cases, probes, encoder, arguments.runs, device)
    needed = list(products(ImageEncoder(encoder), arguments.batch_size))
    floor = Floor(
        sum(product.operations for product in needed),
        sum(product.elements for product in needed),
        {name: probe.work / min(seconds[name]) for name, probe in probes.items()},
    )
    del encoder
    rows = []
    for case in tqdm(cases, desc="memory", unit="process"):
        times = seconds[case]
        median = statistics.median(times)
        least = floor.seconds(case.precision)
        rows.append(
            Row(
                **asdict(case),
                images_per_second=case.batch_size / median,
                seconds_median=median,
                seconds_fastest=min(times),
                peak_memory_mb=peak_alone(case),
                error=errors[case],
                floor_seconds=least,
                of_floor=least / median,
            )
        )
    return rows, floor


@torch.no_grad()
def time_in_turn(
    cases: Sequence[Case], probes: Mapping[str, Probe], encoder: ImageEncoderViT, runs: int, device: torch.device
) -> tuple[dict[Case | str, list[float]], dict[Case, float]]:
    """Seconds of each case and probe in each round, and the errors of the cases.

    Args:
        cases: All of one model, size and device.
        probes: By name.
        encoder: segment-anything's, whose weights all have.
        runs: Rounds that count; the one before them compiles and warms up.
        device: To wait for.
    """
    pixels = noise(cases[0])
    encoder.to(device).eval()
    wanted = encoder(pixels)
    tasks: dict[Case | str, Callable[[], Tensor]] = {name: probe.run for name, probe in probes.items()}
    for case in cases:
        tasks[case] = partial(build(case, encoder), pixels)
    seconds: dict[Case | str, list[float]] = {task: [] for task in tasks}
    errors = {}
    for number in tqdm(range(runs + 1), desc="time", unit="round"):
        for task, function in tasks.items():
            start = time.perf_counter()
            result = function()
            wait_for(device)
            if number:
                seconds[task].append(time.perf_counter() - start)
            elif isinstance(task, Case):
                errors[task] = float((result.float() - wanted).abs().max() / wanted.abs().max())
    return seconds, errors


def markdown(rows: Sequence[Row], floor: Floor, title: str) -> str:
    """A table for a page: ratios are to the first implementation's in the first precision."""
    first = rows[0]
    heads = ("implementation", "precision", "images/s", "s", "speed", "peak MB", "memory", "floor, s", "of floor")
    lines = [
        f"`{first.model}`, {first.image_size} px, batches of {first.batch_size}; {title}.",
        "",
        f"| {' | '.join((*heads, 'error'))} |",
        "|---|---|" + "---:|" * (len(heads) - 1),
    ]
    for row in rows:
        cells = (
            row.implementation,
            row.precision,
            f"{row.images_per_second:.3g}",
            f"{row.seconds_median:.3g}",
            f"{row.images_per_second / first.images_per_second:.2f} x",
            f"{row.peak_memory_mb:.0f}",
            f"{row.peak_memory_mb / first.peak_memory_mb:.2f} x",
            f"{row.floor_seconds:.3g}",
            f"{row.of_floor:.0%}",
            f"{row.error:.1e}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    speeds = ", ".join(f"{value / 1e9:.0f} G{_UNITS.get(of, 'FLOP')}/s {of}" for of, value in floor.per_second.items())
    counted = f"{floor.operations / 1e9:.1f} GFLOP and {floor.elements / 1e6:.0f} M elements of matrix products a batch"
    return "\n".join([*lines, "", f"Floor: {counted}; measured in the same run: {speeds}.", ""])
