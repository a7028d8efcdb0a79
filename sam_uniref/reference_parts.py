"""The parts that references go through, and which tasks have such references; the same for SamRef and UniRef."""

from __future__ import annotations

from torch import nn

from sam_uniref.adapters import ReferenceFusion, TextEncoder
from sam_uniref.interfaces import TrainablePart

# Tasks with references of a kind, as `ReferenceSegmenter.references_of` makes them.
KIND_TASKS = {"sentence": ("ris", "rvos"), "examples": ("fss",), "frames": ("vos", "rvos")}


def reference_parts(
    fusion: ReferenceFusion, mask_encoder: nn.Module, text_encoder: TextEncoder | None
) -> list[TrainablePart]:
    """UniFusion, in a part for each kind of reference where these have their own, and the reference encoders."""
    parts = [
        TrainablePart(
            "UniFusion" if len(kinds) == len(KIND_TASKS) else f"UniFusion, {' and '.join(kinds)}",
            module,
            tasks=tuple(task for kind in kinds for task in KIND_TASKS[kind]),
        )
        for kinds, module in fusion.by_kinds().items()
    ]
    parts.append(TrainablePart("mask encoder", mask_encoder, tasks=KIND_TASKS["examples"] + KIND_TASKS["frames"]))
    if text_encoder is not None:
        spoken = KIND_TASKS["sentence"]
        parts.append(TrainablePart("text resizer", text_encoder.resizer, tasks=spoken))
        parts.append(TrainablePart("text encoder", text_encoder.model, "text", spoken))
    return parts
