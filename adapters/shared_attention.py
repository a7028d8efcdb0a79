"""Attention of all heads to one and the same keys and values, for training on a CPU.

Where the heads' own projections are merged into the queries and into what follows (see `CrossAttention.shared`), all
heads look at the same tokens. So there are no heads any more, only more queries, and a block of them costs a few large
matrix products; attention weights are made again in the backward pass, block by block, and never held as a whole.
PyTorch's own kernel for the CPU is the faster one where nothing is dropped, and is taken then: forward, and backward
where keys are learned from. What it can't do: attention weights are dropped, and keys that nobody learns from cost
nothing in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Attention weights at a time: they are passed over several times, so they are to stay in a core's cache.
BLOCK = 2**20
# But products of fewer queries are slower by more than the cache saves.
LEAST_QUERIES = 256
# Dropout compares 16 random bits with its probability: a draw of 64 bits serves four weights.
_STEPS = 2**16


def attend_shared(queries: Tensor, keys: Tensor, values: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
    """Weights times values, and what the weights of each query sum to (one, but for dropout).

    Args:
        queries: ``(Q, D)``, scaled already.
        keys: ``(L, D)``, L at least one.
        values: ``(L, C)``.
        dropout: Probability of dropping an attention weight, taken in steps of 1 / 65,536. The draws are those of
            PyTorch's generator for the CPU.

    Returns:
        ``(Q, C)``, and ``(Q,)`` in float32 at least.
    """
    share = round(dropout * _STEPS) / _STEPS
    if not share and keys.requires_grad and queries.shape[1] == values.shape[1]:
        return _fused(queries, keys, values), torch.ones(len(queries), dtype=_exact(queries))
    seed = int(torch.randint(2**62, ()).item()) if share else 0
    attended, sums = _SharedAttention.apply(queries, keys, values, share, seed)
    return attended, sums


class _SharedAttention(torch.autograd.Function):
    """Softmax attention by blocks of queries."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, dropout: float, seed: int
    ) -> tuple[Tensor, Tensor]:
        """See `attend_shared`."""
        exact = _exact(queries)
        sums = torch.ones(len(queries), dtype=exact)
        if dropout or queries.shape[1] != values.shape[1]:  # what PyTorch's kernel for the CPU can't do
            draws = torch.Generator().manual_seed(seed)
            attended = values.new_empty(len(queries), values.shape[1])
            for block in _blocks(len(queries), len(keys)):
                weights = _weights(queries[block], keys, exact)
                if dropout:
                    weights.masked_fill_(_dropped(weights.shape, dropout, draws), 0.0).div_(1 - dropout)
                    torch.sum(weights, dim=1, out=sums[block])
                torch.mm(weights.to(values.dtype), values, out=attended[block])
        else:
            attended = _fused(queries, keys, values)
        ctx.save_for_backward(queries, keys, values, attended, sums)
        ctx.dropout, ctx.seed = dropout, seed
        return attended, sums

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of queries, keys and values; of each that needs one."""
        queries, keys, values, attended, sums = ctx.saved_tensors
        of_attended, of_sums = gradients
        draws = torch.Generator().manual_seed(ctx.seed)
        need_keys, need_values = ctx.needs_input_grad[1:3]
        of_queries = torch.empty_like(queries)
        of_keys = torch.zeros_like(keys) if need_keys else None
        of_values = torch.zeros_like(values) if need_values else None
        # Of each query the mean, by its weights, of the weights' own gradients.
        means = (of_attended * attended).sum(dim=1, dtype=sums.dtype)[:, None]
        means += (of_sums * sums)[:, None]
        for block in _blocks(len(queries), len(keys)):
            weights = _weights(queries[block], keys, sums.dtype)
            given = of_attended[block]
            change = (given @ values.T).to(sums.dtype)
            if ctx.dropout:
                dropped = _dropped(weights.shape, ctx.dropout, draws)
                change.add_(of_sums[block, None]).div_(1 - ctx.dropout).masked_fill_(dropped, 0.0)
                change.sub_(means[block]).mul_(weights)
                weights.masked_fill_(dropped, 0.0)
                given = given / (1 - ctx.dropout)
            else:
                change.sub_(means[block] - of_sums[block, None]).mul_(weights)
            change = change.to(keys.dtype)
            torch.mm(change, keys, out=of_queries[block])
            if of_keys is not None:
                torch.addmm(of_keys, change.T, queries[block], out=of_keys)
            if of_values is not None:
                torch.addmm(of_values, weights.to(values.dtype).T, given, out=of_values)
        return of_queries, of_keys, of_values, None, None


def _fused(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """As `attend_shared` without dropout, by PyTorch's kernel, which wants keys and values of one width."""
    return F.scaled_dot_product_attention(queries[None, None], keys[None, None], values[None, None], scale=1.0)[0, 0]


def _exact(tensor: Tensor) -> torch.dtype:
    """What sums are made in."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _blocks(queries: int, keys: int) -> Iterator[slice]:
    """Slices of the queries, so many as make a block of weights."""
    step = max(LEAST_QUERIES, BLOCK // keys)
    return (slice(start, min(start + step, queries)) for start in range(0, queries, step))


def _weights(queries: Tensor, keys: Tensor, dtype: torch.dtype) -> Tensor:
    """Attention weights of a block of queries, ``(rows, L)``, in this precision."""
    return (queries @ keys.T).to(dtype).softmax(dim=1)


def _dropped(shape: torch.Size, dropout: float, draws: torch.Generator) -> Tensor:
    """Which weights of a block are dropped, ``(rows, L)`` bool."""
    count = shape.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None, generator=draws)
    threshold = round(dropout * _STEPS) - _STEPS // 2
    return bits.view(torch.int16)[:count].view(shape) < threshold
