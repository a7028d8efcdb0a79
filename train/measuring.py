"""A few steps of each data set on this machine: samples a second, memory, and the hours that a stage would take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from rich.table import Table

from sam_uniref.cache.description import level_shapes
from sam_uniref.data import ReferenceBatch, TrainingBatches
from sam_uniref.data.batch import PictureFeatures
from sam_uniref.memory import peak_megabytes, release_free, reset_peak
from sam_uniref.train.build import build_dataset, build_optimizer
from sam_uniref.train.costs import made_up_tokens
from sam_uniref.train.made_up import MadeUpFeatures, made_up_batch
from sam_uniref.train.planned_cache import planned_cache
from sam_uniref.train.settings import ModelSettings, RunSettings
from sam_uniref.train.skeleton import skeleton
from sam_uniref.train.step import take_step
from sam_uniref.trainable import TrainableModel

T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """Of one data set.

    Attributes:
        made_up: Whether its batches were, as it is not there.
        loading: Seconds that one process takes to load a step's samples.
        step: Seconds of a step, its samples being there: the median.
        seconds: Of both together, as loader processes take turns.
        peak: Megabytes that steps took beyond what was held before them.
    """

    made_up: bool
    loading: float
    step: float
    seconds: float
    peak: float


def measured_plan(settings: RunSettings, accelerator: Accelerator, origin: ModelSettings, steps: int) -> Table:
    """Take steps of every data set of a stage with a model of its shapes and random weights.

    Args:
        settings: Of the stage.
        accelerator: Of one process.
        origin: The model as it was first made: that of the run's first stage.
        steps: Of each data set, after one that is not counted.

    Raises:
        ValueError: If there are several processes, or the run's cache is of another kind or lacks pictures.
    """
    if accelerator.num_processes > 1:
        raise ValueError(f"--measure is for one process, got {accelerator.num_processes}")
    model = skeleton(settings, origin, "cpu")
    if model.text_encoder is not None and model.text_encoder.tokenizer is None:
        model.text_encoder.tokenizer = made_up_tokens
    features = _features(settings, model)
    prepared = accelerator.prepare(model, build_optimizer(model, settings.optimiser))
    prepared[0].train()
    samples = settings.batch_size * settings.accumulate
    columns = ("data set", "batches", "s to load", "s a step", "samples/s", "MB beyond weights")
    uncached = ", with features made up, as there is no cache yet" if isinstance(features, MadeUpFeatures) else ""
    table = Table(*columns, title=f"measured on this machine{uncached}")
    silent = settings.spoken if model.text_encoder is None else []
    measured = [name for name, entry in settings.data.items() if entry.weight and name not in silent]
    total, weight = 0.0, sum(settings.data[name].weight for name in measured)
    for name in measured:
        got = _measure(settings, name, accelerator, model, prepared, steps, features)
        total += got.seconds * settings.data[name].weight / weight
        table.add_row(
            name,
            "made up" if got.made_up else "its own",
            "" if got.made_up else f"{got.loading:.3g}",
            f"{got.step:.3g}",
            f"{samples / got.seconds:.3g}",
            f"{got.peak:,.0f}",
        )
    for name in silent:
        table.add_row(name, "none: no text encoder yet")
    if not measured:
        return table
    over = "what was measured" if silent else "the mixture"
    table.caption = (
        f"{samples} samples a step, {torch.get_num_threads()} threads on {accelerator.device}, precision "
        f"{settings.precision}, random weights: {samples / total:.3g} samples a second over {over}, "
        f"{total * settings.steps / 3600:,.3g} hours for {settings.steps:,} steps in one process, without validation"
    )
    return table


def _measure(
    settings: RunSettings,
    name: str,
    accelerator: Accelerator,
    model: TrainableModel,
    prepared: tuple[Any, Any],
    steps: int,
    features: PictureFeatures | None,
) -> Measured:
    """Take the steps of one data set."""
    own = _own_batches(settings, name, model, steps, features)
    loading, taken = [], []
    for step in range(steps + 1):
        if own is None:
            shown = MadeUpFeatures(level_shapes(model.frozen_backbone())) if features is not None else None
            task: Any = settings.data[name].task
            batch = made_up_batch(model.transform, task, settings.batch_size, features=shown)
            micro = [batch] * settings.accumulate
        else:
            seconds, micro = _timed(partial(_load, own, step * settings.accumulate, settings.accumulate))
            loading.append(seconds)
        if step == 1:
            release_free(accelerator.device)
            reset_peak(accelerator.device)
            before = peak_megabytes(accelerator.device)
        taken.append(_timed(partial(take_step, accelerator, *prepared, micro, settings, step))[0])
    load, one = statistics.median(loading or [0.0]), statistics.median(taken[1:])
    together = max(one, load / settings.workers) if settings.workers else one + load
    return Measured(own is None, load, one, together, peak_megabytes(accelerator.device) - before)


def _features(settings: RunSettings, model: TrainableModel) -> PictureFeatures | None:
    """The run's cache, if it has one; such as it would have, if it is not here yet."""
    if settings.cache is None:
        return None
    backbone = model.frozen_backbone()
    cache = planned_cache(settings.cache, backbone)
    return MadeUpFeatures(level_shapes(backbone)) if cache is None else cache


def _own_batches(
    settings: RunSettings, name: str, model: TrainableModel, steps: int, features: PictureFeatures | None
) -> TrainingBatches | None:
    """Of the data set, as one process draws them; None if it is not there."""
    try:
        source = build_dataset(name, settings.data[name])
    except FileNotFoundError:
        return None
    return TrainingBatches(
        [source],
        model.transform,
        steps + 1,
        settings.batch_size,
        settings.accumulate,
        settings.seed,
        one_orientation=settings.one_orientation,
        features=features,
    )


def _load(batches: TrainingBatches, first: int, count: int) -> list[ReferenceBatch]:
    """So many micro-batches."""
    return [batches[first + micro] for micro in range(count)]


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and what came of it. A step ends with its losses on the CPU, so that a GPU has done its work."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result
