"""What UniFusion costs: beside fused and unfused attention (UniRef++ table 11), and as a video goes on (figure 6).

The module alone, on features made up for four levels of a square picture, at strides 8 to 64. What else a frame takes,
encoding and decoding it, is the same in all rows.

*Attention*: one picture refers to two others, in training; all ways take their turn, and medians are of so many runs.
Ours is the module as it is, with the kernel that it takes by itself. As written, queries, keys and values are projected
where the paper's formulas have it, and the kernel is given: fused is one of those of PyTorch's
``scaled_dot_product_attention``, unfused its plain formula, which holds all attention weights, and flash-attn that
package's kernel, on a GPU in half precision where it is installed. Features are *frozen*, those of an encoder that
nobody trains, as a SamRef's, or *trained*, as a UniRef's: keys, pooled vectors and the picture's own then have
gradients too.

*Video*: the n-th frame after the first is fused with its references, and kept as one, in inference. Ours refers to the
first and the previous frame. The bank refers to all that it has stored, the first frame and every fifth after it, as
memory networks do (STM, STCN).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from sam_uniref.adapters import FrameReference, FrameReferences, ReferenceFeatures, UniFusion, concat
from sam_uniref.adapters.attention import ImageQueries, attend_flash, attend_sdpa, flash_is_usable
from sam_uniref.eval.benchmark_table import (
    BenchmarkRow,
    add_common_arguments,
    check_positive,
    chosen_device,
    markdown_table,
    report,
)
from sam_uniref.eval.commands import counts, names_of
from sam_uniref.eval.floor import Peaks, counted_flops, measure_peaks
from sam_uniref.eval.machine import wait_for
from sam_uniref.memory import peak_megabytes, release_free, reset_peak
from sam_uniref.sam.image_encoder import PRECISIONS

STRIDES = (8, 16, 32, 64)
REFERENCES = 2
OURS, FUSED, UNFUSED, FLASH = "ours", "as written, fused", "as written, unfused", "as written, flash-attn"
WAYS = (OURS, FUSED, UNFUSED, FLASH)
# PyTorch's kernels that never hold all attention weights.
FUSED_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
FROZEN, TRAINED = "frozen", "trained"
STORED_EVERY = 5
_MEGABYTE = 1e6


@dataclass(frozen=True, kw_only=True)
class FusionRow(BenchmarkRow):
    """One way of attention, in training.

    Attributes:
        heads: Of the module.
        features: Whether the encoder that they are of is ``frozen`` or ``trained``.
        samples_per_second: Forward and backward, by the medians.
        forward_seconds: Median.
        backward_seconds: Median.
    """

    heads: int
    features: str
    samples_per_second: float
    forward_seconds: float
    backward_seconds: float


@dataclass(frozen=True)
class VideoCost:
    """One frame of a video, in inference.

    Attributes:
        memory: ``first and previous``, or ``bank``.
        frame: Its number n after the first.
        references: Frames that it looks back at.
        seconds: Median.
        frames_per_second: By that.
        held_mb: Of the references it looks back at.
        peak_memory_mb: The most that the fusion took beyond what was held before.
    """

    memory: str
    frame: int
    references: int
    seconds: float
    frames_per_second: float
    held_mb: float
    peak_memory_mb: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``benchmark.py fusion``."""
    parser.add_argument("--image-size", type=int, default=640, help="side of the picture in pixels")
    parser.add_argument("--channels", type=int, default=256, help="of the features")
    parser.add_argument("--heads", type=counts, default=[1, 8], help="such as 1,8; the most are those of the video")
    parser.add_argument("--head-width", type=int, default=256, help="of each head")
    parser.add_argument(
        "--features", type=names_of((FROZEN, TRAINED)), default=[FROZEN, TRAINED], help="such as frozen,trained"
    )
    parser.add_argument("--frames", type=counts, default=[1, 5, 10, 20, 50, 100], help="which frames after the first")
    add_common_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Measure, show, write.

    Raises:
        ValueError: If a number is too small, or the picture's side is no multiple of 64.
    """
    check_positive(arguments, "channels", "head_width")
    if arguments.image_size < STRIDES[-1] or arguments.image_size % STRIDES[-1]:
        raise ValueError(f"--image-size must be a positive multiple of {STRIDES[-1]}, got {arguments.image_size}")
    device = chosen_device(arguments)
    rows, video = [], []
    for name in arguments.precision:
        precision = PRECISIONS[name]
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            rows += measure_attention(arguments, device, name, measure_peaks(device, precision))
            video += [{**asdict(row), "precision": name} for row in measure_video(arguments, device)]
    report(rows, device, arguments.json, image_size=arguments.image_size, runs=arguments.runs, video=video)
    sys.stdout.write(f"\n{markdown_table(video)}\n")


def measure_attention(
    arguments: argparse.Namespace, device: torch.device, precision: str, peaks: Peaks
) -> list[FusionRow]:
    """All ways of attention that are usable in a precision, with each number of heads and each kind of features."""
    given = {kind: made_up_inputs(arguments, device, kind) for kind in arguments.features}
    modules = {heads: made_up_fusion(arguments, heads, device).train() for heads in arguments.heads}
    ways = usable_ways(device, PRECISIONS[precision], arguments.head_width)
    cases = [(kind, heads, way) for kind in given for heads in modules for way in ways]
    taken: dict[tuple[str, int, str], list[tuple[float, float]]] = {case: [] for case in cases}
    memory: dict[tuple[str, int, str], list[float]] = {case: [] for case in cases}
    work = {}
    for number in tqdm(range(arguments.runs + 1), desc="attention", unit="round"):
        for case in cases:
            kind, heads, way = case
            step = partial(forward_and_backward, modules[heads], *given[kind], device)
            with choose_way(modules[heads], way):
                if number == 0:  # what comes first also warms up
                    work[case] = counted_flops(step)
                    continue
                with peak_of(device, memory[case]):
                    taken[case].append(step())
    rows = []
    for case in cases:
        kind, heads, way = case
        forward, backward = (statistics.median(times) for times in zip(*taken[case], strict=True))
        rows.append(
            FusionRow(
                benchmark="fusion",
                implementation=way,
                model=f"UniFusion {heads} x {arguments.head_width}",
                precision=precision,
                seconds=forward + backward,
                peak_memory_mb=max(memory[case]),
                floor_seconds=peaks.floor(work[case]),
                heads=heads,
                features=kind,
                samples_per_second=1 / (forward + backward),
                forward_seconds=forward,
                backward_seconds=backward,
            )
        )
    return rows


def usable_ways(device: torch.device, precision: torch.dtype, head_width: int) -> tuple[str, ...]:
    """`WAYS`, without flash-attn where it is not installed or does not take such heads."""
    flash = flash_is_usable(torch.empty(0, dtype=precision, device=device), head_width)
    return tuple(way for way in WAYS if way != FLASH or flash)


def forward_and_backward(
    module: UniFusion, features: Sequence[Tensor], reference: ReferenceFeatures, device: torch.device
) -> tuple[float, float]:
    """Seconds of one forward and one backward pass."""
    start = time.perf_counter()
    total = torch.stack([level.float().mean() for level in module(features, [reference])]).sum()
    wait_for(device)
    middle = time.perf_counter()
    total.backward()
    wait_for(device)
    end = time.perf_counter()
    # Now and not before the next: what is held when a pass begins is taken off its peak.
    module.zero_grad(set_to_none=True)
    for tensor in (*features, *reference.keys, *reference.values, *reference.pooled):
        tensor.grad = None
    return middle - start, end - middle


@torch.no_grad()
def measure_video(arguments: argparse.Namespace, device: torch.device) -> list[VideoCost]:
    """Both kinds of memory, at each frame asked for."""
    fusion = made_up_fusion(arguments, max(arguments.heads), device).eval()
    features = made_up_levels(arguments, device, seed=0)
    previous = annotated_picture(arguments, device, seed=1)
    kinds: dict[str, Callable[[int], int]] = {
        "first and previous": lambda frame: min(REFERENCES, frame),
        "bank": lambda frame: 1 + (frame - 1) // STORED_EVERY,
    }
    # A frame is remembered as it is, so that a bank grows by what a stored frame takes.
    store = [fusion.frame_references(previous)[0]]
    seconds: dict[tuple[str, int], list[float]] = {}
    peaks: dict[tuple[str, int], list[float]] = {}
    sizes = {(kind, frame): count(frame) for frame in arguments.frames for kind, count in kinds.items()}
    for _ in range(max(sizes.values()) - len(store)):
        store.append(fusion.frame_references(previous)[0])
    for _ in tqdm(range(arguments.runs + 1), desc="video", unit="round"):
        for case, size in sizes.items():
            references = FrameReferences((tuple(store[:size]),), torch.zeros(1, dtype=torch.int64, device=device))
            with peak_of(device, peaks.setdefault(case, [])):
                start = time.perf_counter()
                fusion(features, [references])
                fusion.frame_references(previous)
                wait_for(device)
            seconds.setdefault(case, []).append(time.perf_counter() - start)
    rows = []
    for case, size in sizes.items():
        median = statistics.median(seconds[case][1:])
        held = size * megabytes(store[0])
        rows.append(VideoCost(*case, size, median, 1 / median, held, max(peaks[case][1:])))
    return rows


def made_up_levels(arguments: argparse.Namespace, device: torch.device, seed: int) -> list[Tensor]:
    """Per level ``(1, C, h, w)``, always the same."""
    generator = torch.Generator().manual_seed(seed)
    sides = [arguments.image_size // stride for stride in STRIDES]
    return [torch.randn(1, arguments.channels, side, side, generator=generator).to(device) for side in sides]


def made_up_inputs(
    arguments: argparse.Namespace, device: torch.device, kind: str
) -> tuple[list[Tensor], ReferenceFeatures]:
    """The picture's features and its references', of a frozen encoder or of a trained one."""
    features = made_up_levels(arguments, device, seed=0)
    reference = concat([annotated_picture(arguments, device, seed) for seed in range(1, 1 + REFERENCES)])
    of_encoder = (*features, *reference.keys, *reference.pooled) if kind == TRAINED else ()
    for tensor in (*of_encoder, *reference.values):  # values are the mask encoder's, which is always trained
        tensor.requires_grad_()
    return features, reference


def annotated_picture(arguments: argparse.Namespace, device: torch.device, seed: int) -> ReferenceFeatures:
    """One annotated picture as a reference."""
    keys = [level.flatten(2).transpose(1, 2) for level in made_up_levels(arguments, device, seed)]
    values = [level.flatten(2).transpose(1, 2) for level in made_up_levels(arguments, device, -seed)]
    return ReferenceFeatures(
        keys=tuple(keys),
        values=tuple(values),
        padding=tuple(torch.zeros(key.shape[:2], dtype=torch.bool, device=device) for key in keys),
        pooled=tuple(key.mean(1) for key in keys),
        present=torch.ones(1, dtype=torch.bool, device=device),
        image_index=torch.zeros(1, dtype=torch.int64, device=device),
        kind="frames",
    )


def made_up_fusion(arguments: argparse.Namespace, heads: int, device: torch.device) -> UniFusion:
    """Random weights, the modulation's too: with zeros some gradients would be skipped. No dropout, as at test."""
    torch.manual_seed(0)
    options = {"heads": heads, "head_width": arguments.head_width, "dropout": 0.0, "zero_init": False}
    return UniFusion(arguments.channels, **options).to(device)


@contextmanager
def choose_way(module: UniFusion, way: str) -> Iterator[None]:
    """One of `WAYS`."""
    with ExitStack() as stack:
        if way != OURS:
            stack.enter_context(products_as_written(module, attend_flash if way == FLASH else attend_sdpa))
        if way in (FUSED, UNFUSED):
            stack.enter_context(sdpa_kernel(FUSED_KERNELS if way == FUSED else SDPBackend.MATH))
        yield


@contextmanager
def products_as_written(fusion: UniFusion, kernel: Callable[..., Tensor] = attend_sdpa) -> Iterator[None]:
    """Project queries, keys and values where the paper's formulas have it, whatever that costs.

    Args:
        fusion: Whose attention is changed.
        kernel: `attend_sdpa` or `attend_flash`; none is chosen by what is installed.
    """

    def attend(queries: ImageQueries, keys: Tensor, values: Tensor, padding: Tensor) -> Tensor:
        projected = queries.projected.expand(len(keys), -1, -1, -1)
        return fusion.attention(projected, fusion.key_norm(keys), values, padding, kernel)

    fusion.attend = attend  # type: ignore[method-assign]
    try:
        yield
    finally:
        del fusion.attend  # the class's own is there again


@contextmanager
def peak_of(device: torch.device, peaks: list[float]) -> Iterator[None]:
    """Append what was held at most, beyond what was held before."""
    release_free(device)
    reset_peak(device)
    before = peak_megabytes(device)
    yield
    peaks.append(peak_megabytes(device) - before)


def megabytes(reference: FrameReference) -> float:
    """Of a frame that is kept, with one object in it."""
    tensors = (*reference.frame.keys, *reference.values, *reference.pooled)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / _MEGABYTE
