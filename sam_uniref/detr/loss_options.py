"""What a UniRef is trained with, apart from weights."""

from __future__ import annotations

from dataclasses import dataclass, field

MASK_LOSSES = ("focal", "bce")


@dataclass(frozen=True)
class LossOptions:
    """Which losses there are and how they are taken. Their weights are the trainer's."""

    mask: str = field(
        default="focal",
        metadata={"help": "of each pixel: focal, as the released code has it, or bce, as the paper says"},
    )
    video_terms: bool = field(
        default=False,
        metadata={"help": "also the bootstrapped cross-entropy and the mask IoU; published: in the video stage"},
    )
    full_resolution: bool = field(
        default=False,
        metadata={"help": "compare masks of objects that frames alone ask for (vos) at every pixel; published: always"},
    )
    padding: bool = field(
        default=False,
        metadata={"help": "count padding as background, as the released code does; off: masks' losses leave it out"},
    )
    boxinst_masks: int = field(
        default=64,
        metadata={"help": "most masks a layer that are compared with boxes, drawn at random (published: 64)"},
    )

    def __post_init__(self) -> None:
        if self.mask not in MASK_LOSSES:
            raise ValueError(f"the mask loss must be one of {MASK_LOSSES}, got {self.mask!r}")
        if self.boxinst_masks < 1:
            raise ValueError(f"boxinst_masks must be at least 1, got {self.boxinst_masks}")
