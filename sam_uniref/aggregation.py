"""One owner a pixel: objects that were found each by itself compete."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sam_uniref.images import Mask
from sam_uniref.transforms import Size

# Log-odds beyond which nothing is more certain; keeps infinities out of the softmax.
_CERTAIN = 1e4


def soft_aggregate(logits: Tensor) -> Tensor:
    """Let objects compete for each pixel (Oh et al. 2019, as in STCN).

    With the probabilities p of each object by itself, the background's is the product of all 1 - p, and the softmax
    of the log-odds of all of them is the answer. It is computed from logits, since a float32 probability
    is 1.0 from logit 17 on and could not tell two certain objects apart.

    Args:
        logits: ``(N, H, W)`` log-odds of each of N > 0 objects by itself.

    Returns:
        ``(N + 1, H, W)`` probabilities, background first, summing to 1.
    """
    # The foreground's odds are prod(1 + exp(logit)) - 1, one object at a time: f -> f * (1 + exp(x)) + exp(x).
    foreground = logits[0]
    for row in logits[1:]:
        foreground = torch.logaddexp(foreground + F.softplus(row), row)
    return torch.cat([-foreground[None], logits]).clamp(-_CERTAIN, _CERTAIN).softmax(dim=0)


def merge(
    logits: Mapping[int, Tensor],
    given: Mapping[int, Mask],
    size: Size,
    compete: Callable[[Tensor], Tensor] = soft_aggregate,
) -> NDArray[np.int32]:
    """One owner a pixel: given masks as they stand, in the order of their ids, the others compete.

    Args:
        logits: Per object id ``(H, W)``.
        given: Per object id ``(H, W)`` bool.
        size: ``(height, width)``.
        compete: From ``(N, H, W)`` logits to ``(N + 1, H, W)``, background first; the highest owns the pixel.

    Returns:
        ``(H, W)`` object ids, 0 = background.
    """
    labels = np.zeros(size, np.int32)
    if logits:
        owners = compete(torch.stack(list(logits.values()))).argmax(dim=0).cpu().numpy()
        labels = np.array([0, *logits], np.int32)[owners]
    for object_id in sorted(given):
        labels[given[object_id]] = object_id
    return labels
