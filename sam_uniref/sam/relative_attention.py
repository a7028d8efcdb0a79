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
    if torch.compiler.is_exporting():
        return _exported_relative_logits(queries, table, grid)
    products = (queries @ table).unflatten(1, grid)
    rows, down, across, _ = products.stride()
    of_rows = products.as_strided((len(queries), height, width, height), (rows, down - 1, across, 1), height - 1)
    first = 2 * height - 1 + width - 1
    of_columns = products.as_strided((len(queries), height, width, width), (rows, down, across - 1, 1), first)
    return of_rows, of_columns


def _exported_relative_logits(queries: Tensor, table: Tensor, grid: Size) -> tuple[Tensor, Tensor]:
    """As `relative_logits` in operations that other programs have too, which know no strides."""
    height, width = grid
    by_grid = queries.unflatten(1, grid)
    rows = torch.arange(height, device=table.device)
    columns = torch.arange(width, device=table.device)
    of_rows = table[:, height - 1 - rows[:, None] + rows]
    of_columns = table[:, 2 * height - 1 + width - 1 - columns[:, None] + columns]
    return (
        torch.einsum("nhwd,dhi->nhwi", by_grid, of_rows),
        torch.einsum("nhwd,dwj->nhwj", by_grid, of_columns),
    )


@torch.library.custom_op("sam_uniref::attend_in_blocks", mutates_args=())
def attend_in_blocks(queries: Tensor, keys: Tensor, values: Tensor, table: Tensor, height: int, width: int) -> Tensor:
    """Attention without gradients, so many rows or queries at a time that their logits stay in the cache.

    Where a grid's logits fill a block, the bias is written first and the product of queries and keys added to it by the
    matrix product itself. Smaller grids are taken several at a time, and as in `attend_augmented`: their queries and
    keys are not much longer then, and lines of so few logits are slow to write.

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
    rows, tokens, _ = queries.shape
    attended = torch.empty_like(queries)
    rows_at_once = BLOCK // tokens**2
    if rows_at_once < 2:
        for row in range(rows):
            _attend_in_lines(queries[row], keys[row], values[row], table, (height, width), attended[row])
        return attended
    for first in range(0, rows, rows_at_once):
        some = slice(first, first + rows_at_once)
        longer, longer_keys = lengthen(queries[some], keys[some], table, (height, width))
        weights = torch.softmax(longer @ longer_keys.transpose(1, 2), -1)
        torch.bmm(weights, values[some], out=attended[some])
    return attended


def _attend_in_lines(
    queries: Tensor, keys: Tensor, values: Tensor, table: Tensor, grid: Size, attended: Tensor
) -> None:
    """One row of `attend_in_blocks`, ``(L, D)``, some of the lines of queries at a time."""
    height, width = grid
    tokens, head_width = queries.shape
    of_rows, of_columns = (part[0] for part in relative_logits(queries[None], table, grid))
    scaled, transposed = queries * head_width**-0.5, keys.t()
    at_once = max(1, min(height, BLOCK // (tokens * width)))
    logits = queries.new_empty(at_once * width, tokens)
    for line in range(0, height, at_once):
        lines = slice(line, min(line + at_once, height))
        at = slice(lines.start * width, lines.stop * width)
        block = logits[: at.stop - at.start]
        by_grid = block.view(-1, width, height, width)
        torch.add(of_rows[lines, :, :, None], of_columns[lines, :, None, :], out=by_grid)
        torch.addmm(block, scaled[at], transposed, out=block)
        torch.mm(torch.softmax(block, -1), values, out=attended[at])


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
    head_width = queries.shape[-1]
    longer, longer_keys = lengthen(queries, keys, table, grid)
    longer_values = F.pad(values, (0, longer.shape[-1] - head_width))
    attended = F.scaled_dot_product_attention(longer[None], longer_keys[None], longer_values[None], scale=1.0)
    return attended[0, ..., :head_width]


def lengthen(queries: Tensor, keys: Tensor, table: Tensor, grid: Size) -> tuple[Tensor, Tensor]:
    """Queries and keys whose products are the whole logits, scale and relative positions included.

    Args:
        queries: ``(N, L, D)``.
        keys: ``(N, L, D)``.
        table: From `relative_table`.
        grid: ``(H, W)``.

    Returns:
        ``(N, L, D')`` each; D' is D + H + W or a little more, a multiple of `WIDTH_MULTIPLE`.
    """
    height, width = grid
    of_rows, of_columns = relative_logits(queries, table, grid)
    head_width = queries.shape[-1]
    scaled = queries * head_width**-0.5
    rest = queries.new_zeros(1, 1, -(head_width + height + width) % WIDTH_MULTIPLE).expand(*queries.shape[:2], -1)
    row = torch.eye(height, dtype=keys.dtype, device=keys.device).repeat_interleave(width, 0)
    column = torch.eye(width, dtype=keys.dtype, device=keys.device).repeat(height, 1)
    places = torch.cat([row, column], dim=-1).expand(keys.shape[0], -1, -1)
    return (
        torch.cat([scaled, of_rows.flatten(1, 2), of_columns.flatten(1, 2), rest], dim=-1),
        torch.cat([keys, places, rest], dim=-1),
    )


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
