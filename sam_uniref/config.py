"""The configuration that is saved beside a SamRef's weights. Unknown keys are errors."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Self, TypeVar, get_type_hints

from sam_uniref.adapters.unifusion import checked_injection, checked_order

T = TypeVar("T")

POOLING = ("object", "image")


@dataclass
class FusionConfig:
    """UniFusion."""

    heads: int = field(default=8, metadata={"help": "attention heads"})
    head_width: int = field(default=256, metadata={"help": "width of one head; 8 x 256 whatever C is, as published"})
    dropout: float = field(default=0.1, metadata={"help": "on attention weights, in training"})
    zero_init: bool = field(default=True, metadata={"help": "start from the identity (off: ablation)"})
    start_alike: bool = field(
        default=True, metadata={"help": "queries and keys start as the same projection (off: apart, as published)"}
    )
    order: str = field(
        default="parallel",
        metadata={"help": "of kinds of reference: parallel (as published); in_order, reversed: ablation"},
    )
    injection: str = field(default="add", metadata={"help": "add (UniRef++) or multiply (the first UniRef)"})
    shared_levels: bool = field(default=True, metadata={"help": "one module for all feature levels (off: ablation)"})
    shared_kinds: bool = field(
        default=True,
        metadata={"help": "one module for sentences, examples and frames, and so for all tasks (off: ablation)"},
    )

    def __post_init__(self) -> None:
        checked_order(self.order)
        checked_injection(self.injection)


@dataclass
class MaskEncoderConfig:
    """The mask encoder."""

    width: int = field(default=64, metadata={"help": "channels of the ResNet-18 trunk's first stage"})
    norm: str = field(default="group", metadata={"help": "group (fresh) or batch (stored statistics)"})


@dataclass
class SentenceConfig:
    """A text encoder."""

    name: str | None = field(default=None, metadata={"help": "hub id or folder; none: no sentences"})
    max_length: int = field(default=77, metadata={"help": "longest sentence in tokens"})
    trained: bool = field(default=False, metadata={"help": "its weights differ from those of its name"})


@dataclass
class TextEncoderConfig(SentenceConfig):
    """A text encoder and its resizer."""

    dropout: float = field(default=0.1, metadata={"help": "after the resizer, in training"})


@dataclass
class LoraConfig:
    """LoRA on encoders; no targets, no LoRA."""

    image_targets: list[str] = field(default_factory=list, metadata={"help": "such as [qkv]"})
    text_targets: list[str] = field(default_factory=list, metadata={"help": "such as [query, value]"})
    rank: int = field(default=8, metadata={"help": "rank of the update"})
    alpha: float = field(default=16.0, metadata={"help": "the update is scaled by alpha / rank"})
    dropout: float = field(default=0.0, metadata={"help": "before the update"})


@dataclass
class BaseSamConfig:
    """The frozen SAM that everything is plugged into."""

    size: str = field(default="vit_h", metadata={"help": "which one: a name of sam_uniref.hosts.HOST_NAMES"})
    checkpoint: str | None = field(default=None, metadata={"help": "file or folder name of its weights; none: random"})
    sha256: str | None = field(default=None, metadata={"help": "of that file"})
    image_size: int | None = field(default=None, metadata={"help": "input square's side in pixels; none: SAM's own"})
    architecture: dict[str, Any] | None = field(
        default=None, metadata={"help": "of one that was given as a folder or a model: its own configuration"}
    )


@dataclass
class ModelConfig(ABC):
    """What every model is built from.

    Attributes:
        kind: What saved folders and configurations of runs call such a model.
    """

    kind: ClassVar[str]

    text_encoder: SentenceConfig = field(default_factory=SentenceConfig)

    @property
    @abstractmethod
    def size(self) -> str:
        """Which network it is built on, as `for_size` calls it."""

    @classmethod
    @abstractmethod
    def for_size(cls, size: str) -> Self:
        """The published widths.

        Raises:
            ValueError: If there is no such size.
        """

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From JSON.

        Raises:
            ValueError: If it is another kind of model's, or a key is unknown; the nearest known one is named.
        """
        kind = values.get("kind", SamRefConfig.kind)  # the first models that were saved do not say
        if kind != cls.kind:
            raise ValueError(f"this is a {kind}, not a {cls.kind}; load it as one, or give another folder")
        return build_dataclass(cls, {key: value for key, value in values.items() if key != "kind"})


@dataclass
class PluggedConfig(ModelConfig):
    """What every model that is plugged into a frozen SAM is built from."""

    sam: BaseSamConfig = field(default_factory=BaseSamConfig)

    @property
    def size(self) -> str:
        """The SAM's name."""
        return self.sam.size

    @classmethod
    def for_size(cls, size: str) -> Self:
        """The published widths."""
        return cls(sam=BaseSamConfig(size=size))


@dataclass
class SamRefConfig(PluggedConfig):
    """Everything a SamRef is built from."""

    kind: ClassVar[str] = "samref"

    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    mask_encoder: MaskEncoderConfig = field(default_factory=MaskEncoderConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    pooling: str = field(
        default="object",
        metadata={"help": "of a mask reference's keys: over the object, or over the image (as published)"},
    )

    def __post_init__(self) -> None:
        if self.pooling not in POOLING:
            raise ValueError(f"pooling must be one of {POOLING}, got {self.pooling!r}")

    @classmethod
    def for_size(cls, size: str) -> Self:
        """The published widths for SAM's own sizes; a tenth of them for ``tiny``."""
        config = super().for_size(size)
        if size == "tiny":
            config.fusion = FusionConfig(heads=4, head_width=32)
            config.mask_encoder = MaskEncoderConfig(width=32)
        return config


def unknown_key(key: str, known: Iterable[str]) -> ValueError:
    """The error for a key that does not exist, naming the nearest that does."""
    known = sorted(known)
    near = difflib.get_close_matches(key.rsplit(".", 1)[-1], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return ValueError(f"unknown configuration key {key!r}; {hint}")


def build_dataclass(cls: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """A dataclass, and those inside it, from a mapping.

    Raises:
        ValueError: If a key is unknown (the nearest known one is named), or a group of keys is no mapping.
    """
    hints = get_type_hints(cls)
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise unknown_key(f"{path}{key}", known)
        if is_dataclass(hints[key]) and not isinstance(value, Mapping):
            raise ValueError(f"configuration key '{path}{key}' must be a mapping, got {value!r}")
        given[key] = build_dataclass(hints[key], value, f"{path}{key}.") if is_dataclass(hints[key]) else value
    return cls(**given)
