"""The configuration that is saved beside a UniRef's weights. Unknown keys are errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

from sam_uniref.config import POOLING, FusionConfig, MaskEncoderConfig, ModelConfig, TextEncoderConfig

SIZES = ("tiny", "r50", "swinl")
BACKBONES = ("resnet18", "resnet50", "swin_large")
BACKBONE_NORMS = ("group", "batch")


@dataclass
class BackboneConfig:
    """The image backbone."""

    name: str = field(default="resnet50", metadata={"help": f"one of {', '.join(BACKBONES)}"})
    width: int = field(default=64, metadata={"help": "channels of a ResNet's stem; later stages follow from it"})
    norm: str = field(
        default="batch",
        metadata={"help": "of a ResNet: batch (stored statistics, ImageNet weights) or group (from nothing)"},
    )
    frozen_stages: int = field(
        default=2, metadata={"help": "how many stages are never trained, the stem being the first: 0 to 5"}
    )
    drop_path: float = field(default=0.0, metadata={"help": "share of a Swin's blocks that are left out, in training"})

    def __post_init__(self) -> None:
        if self.name not in BACKBONES:
            raise ValueError(f"backbone must be one of {BACKBONES}, got {self.name!r}")
        if self.norm not in BACKBONE_NORMS:
            raise ValueError(f"the backbone's norm must be one of {BACKBONE_NORMS}, got {self.norm!r}")
        if not 0 <= self.frozen_stages <= 5:
            raise ValueError(f"frozen_stages must be 0 to 5, got {self.frozen_stages}")


@dataclass
class TransformerConfig:
    """The two-stage Deformable-DETR."""

    width: int = field(
        default=256, metadata={"help": "channels C, a multiple of 32 (groups of its norms) and of heads"}
    )
    heads: int = field(default=8, metadata={"help": "attention heads of encoder and decoder"})
    encoder_layers: int = field(default=6, metadata={"help": "layers of the encoder"})
    decoder_layers: int = field(default=6, metadata={"help": "layers of the decoder"})
    feedforward: int = field(default=2048, metadata={"help": "inner width of the feed-forward blocks"})
    points: int = field(default=4, metadata={"help": "sampled points a head and level"})
    queries: int = field(default=300, metadata={"help": "proposals that the decoder refines (1, 100: ablation)"})
    dropout: float = field(default=0.0, metadata={"help": "in training"})
    mixed_selection: bool = field(
        default=True, metadata={"help": "queries' contents are learned; off: made of the proposals' boxes"}
    )
    look_forward_twice: bool = field(
        default=True, metadata={"help": "a layer's loss also reaches the box of the layer before it"}
    )

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width < 1 or self.width % 32 or self.width % self.heads:
            raise ValueError(f"width must be a multiple of 32 and of heads={self.heads}, got {self.width}")
        if min(self.encoder_layers, self.decoder_layers, self.points, self.queries) < 1:
            raise ValueError(
                "encoder_layers, decoder_layers, points and queries must be at least 1, got "
                f"{self.encoder_layers}, {self.decoder_layers}, {self.points}, {self.queries}"
            )


@dataclass
class MaskHeadConfig:
    """The mask branch and its dynamic convolutions (published: 8 channels throughout)."""

    channels: int = field(default=8, metadata={"help": "of the mask features"})
    dynamic_channels: int = field(default=8, metadata={"help": "of the layers whose weights a query brings"})


@dataclass
class ImageSizeConfig:
    """How large a picture is looked at."""

    short: int = field(default=800, metadata={"help": "short side in pixels (published: 800; FSS and videos 480)"})
    longest: int = field(default=1333, metadata={"help": "most pixels of the long side"})

    def __post_init__(self) -> None:
        if not 1 <= self.short <= self.longest:
            raise ValueError(f"short must be positive and at most longest, got {self.short} and {self.longest}")


@dataclass
class UniRefConfig(ModelConfig):
    """Everything a UniRef is built from."""

    kind: ClassVar[str] = "uniref"

    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    size: str = field(default="r50", metadata={"help": f"one of {', '.join(SIZES)}"})
    image: ImageSizeConfig = field(default_factory=ImageSizeConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    mask_head: MaskHeadConfig = field(default_factory=MaskHeadConfig)
    mask_encoder: MaskEncoderConfig = field(default_factory=MaskEncoderConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    classes: int = field(default=1, metadata={"help": "1: object or not; 365 in pretraining on Objects365"})
    iou_head: bool = field(
        default=False, metadata={"help": "predict the boxes' IoU too; scores are then geometric means"}
    )
    pooling: str = field(
        default="object",
        metadata={"help": "of a mask reference's keys: over the object, or over the image (as published)"},
    )

    own_canvases: bool = field(
        default=False,
        metadata={
            "help": "in training too each picture has the canvas it would have alone: what else is in the batch does "
            "not count, and sizes run one after another; off: the batch's canvas, as published"
        },
    )

    def __post_init__(self) -> None:
        if self.pooling not in POOLING:
            raise ValueError(f"pooling must be one of {POOLING}, got {self.pooling!r}")
        if self.classes < 1:
            raise ValueError(f"classes must be at least 1, got {self.classes}")

    @classmethod
    def for_size(cls, size: str) -> Self:
        """The published widths for ``r50`` and ``swinl``; a few layers for ``tiny``.

        Raises:
            ValueError: If the size is none of `SIZES`.
        """
        if size not in SIZES:
            raise ValueError(f"size must be one of {SIZES}, got {size!r}")
        config = cls(size=size)
        if size == "swinl":
            config.backbone = BackboneConfig(name="swin_large", frozen_stages=0, drop_path=0.3)
        if size == "tiny":
            config.image = ImageSizeConfig(short=128, longest=256)
            config.backbone = BackboneConfig(name="resnet18", width=32, norm="group", frozen_stages=0)
            config.transformer = TransformerConfig(
                width=64, heads=4, encoder_layers=2, decoder_layers=2, feedforward=128, queries=20
            )
            config.fusion = FusionConfig(heads=4, head_width=32)
            config.mask_encoder = MaskEncoderConfig(width=16)
        return config
