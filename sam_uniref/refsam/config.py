"""The configuration that is saved beside a RefSam's weights. Unknown keys are errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from sam_uniref.config import PluggedConfig

DENSE_PROMPTS = ("attention", "sentence")


@dataclass
class MlpConfig:
    """The cross-modal MLP."""

    width: int = field(default=512, metadata={"help": "of its hidden layers"})
    hidden_layers: int = field(default=1, metadata={"help": "between the first and the last; 1 was found best"})

    def __post_init__(self) -> None:
        if self.width < 1 or self.hidden_layers < 0:
            raise ValueError(
                f"mlp.width must be at least 1 and mlp.hidden_layers at least 0, got {self.width}, {self.hidden_layers}"
            )


@dataclass
class EncoderAdapterConfig:
    """Adapters in the second half of the image encoder."""

    enabled: bool = field(default=True, metadata={"help": "off: the image encoder is SAM's as it is"})
    reduction: int = field(default=4, metadata={"help": "the encoder's width over that of the bottleneck"})
    scale: float = field(default=0.5, metadata={"help": "of the adapter beside a block's MLP"})
    zero_start: bool = field(
        default=False, metadata={"help": "start as SAM's encoder is; the published ones start at random"}
    )

    def __post_init__(self) -> None:
        if self.reduction < 1:
            raise ValueError(f"adapters.reduction must be at least 1, got {self.reduction}")


@dataclass
class TrackTokenConfig:
    """The module that makes the next frame's track token."""

    heads: int = field(default=8, metadata={"help": "attention heads"})
    width: int = field(default=1024, metadata={"help": "of its two hidden layers"})


@dataclass
class RefSamConfig(PluggedConfig):
    """Everything a RefSam is built from. The published widths are the same for every SAM."""

    kind: ClassVar[str] = "refsam"

    mlp: MlpConfig = field(default_factory=MlpConfig)
    adapters: EncoderAdapterConfig = field(default_factory=EncoderAdapterConfig)
    track_token: TrackTokenConfig = field(default_factory=TrackTokenConfig)
    dense: str = field(
        default="attention", metadata={"help": "the dense prompt: attention to the words, or the sentence alone"}
    )
    mask_padding: bool = field(
        default=True, metadata={"help": "off: padding of shorter sentences is read and used like words, as published"}
    )

    def __post_init__(self) -> None:
        if self.dense not in DENSE_PROMPTS:
            raise ValueError(f"dense must be one of {DENSE_PROMPTS}, got {self.dense!r}")
