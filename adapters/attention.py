"""Multi-head cross-attention from image tokens to reference tokens (UniRef++ eq. 4).

``torch.nn.functional.scaled_dot_product_attention``, or flash-attn's variable-length kernel where that package is
installed and the tensors are on CUDA in half precision. But what is linear around the attention may be done in another
order, with equal results but for rounding and at less cost: to a few tokens (a sentence) all projections are folded
into the keys and values, and on a CPU to many tokens (pictures) into the queries and the output.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_uniref.adapters.frames import FrameReference, FrameReferences, attend_frames
from sam_uniref.adapters.shared_attention import attend_shared


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


@dataclass(frozen=True, eq=False)
class ImageQueries:
    """The image tokens that ask, projected at most once and only where they need be.

    Attributes:
        attention: That projects them.
        tokens: ``(B, Lq, C)``, normalised.
        image_index: ``(N,)`` int64, which of the B images each row is about.
    """

    attention: CrossAttention
    tokens: Tensor
    image_index: Tensor

    @functools.cached_property
    def of_rows(self) -> Tensor:
        """``(N, Lq, C)``."""
        return self.tokens[self.image_index]

    @functools.cached_property
    def projected(self) -> Tensor:
        """``(1, heads, Lq, D)`` where there is one image, and all rows ask alike; else ``(N, heads, Lq, D)``."""
        projected = self.attention.project_queries(self.tokens)
        return projected if len(self.tokens) == 1 else projected[self.image_index]


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
        self.head_width = head_width
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
        weight, biases = self._values_to_output()
        bias = biases.sum(dim=1) + self.output.bias

        def project(attended: Tensor) -> Tensor:
            return F.linear(attended.flatten(2), weight, bias)

        if len(queries) == 1 and references.share:
            return attend_frames(queries[0], references.by_frame(level), len(references), project)
        each = []
        for row, own in zip(references.rows, queries.expand(len(references), -1, -1, -1), strict=True):
            nothing = own.new_zeros(*own.shape[:2], self.value.in_features)
            attended = self._attend_row(own, row, level) if row else nothing
            each.append(project(attended.transpose(0, 1)[None]))
        return torch.cat(each)

    def _attend_row(self, queries: Tensor, row: Sequence[FrameReference], level: int) -> Tensor:
        """Weights times values of one row's pictures, ``(heads, Lq, C)``, from ``(heads, Lq, D)``."""
        keys = torch.cat([reference.frame.keys[level] for reference in row], dim=1)
        values = torch.cat([reference.values[level] for reference in row])
        return F.scaled_dot_product_attention(queries, keys, values.expand(self.heads, -1, -1))

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        padding: Tensor,
        attend: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """Attend from projected queries to reference tokens.

        Args:
            queries: ``(N, heads, Lq, D)`` from `project_queries`.
            keys: ``(N, Lk, C)``, normalised.
            values: ``(N, Lk, C)``.
            padding: ``(N, Lk)`` bool, True = padding.
            attend: `attend_sdpa` or `attend_flash`; by default the latter where it is usable.

        Returns:
            ``(N, Lq, C)``, after the output projection.
        """
        projected_keys = self.split_heads(self.key(keys))
        projected_values = self.split_heads(self.value(values))
        if attend is None:
            attend = attend_flash if flash_is_usable(projected_keys, queries.shape[-1]) else attend_sdpa
        dropout = self.dropout if self.training else 0.0
        attended = attend(queries.to(projected_keys.dtype), projected_keys, projected_values, padding, dropout)
        return self.output(attended.transpose(1, 2).flatten(2))

    def to_few(self, queries: ImageQueries, keys: Tensor, values: Tensor, padding: Tensor) -> Tensor:
        """As `forward`, to so few tokens that their weights are smaller than projected queries.

        The query's projection is folded into the keys, and the output's into the values: tokens are then asked as they
        are, and what is projected are the few and not the many.

        Args:
            queries: For N rows.
            keys: ``(N, Lk, C)``, normalised.
            values: ``(N, Lk, C)``.
            padding: ``(N, Lk)`` bool, True = padding.

        Returns:
            ``(N, Lq, C)``, after the output projection.
        """
        own_keys = self.split_heads(self.key(keys)) * self.head_width**-0.5
        by_head = self.query.weight.unflatten(0, (self.heads, -1))
        folded = torch.einsum("nhld,hdc->nchl", own_keys, by_head).flatten(2)
        offsets = torch.einsum("nhld,hd->nhl", own_keys, self.query.bias.unflatten(0, (self.heads, -1))).flatten(1)
        scores = torch.baddbmm(offsets[:, None], queries.of_rows, folded).unflatten(2, (self.heads, -1))
        empty = padding.all(dim=1)
        unseen = padding & ~empty[:, None]
        weights = scores.masked_fill(unseen[:, None, None], float("-inf")).softmax(dim=3)
        weights = F.dropout(weights.masked_fill(empty[:, None, None, None], 0.0), self.dropout, self.training)
        output = self.output.weight.unflatten(1, (self.heads, -1))
        own_values = torch.einsum("nhld,ohd->nhlo", self.split_heads(self.value(values)), output).flatten(1, 2)
        return weights.flatten(2).to(own_values.dtype) @ own_values + self.output.bias

    def shares_on(self, device: torch.device) -> bool:
        """Whether `shared` is of use: on a CPU, where merging makes products no wider than they are."""
        return device.type == "cpu" and self.head_width >= self.query.in_features

    def shared(self, queries: ImageQueries, keys: Tensor, values: Tensor, padding: Tensor, key_scale: Tensor) -> Tensor:
        """As `forward`, with all projections merged into those of the queries and of the output.

        A key's projection acts on queries as well as on keys, and its bias adds the same to all of a query's scores,
        which the softmax takes away again. So keys stay as they are: where nobody learns from them, as from a frozen
        encoder's, they need no gradient, which saves a product of the backward pass's size. Padding takes no part.

        Args:
            queries: For N rows.
            keys: ``(N, Lk, C)``, normalised, but neither scaled nor shifted.
            values: ``(N, Lk, C)``.
            padding: ``(N, Lk)`` bool, True = padding.
            key_scale: ``(C,)``, the norm's. Its shift would make no difference either.

        Returns:
            ``(N, Lq, C)``, after the output projection.
        """
        query, key = (linear.weight.unflatten(0, (self.heads, -1)) for linear in (self.query, self.key))
        scale = key_scale * self.head_width**-0.5
        weight = torch.einsum("hdo,hdc->hoc", key, query) * scale[:, None]
        bias = torch.einsum("hdo,hd->ho", key, self.query.bias.unflatten(0, (self.heads, -1))) * scale
        asked = F.linear(queries.tokens, weight.flatten(0, 1), bias.flatten()).unflatten(2, (self.heads, -1))
        out, out_biases = self._values_to_output()
        rows = []
        for row, image in enumerate(queries.image_index.tolist()):
            own, kept = asked[image].flatten(0, 1), ~padding[row]
            dropout = self.dropout if self.training else 0.0
            own_keys, own_values = (given[row, kept].to(own.dtype) for given in (keys, values))
            if len(own_keys):
                attended, sums = attend_shared(own, own_keys, own_values, dropout)
            else:
                attended, sums = own.new_zeros(len(own), values.shape[2]), own.new_zeros(len(own))
            joined = F.linear(attended.unflatten(0, (-1, self.heads)).flatten(1), out, self.output.bias)
            rows.append(joined + F.linear(sums.unflatten(0, (-1, self.heads)), out_biases))
        return torch.stack(rows)

    def _values_to_output(self) -> tuple[Tensor, Tensor]:
        """The value's and the output's projection of each head as one: ``(C, heads * C)`` and biases ``(C, heads)``."""
        output = self.output.weight.unflatten(1, (self.heads, -1))
        value = self.value.weight.unflatten(0, (self.heads, -1))
        weight = torch.einsum("ohd,hdi->ohi", output, value).flatten(1)
        return weight, torch.einsum("ohd,hd->oh", output, self.value.bias.unflatten(0, (self.heads, -1)))
