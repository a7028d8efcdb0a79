"""Linear layers whose weight is laid out once for several products of rows, on a CPU and without gradients.

oneDNN multiplies by a weight that lies in blocks of its own, and rearranges it at each call otherwise; a picture that
is done stripe by stripe would pay for that with every stripe. What is laid out lives as long as the function does, so
that weights may change between two pictures, and a second copy of all of them is never held.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

Apply = Callable[[Tensor], Tensor]
"""``(..., C)`` of any floating dtype to ``(..., C')`` of the weight's, or of autocast's where that is on."""


def apply_linear(layer: nn.Linear, x: Tensor, *, gelu: bool = False) -> Tensor:
    """A linear layer, or LoRA around one, on ``(..., C)`` of any dtype, and GELU after it if asked for."""
    product: Tensor = layer(x.to(layer.weight.dtype))
    return F.gelu(product) if gelu else product


def laid_out(layer: nn.Linear, rows: int, *, gelu: bool = False) -> Apply:
    """`apply_linear` of a layer, to be called several times.

    Args:
        layer: On a CPU.
        rows: About how many a call has; what the layout is best for.
        gelu: Whether GELU follows, computed before the product is rounded.

    Returns:
        What knows no gradients. A layer that is more than a linear one, or whose precision oneDNN lacks here, is called
        as it is.
    """
    precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else layer.weight.dtype
    if type(layer) is not nn.Linear or not _multiplies(precision):
        return lambda x: apply_linear(layer, x, gelu=gelu)
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().to(precision), rows)
    bias = None if layer.bias is None else layer.bias.detach().to(precision)
    after, algorithm = ("gelu", "none") if gelu else ("none", "")

    def multiply(x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(precision), weight, bias, after, [], algorithm)
        return product

    return multiply


def _multiplies(precision: torch.dtype) -> bool:
    """Whether oneDNN is there, with products in a precision."""
    if not torch.backends.mkldnn.is_available():
        return False
    bf16 = precision == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return precision == torch.float32 or bool(bf16)


if torch.backends.mkldnn.is_available():

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _operations(given: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
        """Of the product, which PyTorch's counter passes over."""
        return 2 * given.numel() * weight[0]
