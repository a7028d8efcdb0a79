"""The kinds of model that can be trained: what each learns from, and what it is trained with unless told otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes:
        tasks: That it can be trained on.
        text_stages: Stages in which its text encoder is trained.
        rates: Learning rates, and factors of ``lr``, by their names in the settings.
        losses: Weights of its losses, and what else belongs to them, by their names in the settings.
        stage_losses: By stage, weights of losses that there are in this stage alone unless others are given.
        stage_options: By stage, how its losses are taken unless told otherwise.
        boxes: Whether it learns from boxes where masks are not known.
        refitted: Options of the model that a stage may change of the model that it starts from.
        whole: Whether a saved model holds all its weights, and needs no checkpoint beside it.
    """

    tasks: tuple[str, ...]
    text_stages: tuple[str, ...]
    rates: Mapping[str, float]
    losses: Mapping[str, float]
    stage_losses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    stage_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    boxes: bool = False
    refitted: tuple[str, ...] = ()
    whole: bool = False

    def losses_in(self, stage: str) -> dict[str, float | None]:
        """What its losses weigh in a stage; None where there is none unless it is asked for."""
        elsewhere = {name: None for weights in self.stage_losses.values() for name in weights}
        return {**self.losses, **elsewhere, **self.stage_losses.get(stage, {})}


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
    # UniRef++, as its code has it. Learnt from boxes, the pairwise loss comes in over BoxInst's 10,000 steps.
    "uniref": Kind(
        tasks=("ris", "fss", "vos", "rvos", "detection"),
        text_stages=("image", "joint"),
        rates={"lr": 2e-4, "text_lr": 1e-5, "backbone_factor": 0.1, "offsets_factor": 0.1},
        losses={
            "classes": 2.0,
            "box": 5.0,
            "giou": 2.0,
            "mask": 2.0,
            "dice": 5.0,
            "projection": 1.0,
            "pairwise": 1.0,
            "pairwise_steps": 10_000,
            "iou_head": 1.0,
        },
        stage_losses={"video": {"bootstrap": 1.0, "mask_iou": 1.0}},
        stage_options={"video": {"full_resolution": True}},
        boxes=True,
        refitted=("classes",),
        whole=True,
    ),
}


def take_defaults(section: Any, own: Mapping[str, float | None], path: str, kind: str) -> None:
    """Fill in what a section of the settings leaves open, as the kind has it.

    Args:
        section: A dataclass; what only some kinds have is None where it was not given.
        own: What the kind has, by name.
        path: Of the section, for messages.
        kind: Its name, for messages.

    Raises:
        ValueError: If something is given that the kind does not have.
    """
    every = {name for known in KINDS.values() for name in (*known.rates, *known.losses_in(""))}
    for name in (f.name for f in fields(section) if f.name in every):
        if getattr(section, name) is None:
            setattr(section, name, own.get(name))
        elif name not in own:
            raise ValueError(
                f"{path}.{name} does nothing for a {kind}, which has {', '.join(own)}; leave it out or set it to null"
            )
