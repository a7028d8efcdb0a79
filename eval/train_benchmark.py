"""What a step of training costs, with the frozen image encoder and with its features kept.

For each task ways take their turn in one process, and medians are told: training with the encoder, and from a cache,
each from the loader on (without worker processes, so that loading counts); and apart from that the encoder alone and
the step alone, on a batch that is there. If nothing were lost, training from a cache would be (encoder + step) / step
times as fast as training with the encoder; ``of_possible`` is the share of that which is reached.

"As written" is the same step with every product where the paper's formulas have it (fusion that projects queries, keys
and values for PyTorch's attention), and an AdamW of single operations.

Peaks of memory are those of a process of their own each: all of it, and less the weights that it loaded.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from sam_uniref.adapters import UniFusion
from sam_uniref.data import Task
from sam_uniref.eval.benchmark_table import BenchmarkRow, add_common_arguments, chosen_device, report
from sam_uniref.eval.commands import counts, names_of
from sam_uniref.eval.floor import Peaks, counted_flops, measure_peaks
from sam_uniref.eval.fusion_benchmark import products_as_written
from sam_uniref.eval.made_up_training import STAGES, MadeUpTraining
from sam_uniref.eval.side_by_side import in_fresh_process, seconds_in_turns
from sam_uniref.memory import peak_megabytes, reset_peak
from sam_uniref.sam import SAM_SIZES
from sam_uniref.sam.image_encoder import PRECISIONS

WITH_ENCODER, FROM_CACHE = "training with the encoder", "training from the cache"
ENCODER, STEP, AS_WRITTEN = "encoder alone", "step alone", "step alone, as written"
# Of a trained parameter's 4 bytes: read forward and backward, its gradient written, read for the norm, scaled (2) and
# read by AdamW, which reads and writes the parameter and both moments (6).
_PASSES = 13
_STEPS_FOR_PEAK = 2


@dataclass(frozen=True, kw_only=True)
class TrainRow(BenchmarkRow):
    """One way of taking a step.

    Attributes:
        task: What the step is about.
        batch_size: Samples of a step.
        samples_per_second: By the median.
        flops: Of all samples of the step together, counted.
        peak_less_weights_mb: As ``peak_memory_mb``, without the weights that were loaded.
        of_possible: Of training from the cache: which share of the possible gain it has. None for the others.
    """

    task: str
    batch_size: int
    samples_per_second: float
    flops: float
    peak_less_weights_mb: float
    of_possible: float | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``benchmark.py train``."""
    parser.add_argument(
        "--size", type=names_of(SAM_SIZES), default=["vit_b"], help="of SAM: tiny, vit_b, vit_l, vit_h, or several"
    )
    parser.add_argument("--tasks", type=names_of(tuple(STAGES)), default=list(STAGES), help="such as ris,fss,vos")
    parser.add_argument("--batch-size", type=counts, default=[2], help="samples of a step, such as 2")
    parser.add_argument("--without-encoder", action="store_true", help="do not build it; leave out what runs it")
    parser.add_argument("--workers", type=int, default=0, help="loader processes; without, loading is part of a step")
    add_common_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Measure, show, write."""
    report(measure(arguments), chosen_device(arguments), arguments.json)


def measure(arguments: argparse.Namespace) -> list[TrainRow]:
    """All rows.

    Raises:
        ValueError: If a number is too small, or the device is not there.
    """
    device = chosen_device(arguments)
    if arguments.workers < 0:
        raise ValueError(f"--workers must be at least 0, got {arguments.workers}")
    return [
        row
        for precision in arguments.precision
        for peaks in [measure_peaks(device, PRECISIONS[precision])]
        for size in arguments.size
        for task in arguments.tasks
        for batch_size in arguments.batch_size
        for given in [_Given(size, task, batch_size, precision, str(device), not arguments.without_encoder)]
        for row in measure_task(given, arguments.runs, arguments.workers, peaks)
    ]


def measure_task(given: _Given, runs: int, workers: int, peaks: Peaks) -> list[TrainRow]:
    """The rows of one task, size and precision."""
    with tempfile.TemporaryDirectory() as folder:
        training = given.training(Path(folder), workers)
        ways = ways_of(training)
        work = {name: counted_flops(way) for name, way in ways.items()}
        seconds = seconds_in_turns(ways, runs, training.device, f"{given.size}, {given.task}, {given.precision}")
        moved = _PASSES * 4.0 * sum(p.numel() for p in training.model.parameters() if p.requires_grad)
    median = {name: statistics.median(found) for name, found in seconds.items()}
    rows = []
    for name in ways:
        peak, weights = in_fresh_process(peak_of_way, given, name)
        rows.append(
            TrainRow(
                benchmark="train",
                implementation=name,
                model=given.size,
                precision=given.precision,
                seconds=median[name],
                peak_memory_mb=peak,
                floor_seconds=peaks.floor(work[name], 0.0 if name == ENCODER else moved),
                task=given.task,
                batch_size=given.batch_size,
                samples_per_second=given.batch_size / median[name],
                flops=work[name],
                peak_less_weights_mb=peak - weights,
            )
        )
    return [
        replace(row, of_possible=share_of_possible(median)) if row.implementation == FROM_CACHE else row for row in rows
    ]


def share_of_possible(seconds: dict[str, float]) -> float | None:
    """Which share of (encoder + step) / step the cache gains; None where the encoder was not run."""
    if WITH_ENCODER not in seconds:
        return None
    possible = (seconds[ENCODER] + seconds[STEP]) / seconds[STEP]
    return seconds[WITH_ENCODER] / seconds[FROM_CACHE] / possible


def ways_of(training: MadeUpTraining) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    kept = training.cache()
    cached = training.batches(kept)
    ready = next(cached).to(training.device)

    def as_written() -> None:
        with products_as_written(cast(UniFusion, training.model.fusion)), single_operations(training.optimizer_groups):
            training.step(ready)

    ways: dict[str, Callable[[], object]] = {
        FROM_CACHE: lambda: training.step(next(cached)),
        STEP: lambda: training.step(ready),
        AS_WRITTEN: as_written,
    }
    if not training.encoder:
        return ways
    fresh = training.batches()
    return {
        WITH_ENCODER: lambda: training.step(next(fresh)),
        ENCODER: lambda: training.encode(ready),
        **ways,
    }


@contextmanager
def single_operations(groups: list[dict[str, Any]]) -> Iterator[None]:
    """AdamW operation by operation, not fused."""
    for group in groups:
        group["fused"] = None
    try:
        yield
    finally:
        for group in groups:
            group["fused"] = True


@dataclass(frozen=True)
class _Given:
    """What a process needs to know to take a step."""

    size: str
    task: Task
    batch_size: int
    precision: str
    device: str
    encoder: bool

    def training(self, folder: Path, workers: int = 0) -> MadeUpTraining:
        """The run."""
        device = torch.device(self.device)
        return MadeUpTraining(
            self.size, self.task, folder, self.batch_size, self.precision, device, self.encoder, workers
        )


def peak_of_way(given: _Given, name: str) -> tuple[float, float]:
    """Megabytes at most while a few steps are taken, and those of the weights among them."""
    with tempfile.TemporaryDirectory() as folder:
        training = given.training(Path(folder))
        way = ways_of(training)[name]
        reset_peak(training.device)
        for _ in range(_STEPS_FOR_PEAK):
            way()
        tensors = (*training.model.parameters(), *training.model.buffers())
        return peak_megabytes(training.device), sum(t.numel() * t.element_size() for t in tensors) / 1e6
