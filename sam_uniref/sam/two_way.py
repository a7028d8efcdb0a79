"""SAM's two-way transformer for rows of unequal numbers of prompt tokens, which SAM's own decoder does not know."""

from __future__ import annotations

from typing import Any

from segment_anything.modeling import TwoWayTransformer
from torch import Tensor
from torch.nn import functional as F


def two_way(
    transformer: TwoWayTransformer, image: Tensor, positions: Tensor, tokens: Tensor, padding: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the transformer with tokens that nothing attends to. Without any it is SAM's own but for rounding.

    Args:
        transformer: Of a mask decoder.
        image: ``(N, C, h, w)``, the dense prompt added.
        positions: ``(N, C, h, w)``, the dense positional encoding.
        tokens: ``(N, T, C)``, output tokens and prompts.
        padding: ``(N, T)`` bool, True where a token is padding. Its own state has no meaning.

    Returns:
        Tokens ``(N, T, C)`` and image ``(N, h w, C)``.
    """
    seen = ~padding[:, None, None]
    states, keys, places = tokens, _as_tokens(image), _as_tokens(positions)
    for layer in transformer.layers:
        if layer.skip_first_layer_pe:
            states = _attend(layer.self_attn, states, states, states, seen)
        else:
            placed = states + tokens
            states = states + _attend(layer.self_attn, placed, placed, states, seen)
        states = layer.norm1(states)
        # Image cells are never padding here, and what padding reads from them is read by nobody.
        states = layer.norm2(states + layer.cross_attn_token_to_image(states + tokens, keys + places, keys))
        states = layer.norm3(states + layer.mlp(states))
        looked_up = _attend(layer.cross_attn_image_to_token, keys + places, states + tokens, states, seen)
        keys = layer.norm4(keys + looked_up)
    states = states + transformer.final_attn_token_to_image(states + tokens, keys + places, keys)
    return transformer.norm_final_attn(states), keys


def _as_tokens(grid: Tensor) -> Tensor:
    """``(N, C, h, w)`` to ``(N, h w, C)``."""
    return grid.flatten(2).transpose(1, 2)


def _attend(attention: Any, queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """One of SAM's attentions, to the keys that are seen ``(N, 1, 1, T)``."""

    def by_head(projected: Tensor) -> Tensor:
        return projected.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)

    attended = F.scaled_dot_product_attention(
        by_head(attention.q_proj(queries)),
        by_head(attention.k_proj(keys)),
        by_head(attention.v_proj(values)),
        attn_mask=seen,
    )
    joined: Tensor = attention.out_proj(attended.transpose(1, 2).flatten(2))
    return joined
