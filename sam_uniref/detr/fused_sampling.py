"""The compiled kernel of deformable attention, where one is installed. Nothing is compiled here.

Two ways to have one: the module ``MultiScaleDeformableAttention`` that Deformable-DETR's own repository compiles, and
the package ``kernels`` (the extra ``fused``), which fetches a compiled one from the Hugging Face hub when it is
first used. Both offer the same two functions.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

logger = logging.getLogger(__name__)

_COMPILED_MODULE = "MultiScaleDeformableAttention"
_HUB_KERNEL = "kernels-community/deformable-detr"
_HUB_VERSION = 1


class SamplingKernel(Protocol):
    """What a compiled kernel offers. The last number is how many rows it takes at a time; it divides their number."""

    def ms_deform_attn_forward(
        self, values: Tensor, sizes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor, rows: int, /
    ) -> Tensor:
        """``(N, T, heads, D)`` values to ``(N, Q, heads * D)``."""

    def ms_deform_attn_backward(
        self,
        values: Tensor,
        sizes: Tensor,
        starts: Tensor,
        locations: Tensor,
        weights: Tensor,
        gradient: Tensor,
        rows: int,
        /,
    ) -> Sequence[Tensor]:
        """Gradients of values, locations and weights."""


@functools.cache
def fused_kernel() -> SamplingKernel | None:
    """The installed kernel, or None. One that is installed and does not load is told about, once."""
    try:
        return importlib.import_module(_COMPILED_MODULE)
    except ImportError:
        pass
    try:
        hub: Any = importlib.import_module("kernels")
    except ImportError:
        return None
    try:
        return hub.get_kernel(_HUB_KERNEL, version=_HUB_VERSION)
    except Exception as error:  # no network, no build for this machine, another version of the package
        logger.warning("deformable attention runs without a fused kernel: %s could not be had (%s)", _HUB_KERNEL, error)
        return None


def sample_fused(kernel: SamplingKernel, values: Tensor, grids: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """As `sam_uniref.detr.deformable_attention.sample_levels`, by a compiled kernel; sizes ``(levels, 2)`` int64."""
    areas = grids.prod(1)
    result: Tensor = _FusedSampling.apply(
        kernel, values.contiguous(), grids, areas.cumsum(0) - areas, locations.contiguous(), weights.contiguous()
    )
    return result


class _FusedSampling(torch.autograd.Function):
    """The kernel's two functions as one that can be differentiated."""

    @staticmethod
    def forward(
        ctx: Any, kernel: SamplingKernel, values: Tensor, grids: Tensor, starts: Tensor, *sampled: Tensor
    ) -> Tensor:
        """Weighted sums; see `sample_fused`."""
        ctx.kernel = kernel
        ctx.save_for_backward(values, grids, starts, *sampled)
        locations, weights = sampled
        return kernel.ms_deform_attn_forward(values, grids, starts, locations, weights, len(values))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of values, locations and weights."""
        values, grids, starts, locations, weights = ctx.saved_tensors
        by_values, by_locations, by_weights = ctx.kernel.ms_deform_attn_backward(
            values, grids, starts, locations, weights, gradient.contiguous(), len(values)
        )
        return None, by_values, None, None, by_locations, by_weights
