"""The least that a computation can take on a device: its counted work over the device's measured peaks.

Counted are multiplications and additions of matrix products, convolutions and fused attention (two a product, as
everywhere), and the bytes that must be read or written whatever the order of the work. Everything else (softmax,
norms, losses, copies) is what makes the gap to the floor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sam_uniref.eval.machine import wait_for
from sam_uniref.flop_counting import flop_counter

_REPEATS = 7
# Sides of square matrices, and elements of what is copied: large enough for the peak, small enough for seconds.
_SIDE = {"cpu": 2048, "cuda": 8192}
_COPIED = {"cpu": 2**26, "cuda": 2**28}


@dataclass(frozen=True)
class Peaks:
    """What a device does at best.

    Attributes:
        flops_per_second: Of a large matrix product in the precision that is asked for.
        bytes_per_second: Read and written by a large copy.
    """

    flops_per_second: float
    bytes_per_second: float

    def floor(self, flops: float, moved: float = 0.0) -> float:
        """The seconds that so many FLOPs, or so many bytes moved beside them, take at least."""
        return max(flops / self.flops_per_second, moved / self.bytes_per_second)


def measure_peaks(device: torch.device, precision: torch.dtype = torch.float32) -> Peaks:
    """The best of several products and copies, on as many threads as PyTorch has."""
    side, copied = _SIDE.get(device.type, 4096), _COPIED.get(device.type, 2**26)
    left, right = (torch.randn(side, side, device=device).to(precision) for _ in range(2))
    out = torch.empty_like(left)
    product = _best(lambda: torch.mm(left, right, out=out), device)
    source = torch.ones(copied, device=device)
    target = torch.empty_like(source)
    copy = _best(lambda: target.copy_(source), device)
    return Peaks(2 * side**3 / product, 2 * source.numel() * source.element_size() / copy)


def counted_flops(run: Callable[[], object]) -> float:
    """FLOPs of what a function computes, its backward passes too."""
    counter = flop_counter()
    with counter:
        run()
    return float(counter.get_total_flops())


def _best(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest run, after one that is not timed."""
    seconds = []
    for _ in range(_REPEATS + 1):
        wait_for(device)
        start = time.perf_counter()
        run()
        wait_for(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
