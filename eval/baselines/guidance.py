"""PerSAM's changes to SAM's mask decoder in its first step: where to look, and what for (Zhang et al. 2023, 3.2).

Facts from ZrrSkywalker/Personalize-SAM at a7e8724; one that the paper does not ask for is marked below.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def guided_decoder(decoder: Any, *, attention: Tensor | None = None, target: Tensor | None = None) -> Any:
    """SAM's mask decoder with its weights, told about an object.

    Args:
        decoder: segment-anything's `MaskDecoder`; it stays as it is.
        attention: ``(1, 1, 1, L)`` for L cells, target-guided attention: added to the weights of both layers'
            token-to-image attention after their softmax, which then is taken a second time. Neither image-to-token
            nor the final attention is changed.
        target: ``(C,)``, target-semantic prompting: added to the tokens before each layer and before the final
            attention.

    Returns:
        A mask decoder that shares all weights.
    """
    transformer = decoder.transformer
    if attention is not None:
        layers = [
            _with_modules(layer, cross_attn_token_to_image=_BiasedAttention(layer.cross_attn_token_to_image, attention))
            for layer in transformer.layers
        ]
        transformer = _with_modules(transformer, layers=nn.ModuleList(layers))
    if target is not None:
        transformer = _PromptedTransformer(transformer, target)
    return _with_modules(decoder, transformer=transformer)


def _with_modules(module: Module, **replaced: nn.Module) -> Module:
    """A module that shares everything with another one but the named submodules."""
    changed = copy.copy(module)
    changed._modules = {**module._modules, **replaced}
    return changed


class _BiasedAttention(nn.Module):
    """SAM's attention with weights softmax(softmax(q k / sqrt(d)) + bias)."""

    def __init__(self, attention: Any, bias: Tensor) -> None:
        super().__init__()
        self.attention = attention
        self.bias = bias

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As the attention's own: queries ``(N, T, C)``, keys and values ``(N, L, C)``."""
        layer = self.attention
        queries, keys, values = (
            projection(given).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
            for projection, given in ((layer.q_proj, q), (layer.k_proj, k), (layer.v_proj, v))
        )
        weights = (queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5).softmax(dim=-1)
        weights = (weights + self.bias).softmax(dim=-1)
        attended: Tensor = layer.out_proj((weights @ values).transpose(1, 2).flatten(2))
        return attended


class _PromptedTransformer(nn.Module):
    """SAM's two-way transformer with a target embedding added to its tokens."""

    def __init__(self, transformer: Any, target: Tensor) -> None:
        super().__init__()
        self.transformer = transformer
        self.target = target

    def forward(self, image_embedding: Tensor, image_pe: Tensor, point_embedding: Tensor) -> tuple[Tensor, Tensor]:
        """As the transformer's own: ``(N, C, h, w)``, the same, ``(N, T, C)`` to tokens and ``(N, h * w, C)``."""
        whole = self.transformer
        keys, key_positions = image_embedding.flatten(2).mT, image_pe.flatten(2).mT
        # The published program adds the target in place, and so the tokens' positional encoding has it from the first
        # layer on. The paper does not ask for it.
        positions = point_embedding + self.target
        queries = positions
        for index, layer in enumerate(whole.layers):
            told = queries if index == 0 else queries + self.target
            queries, keys = layer(queries=told, keys=keys, query_pe=positions, key_pe=key_positions)
        attended = whole.final_attn_token_to_image(q=queries + positions + self.target, k=keys + key_positions, v=keys)
        return whole.norm_final_attn(queries + attended), keys
