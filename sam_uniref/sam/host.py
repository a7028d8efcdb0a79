"""SAM as a host: its encoder, its prompt encoder and its untouched decoder, batched for any images and rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam
from torch import Tensor, nn
from torch.nn import functional as F

from sam_uniref.hosts.host import Host
from sam_uniref.interfaces import Prompts
from sam_uniref.sam.build import PIXEL_MEAN, PIXEL_STD
from sam_uniref.sam.compilation import CompiledBlocks
from sam_uniref.sam.image_encoder import ImageEncoder, run_block
from sam_uniref.sam.resize import resize_sam
from sam_uniref.sam.two_way import two_way
from sam_uniref.transforms import ImageTransform, SquareTransform


class PromptedSamHost(Host):
    """A host with segment-anything's own prompt encoder and mask decoder, whatever its image encoder is.

    Its parameters bear the names of segment-anything's checkpoints.

    Args:
        sam: With its weights loaded, which become the host's.
        image_encoder: ``(B, 3, S, S)`` normalised images to ``(B, C, h, w)``.
        image_size: S, which the prompt encoder is already at.
    """

    prompt_encoder: PromptEncoder
    mask_decoder: MaskDecoder

    def __init__(self, sam: Sam, image_encoder: nn.Module, image_size: int) -> None:
        super().__init__()
        self.own_tables = {}
        self.image_encoder = image_encoder
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder
        self.transform: ImageTransform = SquareTransform(image_size, PIXEL_MEAN, PIXEL_STD)
        self.strides: tuple[int, ...] = (image_size // sam.prompt_encoder.image_embedding_size[0],)
        self.channels = sam.mask_decoder.transformer_dim
        self.low_res_stride = self.strides[0] // 4
        self.freeze()

    def encode(self, pixels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """``(B, 3, S, S)`` normalised images to one level ``(B, C, h, w)``, and no other maps."""
        return (self.image_encoder(pixels),), ()

    def recomputed(self, decoder: nn.Module) -> list[nn.Module]:
        """The layers of the two-way transformer, and the upscaling."""
        own = cast(MaskDecoder, decoder)
        return [*own.transformer.layers, own.output_upscaling]

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

        segment-anything's decoder multiplies B images with P prompts; here each row brings its own features.

        Args:
            features: ``(N, C, h, w)``, one map a row.
            prompts: N rows, or None.
            tokens: Extra sparse prompts ``(N, T, C)``, put after points and boxes, or None.
            mask_decoder: The untouched decoder, or a trained one of the same class.
            skips: None.
            multimask: Three candidate masks instead of one.

        Returns:
            Low-res logits ``(N, M, 4h, 4w)`` and predicted IoU ``(N, M)``; M is 3 or 1.
        """
        logits, scores = self.decode_all(features, prompts, tokens, cast(MaskDecoder, mask_decoder))
        wanted = slice(1, None) if multimask else slice(0, 1)
        return logits[:, wanted], scores[:, wanted]

    def decode_all(
        self, features: Tensor, prompts: Prompts | None, tokens: Tensor | None, mask_decoder: MaskDecoder
    ) -> tuple[Tensor, Tensor]:
        """As `decode`, with all four masks: the single one, then the three candidates."""
        sparse, dense = self.embed_prompts(prompts, features.shape[0])
        if tokens is not None:
            sparse = torch.cat([sparse, tokens.to(sparse.dtype)], dim=1)
        logits, scores, _ = self.run_decoder(features, sparse, dense, mask_decoder)
        return logits, scores

    def run_decoder(
        self, features: Tensor, sparse: Tensor, dense: Tensor, mask_decoder: MaskDecoder, padding: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode N rows whose prompts are embedded already.

        Args:
            features: ``(N, C, h, w)``, one map a row.
            sparse: Prompt tokens ``(N, T, C)``.
            dense: ``(N, C, h, w)``, added to the features.
            mask_decoder: As in `decode`.
            padding: ``(N, T)`` bool, True where a prompt token is there for its row's length only.

        Returns:
            Low-res logits ``(N, 4, 4h, 4w)`` and predicted IoU ``(N, 4)``, the single mask first; and the mask tokens
            as they leave the transformer, ``(N, 4, C)``.
        """
        outputs = torch.cat([mask_decoder.iou_token.weight, mask_decoder.mask_tokens.weight])
        queries = torch.cat([outputs.expand(features.shape[0], -1, -1), sparse], dim=1)
        positions = self.prompt_encoder.get_dense_pe().expand(features.shape[0], -1, -1, -1)
        if padding is None:
            states, image = mask_decoder.transformer(features + dense, positions, queries)
        else:
            unseen = F.pad(padding, (len(outputs), 0))
            states, image = two_way(mask_decoder.transformer, features + dense, positions, queries, unseen)
        image = image.transpose(1, 2).reshape(features.shape)
        image = mask_decoder.output_upscaling(image)
        # All four tokens, wanted or not: one matrix product of SAM's own shape gives SAM's own bits.
        masks = states[:, 1 : len(outputs)]
        kernels = [mlp(masks[:, i]) for i, mlp in enumerate(mask_decoder.output_hypernetworks_mlps)]
        logits = (torch.stack(kernels, dim=1) @ image.flatten(2)).unflatten(2, image.shape[-2:])
        return logits, mask_decoder.iou_prediction_head(states[:, 0]), masks

    def embed_prompts(self, prompts: Prompts | None, rows: int) -> tuple[Tensor, Tensor]:
        """Sparse ``(N, T, C)`` and dense ``(N, C, h, w)`` prompt embeddings; the no-mask embedding without a mask."""
        points = None
        if prompts is not None and prompts.points is not None and prompts.labels is not None:
            points = (prompts.points, prompts.labels)
        sparse, dense = self.prompt_encoder(
            points=points,
            boxes=prompts.boxes if prompts is not None else None,
            masks=prompts.mask_logits if prompts is not None else None,
        )
        if sparse.shape[0] != rows:  # without prompts SAM's encoder answers for one row
            sparse, dense = sparse.expand(rows, -1, -1), dense.expand(rows, -1, -1, -1)
        return sparse, dense


class SamHost(PromptedSamHost):
    """The frozen SAM.

    Args:
        sam: With its weights loaded, which become the host's.
        image_size: Side of the input square in pixels, a positive multiple of the patch size; SAM's own by default.

    Raises:
        ValueError: If the image size is not such a multiple.
    """

    image_encoder: ImageEncoder

    def __init__(self, sam: Sam, image_size: int | None = None) -> None:
        tables = {} if image_size is None else resize_sam(sam, image_size)
        super().__init__(sam, ImageEncoder(sam.image_encoder), sam.image_encoder.img_size)
        self.own_tables = tables

    @property
    def is_rounded(self) -> bool:
        """Whether the image encoder's weights are held in less than float32."""
        return self.image_encoder.is_rounded

    def speed_up_encoder(self, precision: str = "float32", compile: bool = False) -> None:  # noqa: A002
        """Choose how the image encoder is computed.

        Args:
            precision: Of its matrix products, whose weights are held in it from now on: ``"float32"``, ``"bf16"`` or
                ``"fp16"``. What was rounded does not come back.
            compile: Run its blocks through `torch.compile` where no gradients are asked for; `warm_up` compiles them,
                or else the first picture. Without a compiler they run as they are, with a warning.

        Raises:
            ValueError: If there is no such precision.
        """
        self.image_encoder.hold_in(precision)
        self.image_encoder.run_frozen_block = CompiledBlocks() if compile else run_block
