"""What one more object costs a tracker at least: its values under attention, its mask encoded, its mask decoded.

All else of a frame (the image encoder, the frame's keys, the attention weights) is done once for all objects.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from sam_uniref.interfaces import ImageFeatures
from sam_uniref.samref import SamRef

# A part's share of one object is measured between so few and so many at once, each so often.
FEW, MANY, REPEATS = 1, 4, 3
# First and previous frame.
REFERENCES = 2


@torch.no_grad()
def unavoidable_parts(model: SamRef, features: ImageFeatures) -> dict[str, float]:
    """Seconds that each part of one more object takes.

    Args:
        model: On the device that is measured.
        features: One encoded picture.
    """
    level, side = features.levels[0], model.transform.size

    def encode_masks(count: int) -> None:
        source = torch.zeros(count, dtype=torch.int64, device=model.device)
        masks = torch.ones(count, 1, side, side, device=model.device)
        model.mask_encoder(features.pixels, masks, features.levels, source)

    def decode_masks(count: int) -> None:
        tokens = torch.zeros(count, 1, level.shape[1], device=model.device)
        model.sam.decode(level.expand(count, -1, -1, -1).contiguous(), None, tokens, model.mask_decoder)

    return {
        "attention times values": _added(_values_under_attention(model, features)),
        "mask encoder": _added(encode_masks),
        "mask decoder": _added(decode_masks),
    }


def _values_under_attention(model: SamRef, features: ImageFeatures) -> Callable[[int], None]:
    """Attention weights of all reference frames times the values of so many objects, and what comes of it projected.

    Reference frames are kept without their padding; the frame that asks has it.
    """
    level = features.levels[0]
    heads, channels, queries = (
        model.fusion.part("frames", 0).attention.heads,
        level.shape[1],
        level.shape[2] * level.shape[3],
    )
    tokens = int((~features.padding[0]).sum())
    block = max(1, 2**24 // (heads * tokens))
    weights = torch.rand(heads * block, tokens, device=model.device, dtype=level.dtype)
    output = torch.rand(channels, heads * channels, device=model.device, dtype=level.dtype)

    def multiply(count: int) -> None:
        values = torch.rand(tokens, count * channels, device=model.device, dtype=level.dtype)
        for start in range(0, queries, block):
            asked = min(block, queries - start)
            for _ in range(REFERENCES):
                attended = weights[: heads * asked] @ values
            # An object's reference frames are joined before they are projected.
            F.linear(attended.view(heads, asked, count, channels).permute(2, 1, 0, 3).flatten(2), output)

    return multiply


def _added(run: Callable[[int], None]) -> float:
    """Seconds for one more."""
    return (_seconds(run, MANY) - _seconds(run, FEW)) / (MANY - FEW)


def _seconds(run: Callable[[int], None], count: int) -> float:
    """The median time, after a run that is not timed."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        run(count)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
