"""The settings of what a run learns by: weights of losses, rates, and the optimiser's schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class LossSettings:
    """Weights of the losses; null: as the kind of model has it, see `KINDS`."""

    bce: float | None = field(default=None, metadata={"help": "binary cross-entropy: a SamRef's"})
    dice: float | None = field(default=None, metadata={"help": "Dice"})
    iou: float | None = field(default=None, metadata={"help": "squared error of the predicted IoU: a SamRef's"})
    focal: float | None = field(default=None, metadata={"help": "focal loss: a RefSam's"})
    classes: float | None = field(default=None, metadata={"help": "focal loss of the classes: a UniRef's, as the rest"})
    box: float | None = field(default=None, metadata={"help": "L1 of the boxes"})
    giou: float | None = field(default=None, metadata={"help": "generalised IoU of the boxes"})
    mask: float | None = field(default=None, metadata={"help": "of the masks' pixels: see options.mask"})
    bootstrap: float | None = field(default=None, metadata={"help": "cross-entropy of the worst pixels (video stage)"})
    mask_iou: float | None = field(default=None, metadata={"help": "soft IoU of the masks (video stage)"})
    projection: float | None = field(default=None, metadata={"help": "of masks onto the axes, from boxes"})
    pairwise: float | None = field(default=None, metadata={"help": "of neighbours of one colour, from boxes"})
    pairwise_steps: int | None = field(default=None, metadata={"help": "over which pairwise comes in"})
    iou_head: float | None = field(default=None, metadata={"help": "of the predicted IoU, if there is a head for it"})
    options: dict[str, Any] = field(default_factory=dict, metadata={"help": "keys of a UniRef's LossOptions"})

    def weights(self, step: int | None = None) -> dict[str, float]:
        """Of the losses that count, by the model's names for them, at a step; by default in the end."""
        given = {name: value for name, value in vars(self).items() if isinstance(value, int | float)}
        steps = given.pop("pairwise_steps", 0)
        if step is not None and steps:
            given["pairwise"] *= min(1.0, (step + 1) / steps)
        return {"class" if name == "classes" else name: weight for name, weight in given.items()}


@dataclass
class OptimiserSettings:
    """AdamW, its schedule and its clipping. Learning rates that are null are as the kind of model has them."""

    lr: float | None = field(default=None, metadata={"help": "of everything that has no rate of its own"})
    text_lr: float | None = field(default=None, metadata={"help": "of the text encoder"})
    mlp_lr: float | None = field(default=None, metadata={"help": "of a RefSam's cross-modal MLP"})
    dense_lr: float | None = field(default=None, metadata={"help": "of a RefSam's dense attention"})
    decoder_lr: float | None = field(default=None, metadata={"help": "of a RefSam's mask decoder"})
    backbone_factor: float | None = field(default=None, metadata={"help": "times lr: of a UniRef's backbone"})
    offsets_factor: float | None = field(default=None, metadata={"help": "times lr: of a UniRef's sampling offsets"})
    weight_decay: float = field(default=0.05, metadata={"help": "on everything"})
    clip: float = field(default=0.1, metadata={"help": "largest norm of the whole gradient"})
    warmup_steps: int = field(default=200, metadata={"help": "linear from warmup_factor to 1"})
    warmup_factor: float = field(default=1.0, metadata={"help": "1.0: no warm-up"})
    milestones: list[int] = field(default_factory=list, metadata={"help": "steps at which lr falls"})
    gamma: float = field(default=0.1, metadata={"help": "by this factor"})

    def rates(self) -> dict[str, float]:
        """Learning rates by the name of their group of parameters; ``base`` is that of all others."""
        given = {
            "base": self.lr,
            "text": self.text_lr,
            "mlp": self.mlp_lr,
            "dense": self.dense_lr,
            "decoder": self.decoder_lr,
            "backbone": _times(self.backbone_factor, self.lr),
            "offsets": _times(self.offsets_factor, self.lr),
        }
        return {group: rate for group, rate in given.items() if rate is not None}


def _times(factor: float | None, rate: float | None) -> float | None:
    """A rate that is told by another one."""
    return None if factor is None or rate is None else factor * rate
