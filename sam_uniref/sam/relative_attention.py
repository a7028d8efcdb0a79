"""Self-attention over a grid of tokens with decomposed relative positions (Li et al. 2022, MViTv2), as in SAM.

The logit of the query at row h and column w and the key at row i and column j is ``q·k / sqrt(D) + q·Rh[h - i] +
q·Rw[w - j]``. segment-anything writes all logits down, and two sums beside them: at 4096 tokens and 12 heads 805 MB
each. Here no more than a block of them is there at once.

Two ways that give the same: `attend_in_blocks` is the fastest measured on CPUs and knows no gradients;
`attend_augmented` needs no bias at all, so that any fused kernel does it, forward and backward; and `attend_flex` has
the bias computed inside a compiled kernel.

Notation: N rows, one for each head of each window or image; H and W the grid's sides, L = H W tokens; D the width of a
head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import flex_attention
from torch.utils.flop_counter import register_flop_formula

from sam_uniref.transforms import Size

# So many logits are there at once: 4 MB in float32, 2 MB in half precision, which the caches of two cores hold.
BLOCK = 1 << 20
# Fused kernels want widths of heads that are multiples of this.
WIDTH_MULTIPLE = 8


def relative_table(heights: Tensor, widths: Tensor) -> Tensor:
    """Both tables of relative positions as one matrix to multiply queries with.

    Args:
        heights: ``(2 H - 1, D)``, from the farthest above to the farthest below.
        widths: ``(2 W - 1, D)``, from the farthest to the left to the farthest to the right.

    Returns:
        ``(D, 2 H - 1 + 2 W - 1)``, each table turned round, as `relative_logits` reads it.
    """
    return torch.cat([heights.flip(0), widths.flip(0)]).t()


def relative_logits(queries: Tensor, table: Tensor, grid: Size) -> tuple[Tensor, Tensor]:
    """What the relative positions add to the logits, by rows and by columns of the keys.

    One matrix product with all relative positions, of which each query's own are read as a view: those of the query in
    row h begin one element before those of the query in row h - 1.

    Args:
        queries: ``(N, L, D)``, not scaled.
        table: From `relative_table`, of the queries' dtype.
        grid: ``(H, W)``.

    Returns:
        ``(N, H, W, H)`` for the keys' rows and ``(N, H, W, W)`` for their columns.
    """
    height, width = grid
    products = (queries @ table).unflatten(1, grid)
    rows, down, across, _ = products.stride()
    of_rows = products.as_strided((len(queries), height, width, height), (rows, down - 1, across, 1), height - 1)
    first = 2 * height - 1 + width - 1
    of_columns = products.as_strided((len(queries), height, width, width), (rows, down, across - 1, 1), first)
    return of_rows, of_columns


@torch.library.custom_op("sam_uniref::attend_in_blocks", mutates_args=())
def attend_in_blocks(queries: Tensor, keys: Tensor, values: Tensor, table: Tensor, height: int, width: int) -> Tensor:
    """Attention without gradients, so many rows or queries at a time that their logits stay in the cache.

    The bias is written first and the product of queries and keys added to it by the matrix product itself.

    Args:
        queries: ``(N, L, D)``, contiguous as the others.
        keys: ``(N, L, D)``.
        values: ``(N, L, D)``.
        table: From `relative_table`.
        height: H.
        width: W.

    Returns:
        ``(N, L, D)``.
    """
    rows, tokens, head_width = queries.shape
    attended = torch.empty_like(queries)
    rows_at_once = max(1, BLOCK // tokens**2)
    lines_at_once = max(1, min(height, BLOCK // (tokens * width)))
    logits = queries.new_empty(min(rows_at_once, rows) * lines_at_once * width * tokens)
    scale = head_width**-0.5
    for first in range(0, rows, rows_at_once):
        some = slice(first, first + rows_at_once)
        of_rows, of_columns = relative_logits(queries[some], table, (height, width))
        scaled, transposed = queries[some] * scale, keys[some].transpose(1, 2)
        for line in range(0, height, lines_at_once):
            lines = slice(line, min(line + lines_at_once, height))
            at = slice(lines.start * width, lines.stop * width)
            asked = scaled[:, at]
            block = logits[: asked.shape[0] * asked.shape[1] * tokens].view(*asked.shape[:2], tokens)
            by_grid = block.view(-1, lines.stop - lines.start, width, height, width)
            torch.add(of_rows[:, lines, :, :, None], of_columns[:, lines, :, None, :], out=by_grid)
            if len(asked) == 1:  # the product of two matrices is faster than that of two batches of one
                torch.addmm(block[0], asked[0], transposed[0], out=block[0])
                torch.mm(torch.softmax(block[0], -1), values[first], out=attended[first, at])
            else:
                torch.baddbmm(block, asked, transposed, out=block)
                torch.bmm(torch.softmax(block, -1), values[some], out=attended[some])
    return attended


@attend_in_blocks.register_fake
def _(queries: Tensor, keys: Tensor, values: Tensor, table: Tensor, height: int, width: int) -> Tensor:
    return torch.empty_like(queries)


@register_flop_formula(torch.ops.sam_uniref.attend_in_blocks)
def _operations(
    queries: torch.Size, keys: torch.Size, values: torch.Size, table: torch.Size, *_: object, **__: object
) -> int:
    """Of its matrix products, into which PyTorch's counter does not look."""
    rows, tokens, head_width = queries
    return 2 * rows * tokens * head_width * (keys[1] + values[1] + table[1])


def attend_augmented(queries: Tensor, keys: Tensor, values: Tensor, table: Tensor, grid: Size) -> Tensor:
    """Attention through `scaled_dot_product_attention` without a bias, in memory that grows with L and not with L².

    Queries are lengthened by what the relative positions add for each row and column, keys by which row and column is
    theirs, so that the product of both is the whole logit. Values are lengthened by zeros: kernels want one width.

    Args:
        queries: ``(N, L, D)``.
        keys: ``(N, L, D)``.
        values: ``(N, L, D)``.
        table: From `relative_table`.
        grid: ``(H, W)``.

    Returns:
        ``(N, L, D)``.
    """
    height, width = grid
    of_rows, of_columns = relative_logits(queries, table, grid)
    head_width = queries.shape[-1]
    missing = -(head_width + height + width) % WIDTH_MULTIPLE
    scaled = queries * head_width**-0.5
    lengthened = F.pad(torch.cat([scaled, of_rows.flatten(1, 2), of_columns.flatten(1, 2)], dim=-1), (0, missing))
    row = torch.eye(height, dtype=keys.dtype, device=keys.device).repeat_interleave(width, 0)
    column = torch.eye(width, dtype=keys.dtype, device=keys.device).repeat(height, 1)
    places = F.pad(torch.cat([row, column], dim=-1), (0, missing)).expand(len(keys), -1, -1)
    attended = F.scaled_dot_product_attention(
        lengthened[None],
        torch.cat([keys, places], dim=-1)[None],
        F.pad(values, (0, height + width + missing))[None],
        scale=1.0,
    )
    return attended[0, ..., :head_width]


def attend_flex(queries: Tensor, keys: Tensor, values: Tensor, table: Tensor, grid: Size) -> Tensor:
    """Attention through FlexAttention, which adds the bias inside its kernel where it is compiled.

    Uncompiled it writes all logits down, as segment-anything does.

    Args:
        queries: ``(N, L, D)``.
        keys: ``(N, L, D)``.
        values: ``(N, L, D)``.
        table: From `relative_table`.
        grid: ``(H, W)``.

    Returns:
        ``(N, L, D)``.
    """
    of_rows, of_columns = (part.flatten(1, 2).contiguous() for part in relative_logits(queries, table, grid))
    width = grid[1]

    def add_positions(score: Tensor, batch: Tensor, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + of_rows[row, query, key // width] + of_columns[row, query, key % width]

    attended: Tensor = flex_attention(queries[None], keys[None], values[None], score_mod=add_positions)
    return attended[0]
