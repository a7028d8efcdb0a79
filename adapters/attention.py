"""Multi-head cross-attention from image tokens to reference tokens (UniRef++ eq. 4).

``torch.nn.functional.scaled_dot_product_attention`` everywhere; flash-attn's variable-length kernel where
that package is installed and the tensors are on CUDA in half precision.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_uniref.adapters.frames import FrameReference, FrameReferences, attend_frames


@functools.cache
def _flash_varlen() -> Callable[..., Tensor] | None:
    """flash-attn's variable-length kernel, or None where the package is not installed."""
    try:
        return importlib.import_module("flash_attn").flash_attn_varlen_func
    except (ImportError, AttributeError):
        return None


def flash_is_usable(tensor: Tensor, head_width: int) -> bool:
    """Whether the variable-length kernel is there and takes this tensor."""
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.is_cuda and half and head_width <= 256 and _flash_varlen() is not None


def attend_sdpa(queries: Tensor, keys: Tensor, values: Tensor, padding: Tensor, dropout: float = 0.0) -> Tensor:
    """Scaled dot-product attention that ignores padded keys.

    Args:
        queries: ``(N, heads, Lq, D)``.
        keys: ``(N, heads, Lk, D)``.
        values: ``(N, heads, Lk, D)``.
        padding: ``(N, Lk)`` bool, True = padding.
        dropout: Probability of dropping an attention weight.

    Returns:
        ``(N, heads, Lq, D)``. Rows whose keys are all padding are zero.
    """
    empty = padding.all(dim=1)
    # A row with nothing to attend to would be 0/0; let it see everything and blank the result.
    visible = ~padding | empty[:, None]
    attended = F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=visible[:, None, None, :], dropout_p=dropout
    )
    return attended.masked_fill(empty[:, None, None, None], 0.0)


def attend_flash(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    padding: Tensor,
    dropout: float = 0.0,
    kernel: Callable[..., Tensor] | None = None,
) -> Tensor:
    """As `attend_sdpa`, on keys packed without their padding.

    Args:
        queries: ``(N, heads, Lq, D)``.
        keys: ``(N, heads, Lk, D)``.
        values: ``(N, heads, Lk, D)``.
        padding: ``(N, Lk)`` bool, True = padding.
        dropout: Probability of dropping an attention weight.
        kernel: ``flash_attn_varlen_func`` or a function of the same signature; the installed one by default.

    Raises:
        RuntimeError: If no kernel is given and flash-attn is not installed.
    """
    kernel = kernel or _flash_varlen()
    if kernel is None:
        raise RuntimeError("flash-attn is not installed; install the extra 'flash' or use attend_sdpa")
    rows, heads, query_length, width = queries.shape
    empty = padding.all(dim=1)
    visible = ~padding | empty[:, None]
    lengths = visible.sum(dim=1)

    def boundaries(counts: Tensor) -> Tensor:
        return F.pad(counts.cumsum(0), (1, 0)).to(torch.int32)

    attended = kernel(
        queries.transpose(1, 2).reshape(rows * query_length, heads, width),
        keys.transpose(1, 2)[visible],
        values.transpose(1, 2)[visible],
        boundaries(lengths.new_full((rows,), query_length)),
        boundaries(lengths),
        query_length,
        keys.shape[2],
        dropout_p=dropout,
    )
    attended = attended.view(rows, query_length, heads, width).transpose(1, 2)
    return attended.masked_fill(empty[:, None, None, None], 0.0)


class CrossAttention(nn.Module):
    """Multi-head cross-attention with separate projections and an inner width of ``heads * head_width``.

    Args:
        channels: Width C of queries, keys, values and output.
        heads: Number of heads.
        head_width: Width of one head; the published modules use 8 x 256 = 2048 whatever C is.
        dropout: Dropout on attention weights in training.
        start_alike: Queries and keys start as the same projection, so that attention starts at what looks alike.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 8,
        head_width: int = 256,
        dropout: float = 0.1,
        start_alike: bool = True,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        inner = heads * head_width
        self.query = nn.Linear(channels, inner)
        self.key = nn.Linear(channels, inner)
        self.value = nn.Linear(channels, inner)
        self.output = nn.Linear(inner, channels)
        for linear in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        if start_alike:
            self.key.load_state_dict(self.query.state_dict())

    def split_heads(self, projected: Tensor) -> Tensor:
        """``(N, L, heads * D)`` to ``(N, heads, L, D)``."""
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def project_queries(self, tokens: Tensor) -> Tensor:
        """``(B, L, C)`` image tokens to ``(B, heads, L, D)`` queries, once for all rows about an image."""
        return self.split_heads(self.query(tokens))

    def project_keys(self, tokens: Tensor) -> Tensor:
        """``(L, C)`` normalised tokens of one picture to ``(heads, L, D)`` keys, to be kept."""
        return self.split_heads(self.key(tokens)[None])[0].contiguous()

    def frames(self, queries: Tensor, references: FrameReferences, level: int) -> Tensor:
        """As `forward`, to pictures that rows may share; for inference.

        Rows about one image have one set of queries, so a picture's attention weights are those of all its rows. Where
        no picture is shared, a fused kernel a row is faster. And as weights sum to one, values may be projected after
        they were averaged: an object is kept as C values a token and not as heads * D.

        Args:
            queries: ``(1, heads, Lq, D)`` where all rows have the same, else ``(N, heads, Lq, D)``.
            references: N rows.
            level: Of the image features.

        Returns:
            ``(N, Lq, C)``, after the output projection; for rows without a reference without meaning.
        """
        output = self.output.weight.unflatten(1, (self.heads, -1))
        value = self.value.weight.unflatten(0, (self.heads, -1))
        # Per head the value's and the output's projection as one: (C, heads * C).
        weight = torch.einsum("ohd,hdi->ohi", output, value).flatten(1)
        bias = F.linear(self.value.bias, self.output.weight, self.output.bias)

        def project(attended: Tensor) -> Tensor:
            return F.linear(attended.flatten(2), weight, bias)

        if len(queries) == 1 and references.share:
            return attend_frames(queries[0], references.by_frame(level), len(references), project)
        each = []
        for row, own in zip(references.rows, queries.expand(len(references), -1, -1, -1), strict=True):
            attended = self._attend_row(own, row, level) if row else own.new_zeros(*own.shape[:2], value.shape[2])
            each.append(project(attended.transpose(0, 1)[None]))
        return torch.cat(each)

    def _attend_row(self, queries: Tensor, row: Sequence[FrameReference], level: int) -> Tensor:
        """Weights times values of one row's pictures, ``(heads, Lq, C)``, from ``(heads, Lq, D)``."""
        keys = torch.cat([reference.frame.keys[level] for reference in row], dim=1)
        values = torch.cat([reference.values[level] for reference in row])
        return F.scaled_dot_product_attention(queries, keys, values.expand(self.heads, -1, -1))

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, padding: Tensor) -> Tensor:
        """Attend from projected queries to reference tokens.

        Args:
            queries: ``(N, heads, Lq, D)`` from `project_queries`.
            keys: ``(N, Lk, C)``, normalised.
            values: ``(N, Lk, C)``.
            padding: ``(N, Lk)`` bool, True = padding.

        Returns:
            ``(N, Lq, C)``, after the output projection.
        """
        projected_keys = self.split_heads(self.key(keys))
        projected_values = self.split_heads(self.value(values))
        attend = attend_flash if flash_is_usable(projected_keys, queries.shape[-1]) else attend_sdpa
        dropout = self.dropout if self.training else 0.0
        attended = attend(queries.to(projected_keys.dtype), projected_keys, projected_values, padding, dropout)
        return self.output(attended.transpose(1, 2).flatten(2))
