"""What the plug-in asks of the model that it sits on.

Notation: B images, N rows (one object asked for in one image), S the side of the input square, C the width of the
image embedding, h and w its sides, T prompt tokens, M masks.
"""

from __future__ import annotations

import copy
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn

from sam_uniref.interfaces import ImageFeatures, Prompts
from sam_uniref.transforms import ImageTransform, Size, content_mask

logger = logging.getLogger(__name__)

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


class Host(nn.Module, ABC):
    """A frozen promptable segmenter. Implements `ImageBackbone` and `MaskDecoder`.

    A subclass sets the attributes and calls `freeze` at the end of its ``__init__``.

    Attributes:
        image_encoder: ``(B, 3, S, S)`` to the image embedding, and whatever else `encode` makes of it.
        prompt_encoder: Of points, boxes and masks.
        mask_decoder: As it was released. What is trained is a copy, from `trainable_decoder`.
        transform: Into and out of the input square.
        strides: Of the one level that `encode` gives, in input pixels.
        channels: C.
        low_res_stride: Of the masks' logits, in input pixels.
        own_tables: Where the image size is not the host's own, its tables of positions before they were interpolated,
            by the names of `own_state_dict`: what a host is at any size is saved with these.
    """

    image_encoder: nn.Module
    prompt_encoder: nn.Module
    mask_decoder: nn.Module
    transform: ImageTransform
    strides: tuple[int, ...]
    channels: int
    low_res_stride: int
    own_tables: dict[str, Tensor]

    def freeze(self) -> None:
        """Train nothing of it, and keep it in evaluation mode."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, but batch norms stay on their stored statistics, also beside LoRA that is trained."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BATCH_NORM):
                module.training = False
        return self

    # ---- The image encoder ----

    @property
    def encoder(self) -> nn.Module:
        """The image encoder."""
        return self.image_encoder

    @property
    def is_rounded(self) -> bool:
        """Whether the image encoder's weights are held in less than the precision they came in."""
        return False

    @property
    def has_skips(self) -> bool:
        """Whether the mask decoder wants more of a picture than the one level, so that `encode` gives skips."""
        return False

    @abstractmethod
    def encode(self, pixels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """``(B, 3, S, S)`` normalised images to one level ``(B, C, h, w)``, and the maps that `decode` wants beside."""

    def image_features(
        self,
        pixels: Tensor,
        input_sizes: Sequence[Size],
        original_sizes: Sequence[Size],
        maps: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] | None = None,
    ) -> ImageFeatures:
        """As `encode`, with which cells are padding.

        Args:
            pixels: ``(B, 3, S, S)``, normalised and padded.
            input_sizes: Per image ``(height, width)`` of its content in the square.
            original_sizes: Per image ``(height, width)`` of the picture.
            maps: Levels and skips that something else than `encode` made of the pixels, in place of what it would.
        """
        levels, skips = self.encode(pixels) if maps is None else maps
        padding = tuple(
            ~content_mask(input_sizes, (level.shape[2], level.shape[3]), stride, pixels.device)
            for level, stride in zip(levels, self.strides, strict=True)
        )
        return ImageFeatures(levels, padding, pixels, tuple(input_sizes), tuple(original_sizes), skips)

    def speed_up_encoder(self, precision: str = "float32", compile: bool = False) -> None:  # noqa: A002
        """Choose how the image encoder is computed; only SAM's own has a choice.

        Args:
            precision: ``"float32"``.
            compile: False.

        Raises:
            ValueError: If it is to be anything else.
        """
        if precision != "float32" or compile:
            raise ValueError(
                f"encoder_precision and compile are for SAM's own image encoder, not for a {type(self).__name__}'s; "
                "leave them out, or run it under torch.autocast"
            )

    @torch.no_grad()
    def warm_up(self, batch_size: int = 1) -> float:
        """Encode blank pictures twice, so that whatever is compiled or chosen at first is done; says so in the log.

        Args:
            batch_size: Of the pictures that will be encoded: each other size is compiled anew.

        Returns:
            Seconds that such a batch takes from now on.
        """
        weight = next(self.image_encoder.parameters())
        pixels = weight.new_zeros(batch_size, 3, self.transform.size, self.transform.size, dtype=torch.float32)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            self.encode(pixels)[0][0].sum().item()  # waits for a GPU
            seconds.append(time.perf_counter() - start)
        logger.info(
            "the image encoder is warm: %d x %d px on %s took %.2f s at first and takes %.2f s now",
            *(batch_size, self.transform.size, weight.device, *seconds),
        )
        return seconds[-1]

    # ---- The mask decoder ----

    @abstractmethod
    def decode(
        self,
        features: Tensor,
        prompts: Prompts | None,
        tokens: Tensor | None,
        mask_decoder: nn.Module,
        *,
        skips: Sequence[Tensor] = (),
        multimask: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Decode N rows in one call, whatever images they are about.

        Args:
            features: ``(N, C, h, w)``, one map a row.
            prompts: N rows, or None.
            tokens: Extra sparse prompts ``(N, T, C)``, put after points and boxes, or None.
            mask_decoder: The untouched decoder, or a trained one from `trainable_decoder`.
            skips: What `encode` gave beside the level, one map a row.
            multimask: Three candidate masks instead of one.

        Returns:
            Low-res logits ``(N, M, 4h, 4w)`` and predicted IoU ``(N, M)``; M is 3 or 1.
        """

    def trainable_decoder(self) -> nn.Module:
        """A copy of the mask decoder to be trained; what no loss would ever reach stays frozen."""
        decoder = copy.deepcopy(self.mask_decoder).requires_grad_(True)
        for part in self.never_asked(decoder):
            part.requires_grad_(False)
        return decoder

    def never_asked(self, decoder: nn.Module) -> Iterator[nn.Module]:
        """Parts of a decoder that training asks nothing of: the hypernetworks of mask tokens 1-3."""
        yield from cast(nn.ModuleList, decoder.output_hypernetworks_mlps)[1:]

    @abstractmethod
    def recomputed(self, decoder: nn.Module) -> list[nn.Module]:
        """Parts of a decoder that hold much of what training keeps, each run by being called."""

    # ---- Saving ----

    def own_state_dict(self) -> dict[str, Tensor]:
        """Its tensors by the names of its own checkpoints, without LoRA and at its own image size."""
        state = {name.replace(".base_layer.", "."): t for name, t in self.state_dict().items() if "lora_" not in name}
        return {self.own_name(name): tensor for name, tensor in state.items()} | self.own_tables

    def own_name(self, name: str) -> str:
        """What its own checkpoints call one of its tensors; by default the same."""
        return name
