"""The kinds of model that can be trained: what each learns from, and what it is trained with unless told otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes:
        tasks: That it can be trained on.
        text_stages: Stages in which its text encoder is trained.
        rates: Learning rates by their names in the settings.
        losses: Weights of its losses, by name.
    """

    tasks: tuple[str, ...]
    text_stages: tuple[str, ...]
    rates: Mapping[str, float]
    losses: Mapping[str, float]


KINDS = {
    # UniRef++'s image stage; and the predicted IoU, which the published code does not train.
    "samref": Kind(
        tasks=("ris", "fss", "vos", "rvos"),
        text_stages=("image", "joint"),
        rates={"lr": 2e-4, "text_lr": 1e-5},
        losses={"bce": 2.0, "dice": 0.5, "iou": 1.0},
    ),
    # The best rates of RefSAM's ablation, 1e-4 for what that leaves open; the loss is dice + focal, unweighted. The
    # text encoder stays frozen; its rate counts where the settings train it all the same.
    "refsam": Kind(
        tasks=("ris", "rvos"),
        text_stages=(),
        rates={"lr": 1e-4, "text_lr": 1e-5, "mlp_lr": 1e-4, "dense_lr": 1e-4, "decoder_lr": 1e-6},
        losses={"dice": 1.0, "focal": 1.0},
    ),
}


def take_defaults(section: Any, own: Mapping[str, float], path: str, kind: str) -> None:
    """Fill in what a section of the settings leaves open, as the kind has it.

    Args:
        section: A dataclass; what only some kinds have is None where it was not given.
        own: What the kind has, by name.
        path: Of the section, for messages.
        kind: Its name, for messages.

    Raises:
        ValueError: If something is given that the kind does not have.
    """
    every = {name for known in KINDS.values() for name in (*known.rates, *known.losses)}
    for name in (f.name for f in fields(section) if f.name in every):
        if getattr(section, name) is None:
            setattr(section, name, own.get(name))
        elif name not in own:
            raise ValueError(
                f"{path}.{name} does nothing for a {kind}, which has {', '.join(own)}; leave it out or set it to null"
            )
