"""What models have in common that are plugged into a frozen SAM: its encoder, a decoder of their own, sentences, files.

The image encoder and the prompt encoder stay frozen, a copy of SAM's mask decoder is trained, and SAM's own stays
untouched. What else is plugged in is the subclasses' business.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack, cast

import torch
from torch import Tensor, nn

from sam_uniref.adapters import SentenceEncoder, has_lora, load_text_model
from sam_uniref.config import ModelConfig, PluggedConfig, SentenceConfig
from sam_uniref.hosts import PUBLISHED, Host, build_host, skeleton_host
from sam_uniref.hub.repositories import HubOptions
from sam_uniref.hub.text_encoders import text_encoder as find_text_encoder
from sam_uniref.interfaces import ImageFeatures, TrainablePart
from sam_uniref.state import without_aliases
from sam_uniref.trainable import TrainableModel
from sam_uniref.transforms import ImageTransform, Size


class PluggedSam(TrainableModel):
    """A frozen SAM with something plugged in.

    Args:
        host: The frozen SAM, or another promptable segmenter (`sam_uniref.hosts`).
        text_encoder: For sentences, or None.
        config: What everything is built from.

    Attributes:
        config_class: Of its configuration.
        trained_names: How the names begin of what a checkpoint always holds.
    """

    config_class: ClassVar[type[PluggedConfig]]
    trained_names: ClassVar[tuple[str, ...]]
    config: PluggedConfig
    text_encoder: SentenceEncoder | None

    def __init__(self, host: Host, text_encoder: SentenceEncoder | None, config: PluggedConfig) -> None:
        super().__init__()
        self.config = config
        self.sam = host
        self.mask_decoder = host.trainable_decoder()
        self.text_encoder = text_encoder
        if text_encoder is not None:
            text_encoder.model.requires_grad_(False)

    # ---- Building, saving, loading ----

    @classmethod
    @abstractmethod
    def wrap_text_model(
        cls, model: nn.Module, tokenizer: Any, channels: int, config: SentenceConfig
    ) -> SentenceEncoder:
        """A language model and its tokenizer as this class wants them, for image features of width ``channels``."""

    @classmethod
    def from_sam(
        cls,
        size: str | Path | nn.Module,
        checkpoint: str | Path | None = PUBLISHED,
        text_encoder: str | Path | None = None,
        *,
        image_size: int | None = None,
        config: PluggedConfig | None = None,
        local_files_only: bool = False,
        encoder_precision: str = "float32",
        compile: bool = False,  # noqa: A002
    ) -> Self:
        """Plug fresh parts into a SAM.

        Args:
            size: ``"vit_b"``, ``"vit_l"``, ``"vit_h"``, or ``"tiny"``; another of `sam_uniref.hosts.HOST_NAMES`, such
                as ``"sam2.1_hiera_tiny"``; or a model of ``transformers``', or the folder that one was saved to.
            checkpoint: segment-anything's ``.pth`` for that size (or ``.safetensors``), or ``"tiny"`` for the packaged
                one; for a host of ``transformers``' the folder of its files. By default the published one, which is
                fetched once and kept (`sam_uniref.hub`); nothing is published of the size ``"tiny"``. None: random
                weights, with a warning.
            text_encoder: Hub id or folder of a Hugging Face text encoder, or ``"tiny"`` for the packaged one; None for
                a model without sentences.
            image_size: Side of the input square in pixels: smaller is faster. Any positive multiple of the patch
                size, 16 (``"tiny"``: 8; SAM 2 and EdgeTAM: 32); by default SAM's own, 1024 (``"tiny"``: 128). What is
                trained does not depend on it; SAM's tables of positions are interpolated. Multiples of 224 (``"tiny"``:
                64) fill the encoder's attention windows, which others pad.
            config: Widths and options, of the model's `config_class`; its ``for_size(size)`` by default. ``size``,
                ``checkpoint``, ``text_encoder`` and ``image_size`` are written into it.
            local_files_only: Never ask the net for the checkpoint or the text encoder.
            encoder_precision: Of the image encoder's matrix products: ``"float32"``, ``"bf16"`` or ``"fp16"``; half
                precision is the fast one on GPUs and on CPUs that multiply in it. SAM's own only.
            compile: Compile the image encoder, SAM's own only; see `SamHost.speed_up_encoder`.

        Raises:
            ValueError: If the size or the precision is unknown, the image size is not such a multiple, or the
                checkpoint is broken or of another size.
            FileNotFoundError: If the checkpoint or the text encoder is neither there nor to be had.
            ImportError: If the host needs a package that is not there, naming it.
        """
        host, base = build_host(size, checkpoint, image_size=image_size, local_files_only=local_files_only)
        config = copy.deepcopy(config) if config else cls.config_class.for_size(base.size)
        config.sam = base
        config.text_encoder.name = None if text_encoder is None else str(text_encoder)
        text = None
        if text_encoder is not None:
            source = find_text_encoder(text_encoder, local_files_only=local_files_only)
            loaded = load_text_model(source, local_files_only=local_files_only)
            text = cls.wrap_text_model(*loaded, host.channels, config.text_encoder)
        model = cls(host, text, config)
        model.sam.speed_up_encoder(encoder_precision, compile)
        return model

    @classmethod
    def fresh(
        cls,
        size: str,
        checkpoint: str | Path | None = None,
        text_encoder: str | Path | None = None,
        *,
        image_size: int | None = None,
        config: ModelConfig | None = None,
    ) -> Self:
        """As `from_sam`, by the name that all kinds of model have for it."""
        own = cast(PluggedConfig | None, config)
        return cls.from_sam(size, checkpoint, text_encoder, image_size=image_size, config=own)

    @classmethod
    def skeleton(
        cls,
        size: str,
        text_model: tuple[nn.Module, Any] | None = None,
        *,
        image_size: int | None = None,
        config: ModelConfig | None = None,
        device: torch.device | str = "meta",
    ) -> Self:
        """See `TrainableModel.skeleton`."""
        own = cast(PluggedConfig, config) if config else cls.config_class.for_size(size)
        side = own.sam.image_size if image_size is None else image_size
        with torch.device(device):
            host = skeleton_host(size, side, own.sam.architecture)
            text = None if text_model is None else cls.wrap_text_model(*text_model, host.channels, own.text_encoder)
            return cls(host, text, own)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        folder: str | Path,
        checkpoint: str | Path | None = None,
        *,
        image_size: int | None = None,
        encoder_precision: str = "float32",
        compile: bool = False,  # noqa: A002
        **hub: Unpack[HubOptions],
    ) -> Self:
        """Load what `save_pretrained` wrote, the packaged model ``"tiny"``, or one on the hub, ``"user/name"``.

        See `sam_uniref.checkpoint.load_pretrained`, `SamHost.speed_up_encoder` for precision and compilation, and
        `sam_uniref.hub.repositories.HubOptions` for how the hub is asked.
        """
        from sam_uniref.checkpoint import load_pretrained

        model = load_pretrained(cls, folder, checkpoint, image_size=image_size, **hub)
        model.sam.speed_up_encoder(encoder_precision, compile)
        return model

    def _save_pretrained(self, save_directory: Path, card: Mapping[str, Any] | None = None) -> None:
        """Write what was trained and the configuration. See `sam_uniref.checkpoint.save_pretrained`."""
        from sam_uniref.checkpoint import save_pretrained

        save_pretrained(self, save_directory, card)

    def speed_up_encoder(self, precision: str = "float32", compile: bool = False) -> None:  # noqa: A002
        """See `SamHost.speed_up_encoder`, for a model that is to be trained and saved.

        Raises:
            ValueError: If the host's encoder has no such choice, or the model could not be saved then.
        """
        from sam_uniref.checkpoint import check_base

        self.sam.speed_up_encoder(precision, compile)
        check_base(self)

    # ---- Encoding pictures ----

    @property
    def transform(self) -> ImageTransform:  # type: ignore[override]
        """Into and out of SAM's input square."""
        return self.sam.transform

    def encode_pixels(
        self, pixels: Tensor, input_sizes: Sequence[Size], original_sizes: Sequence[Size]
    ) -> ImageFeatures:
        """Encode ``(B, 3, S, S)`` images, normalised and padded, once each."""
        levels, skips = self.encode_maps(pixels)
        return self.sam.image_features(pixels, input_sizes, original_sizes, (self.adapted(levels), skips))

    def low_res_size(self, features: ImageFeatures) -> Size:
        """``(height, width)`` of the first image's content in low-res logits; the rest of them is padding."""
        height, width = features.input_sizes[0]
        stride = self.sam.low_res_stride
        return -(-height // stride), -(-width // stride)

    def frozen_backbone(self) -> Host:
        """SAM, if nothing in its image encoder is trained and its levels are all that its decoder wants."""
        if self.sam.has_skips:
            raise ValueError(
                f"a {self.config.sam.size}'s mask decoder wants other maps beside the image embedding, which a cache "
                "does not hold; leave the cache out"
            )
        if has_lora(self.sam.image_encoder):
            raise ValueError(
                "LoRA changes the image encoder with every step, so that there is nothing to cache; leave the cache "
                "out, or lora.image_targets"
            )
        if any(parameter.requires_grad for parameter in self.sam.image_encoder.parameters()):
            raise ValueError("the image encoder is trained, so that there is nothing to cache; leave the cache out")
        return self.sam

    def encoded_before(
        self,
        pixels: Tensor,
        input_sizes: Sequence[Size],
        original_sizes: Sequence[Size],
        levels: tuple[Tensor, ...],
    ) -> ImageFeatures:
        """As `encode_pixels`, with what SAM's encoder made of ``(B, 3, S, S)`` images before."""
        levels = self.adapted(tuple(level.to(pixels.dtype) for level in levels))
        return self.sam.image_features(pixels, input_sizes, original_sizes, (levels, ()))

    def adapted(self, levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the model goes on with in place of its encoder's levels; by default these."""
        return levels

    def encode_levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, S, S)`` to levels ``(B, C, h, w)``; see `encode_maps`."""
        return self.encode_maps(pixels)[0]

    def encode_maps(self, pixels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """``(B, 3, S, S)`` to levels and skips; without gradients unless SAM's encoder has something trained."""
        trained = any(parameter.requires_grad for parameter in self.sam.image_encoder.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            return self.sam.encode(pixels)

    # ---- What is trained, and what a checkpoint holds ----

    def frozen_parts(self) -> list[TrainablePart]:
        """SAM as it was."""
        return [
            TrainablePart("image encoder", self.sam.image_encoder),
            TrainablePart("prompt encoder", self.sam.prompt_encoder),
            TrainablePart("SAM's own mask decoder", self.sam.mask_decoder),
        ]

    def trained_state_dict(self) -> dict[str, Tensor]:
        """What is always trained, LoRA, and the text encoder if it was ever trained."""
        whole = self.trained_names
        if self.config.text_encoder.trained:
            whole = (*whole, "text_encoder.model.")
        state = {k: v for k, v in self.state_dict().items() if k.startswith(whole) or "lora_" in k}
        return without_aliases(state)
